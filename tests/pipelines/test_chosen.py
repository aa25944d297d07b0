"""What single steps do with ``benchmark``, ``limit``, ``restorer`` and ``metric``: what `run` does, or they refuse."""

import gc
import shutil

import pytest

from ffhqref.cli.main import main
from ffhqref.store import tables

QUICK = ("engine.workers=0", "report.n_bootstrap=100", "report.max_cases=1")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command here; return its status and what it said."""
    monkeypatch.chdir(tmp_path)

    def run(name, root, *arguments):
        gc.collect()  # a refused command's lock ends with its process, here with its last reference
        status = main([name, f"root={root}", *QUICK, *arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


@pytest.fixture(scope="module")
def degraded(built, tmp_path_factory):
    """A workspace with the cases of both degradations, six of each."""
    root = tmp_path_factory.mktemp("degraded") / "w"
    shutil.copytree(built, root)
    assert main(["degrade", f"root={root}", *QUICK, "limit=6"]) == 0
    return root


def cases_of(root, table):
    frame = tables.read_table(root, table)
    return sorted(set(map(tuple, frame[["benchmark", "case_id"]].values)))


def test_restore_and_score_take_the_cases_that_run_would(degraded, command, tmp_path):
    root, as_in_run = tmp_path / "w", tmp_path / "again"
    for folder in (root, as_in_run):
        shutil.copytree(degraded, folder)
    assert len(cases_of(root, "cases")) == 12
    assert command("degrade", as_in_run, "benchmark=[severe]", "limit=4")[0] == 0
    wanted = cases_of(as_in_run, "cases")
    assert len(wanted) == 4

    named = ("benchmark=[severe]", "limit=4", "restorer=[lq,bicubic]", "metric=[psnr,niqe]")
    status, said = command("restore", root, *named)
    assert status == 0
    assert "8 outputs of 2 methods" in said
    assert cases_of(root, "restorations") == wanted
    # what was restored is what is scored and shown, and the ground truth of no other case
    assert command("score", root, *named[2:])[0] == 0
    assert cases_of(root, "scores") == wanted
    assert {"ground-truth", "lq", "bicubic"} == set(tables.read_table(root, "scores")["method"])
    status, said = command("report", root, *named)
    board = tables.read_table(root, "leaderboard").query("method != 'ground-truth'")
    assert status == 0
    assert set(board["n"]) == {4}
    assert set(board["benchmark"]) == {"severe"}
    assert board.loc[board["method"] != "lq", "rank"].notna().all()

    assert command("score", root, *named, "limit=2")[0] == 0
    fewer = cases_of(root, "scores")
    assert len(fewer) == 2
    assert set(fewer) < set(wanted)
    assert command("report", root)[0] == 0
    assert set(tables.read_table(root, "leaderboard").query("method != 'ground-truth'")["n"]) == {2}

    # without them, all that is there
    assert command("restore", root, "restorer=[lq]")[0] == 0
    assert cases_of(root, "restorations") == cases_of(root, "cases")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("restore", ["benchmark=[same_age]"], "benchmark=same_age: not in this workspace, which has moderate, severe"),
        ("restore", ["benchmark.severe.references=1"], "made with references=5; run `ffhqref degrade` with it again"),
        ("restore", ["limit=0"], "limit=0: expected a whole number of at least 1"),
    ],
)
def test_what_needs_other_cases_is_refused_in_one_line(degraded, command, tmp_path, name, arguments, words):
    root = tmp_path / "w"
    shutil.copytree(degraded, root)
    status, said = command(name, root, "restorer=[lq]", *arguments)
    assert status == 2
    assert words in said
    assert said.count("\n") == 1
    assert not tables.table_path(root, "restorations").exists()


def test_an_option_as_the_cases_were_made_and_a_larger_limit_are_no_mistakes(degraded, command, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(degraded, root)
    assert command("degrade", root, "limit=1")[0] == 0
    status, said = command("restore", root, "restorer=[lq]", "benchmark.severe.references=5", "limit=3")
    assert status == 0
    assert "limit=3: the cases were made with limit=1; degrade again for more" in said
    assert cases_of(root, "restorations") == cases_of(root, "cases")


def test_a_report_shows_what_is_named_and_says_what_it_leaves_out(degraded, command, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(degraded, root)
    every = ("restorer=[lq,bicubic,tv]", "metric=[psnr,niqe]", "limit=2")
    for step in ("restore", "score"):
        assert command(step, root, *every)[0] == 0

    def report(*arguments):
        status, said = command("report", root, *arguments)
        assert status == 0, said
        board = tables.read_table(root, "leaderboard").query("method != 'ground-truth'")
        return board, said

    board, said = report()
    assert set(board["method"]) == {"lq", "bicubic", "tv"}
    assert "not shown" not in said
    first = (root / "report" / "leaderboard.md").read_text()
    board, said = report("restorer=[tv,bicubic]", "benchmark=[severe]", "metric=[psnr]")
    assert set(map(tuple, board[["benchmark", "method", "metric"]].values)) == {
        ("severe", "bicubic", "psnr"), ("severe", "tv", "psnr")
    }  # fmt: skip
    assert sorted(board["rank"]) == [1, 2], "ranked among themselves"
    assert "in the tables, not named and so not shown: restorer lq; benchmark moderate; metric niqe" in said
    assert "| lq |" in first
    assert "| lq |" not in (root / "report" / "leaderboard.md").read_text()
    board, said = report(*every)
    assert set(board["method"]) == {"lq", "bicubic", "tv"}
    assert "not shown" not in said

    _, said = report(*every, "report.gate={metric: psnr, threshold: 20}", "report.quality=[niqee,niqe]")
    assert "niqee not scored, so the gate does without; scored: niqe, psnr" in said

    status, said = command("report", root, "restorer=[nlm]")
    assert status == 2
    assert "restorer=nlm: not in this workspace, which has bicubic, lq, tv; run `ffhqref" in said
    status, said = command("report", root, "limit=1")
    assert status == 2
    assert "limit=1: 2 targets were scored in " in said

    # a method that is no longer named leaves the tables; its outputs are said to be there, and stand
    status, said = command("restore", root, "restorer=[lq]", "limit=2")
    assert status == 0
    assert "not named, so not in the tables: bicubic, tv; their outputs stay" in said
    status, said = command("restore", root, *every)
    assert status == 0
    assert "to do" not in said
    assert "not named" not in said


def test_an_edited_page_script_makes_the_page_again(degraded, command, tmp_path, monkeypatch):
    import ffhqref.leaderboard.publish as version

    root = tmp_path / "w"
    shutil.copytree(degraded, root)
    for step in ("restore", "score", "report"):
        assert command(step, root, "restorer=[lq]", "metric=[psnr]", "limit=1")[0] == 0
    assert "report: writing" not in command("report", root)[1]
    monkeypatch.setattr(version, "sha256_file", lambda path: f"edited {path.name}")
    assert "report: writing" in command("report", root)[1]
