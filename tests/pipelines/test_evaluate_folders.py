"""`ffhqref evaluate` on folders of one's own, without any workspace: a table, a Parquet file and a page in one line."""

import shutil

import numpy as np
import pytest

from ffhqref.cli.main import main
from ffhqref.core.images import save_png
from ffhqref.store.tables import read_table

SMALL = ("engine.workers=0", "metric=[psnr]", "report.n_bootstrap=50")


def image(path, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    base = np.kron(rng.integers(40, 200, (8, 8, 3)), np.ones((64, 64, 1)))
    noisy = base + np.random.default_rng(seed + 1000).normal(0, noise, base.shape) if noise else base
    save_png(path, np.clip(np.round(noisy), 0, 255).astype(np.uint8))


def psnr_of(root, method="mine"):
    scores = read_table(root, "scores")
    mine = scores[(scores["method"] == method) & (scores["metric"] == "psnr")]
    return dict(zip(mine["case_id"], mine["value"], strict=True))


@pytest.fixture
def folders(tmp_path):
    def make(*names):
        for number, name in enumerate(names):
            image(tmp_path / "gt" / f"{name}.png", number)
            image(tmp_path / "lq" / f"{name}.png", number, noise=40)
            image(tmp_path / "out" / f"{name}.png", number, noise=4 * (number + 1))
        return tmp_path

    return make


def test_names(folders, capsys):
    base = folders("b", "a", "c")
    root = base / "w"
    line = ["evaluate", f"outputs={base}/out", f"gt={base}/gt", f"root={root}", *SMALL]
    assert main([*line, "report.formats=[csv,html]"]) == 0
    told = capsys.readouterr()
    assert "each image counts as another person; where people have several, expected PERSON/IMAGE" in told.err
    said = told.out
    assert "mine" in said
    assert f"page: {root}/report/report.html" in said
    assert (root / "report" / "report.html").is_file()
    found = psnr_of(root)
    expected = {name: 20 * np.log10(255 / (4 * (number + 1))) for number, name in enumerate("bac")}
    assert found == pytest.approx(expected, abs=0.3), "each output against the truth of its name"
    shutil.move(base / "out", base / "better")
    other = [f"outputs={base}/better", "name=other", *line[2:], "report.formats=[csv]"]
    assert main(["evaluate", *other]) == 0
    board = read_table(root, "leaderboard")
    assert set(board["method"]) == {"mine", "other"}
    assert psnr_of(root, "other") == found
    shutil.copytree(base / "gt", base / "gt2")
    assert main(["evaluate", *other, f"gt={base}/gt2"]) == 2
    assert "holds cases of other folders; choose another root" in capsys.readouterr().err


def test_people_with_images_lq_and_references(folders, capsys):
    base = folders("ann/01", "ann/02", "bob/01")
    for name, seed in (("ann/r1", 7), ("ann/r2", 8), ("bob/r1", 9)):
        image(base / "refs" / f"{name}.png", seed)
    shutil.copy(base / "gt" / "ann" / "01.png", base / "refs" / "ann" / "r3.png")
    shutil.copy(base / "lq" / "bob" / "01.png", base / "out" / "bob" / "01.png")
    root = base / "w"
    line = [f"outputs={base}/out", f"gt={base}/gt", f"lq={base}/lq", f"references={base}/refs", f"root={root}"]
    assert main(["evaluate", *line, *SMALL, "report.formats=[csv]"]) == 1, "one output is its input"
    told = capsys.readouterr().err
    assert "references not used, first ann/r3.png: the ground truth itself" in told
    cases = read_table(root, "cases").set_index("case_id")
    assert list(cases.index) == ["ann/01", "ann/02", "bob/01"]
    assert cases["identity_id"]["ann/01"] == cases["identity_id"]["ann/02"] != cases["identity_id"]["bob/01"]
    assert [len(paths) for paths in cases["reference_paths"]] == [2, 3, 1]
    made = read_table(root, "restorations").set_index("case_id")
    assert made["status"].to_dict() == {"ann/01": "ok", "ann/02": "ok", "bob/01": "passthrough"}


def test_people_without_references_and_references_of_nobody_are_told(folders, capsys):
    base = folders("ann/01", "bob/01")
    for number, name in enumerate(("ann/r1", "cyd/r1", "r2")):
        image(base / "refs" / f"{name}.png", 7 + number)
    line = [f"outputs={base}/out", f"gt={base}/gt", f"lq={base}/lq", f"references={base}/refs", f"root={base}/w"]
    assert main(["evaluate", *line, *SMALL, "report.formats=[csv]"]) == 0
    told = capsys.readouterr().err
    assert "1 references of 1 images, 1 images have none" in told
    assert "2 of 3 reference images are of nobody here, first cyd/r1.png" in told


def test_folders_in_folders_are_not_guessed_to_be_people(folders, capsys):
    """All of test/ann and test/bob were one person 'test', and each other's references."""
    base = folders("test/ann/01", "test/bob/01")
    assert main(["evaluate", f"outputs={base}/out", f"gt={base}/gt", f"root={base}/w", *SMALL]) == 2
    assert f"lies two folders deep; expected PERSON/IMAGE: give the folder that holds the people's, such as {base}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((), "evaluate needs a folder of images: outputs=FOLDER name=NAME"),
        (("outputs=.",), "has no cases: name a workspace (root=FOLDER), make one (ffhqref run), or give your own"),
        (("outputs=.", "references=."), "references=…: of which images? Give gt=FOLDER or lq=FOLDER"),
        (("outputs=.", "gt=nowhere"), "no such folder"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, keys, words):
    assert main(["evaluate", f"root={tmp_path}/w", *SMALL, *keys]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_method_does_not_read_what_it_writes(folders, capsys):
    base = folders("a")
    line = ["evaluate", f"gt={base}/gt", f"root={base}/w", *SMALL, "report.formats=[csv]"]
    assert main([*line, f"outputs={base}/out"]) == 0
    assert main([*line, f"outputs={base}/w/outputs/mine", "name=again"]) == 0
    assert psnr_of(base / "w", "again") == psnr_of(base / "w")
    assert main([*line, f"outputs={base}/w/outputs/mine"]) == 2
    assert "which this run writes" in capsys.readouterr().err


def test_an_image_that_occurs_twice_is_told(folders, capsys):
    base = folders("a", "b", "c")
    shutil.copy(base / "gt" / "a.png", base / "gt" / "c.png")
    assert (
        main(["evaluate", f"outputs={base}/out", f"gt={base}/gt", f"root={base}/w", *SMALL, "report.formats=[]"]) == 0
    )
    assert "1 of 3 ground truths are another one again, first c (as a)" in capsys.readouterr().err
