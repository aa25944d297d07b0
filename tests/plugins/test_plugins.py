"""Every door is open: parts of other packages, one file and one entry point each, are chosen like built-in ones."""

from __future__ import annotations

import pytest

from ffhqref.store import tables

from ..pipelines.test_cli import one_line
from .conftest import TOYS, install


@pytest.fixture(scope="module")
def done(toys, few_faces):
    """A run in which everything that can be a toy is one."""
    finished = toys(
        "run", "root=w", "dataset=toy_dataset", f"dataset.path={few_faces}", "dataset.test=3", "dataset.val=1",
        "embedder=toy_embedder", "embedder.crop=toy_crop", "embedder.channel=0", "benchmark=[toy_benchmark]",
        "+benchmark.blurred={degradation:toy_degradation,split:test}", "restorer=[lq,toy_restorer]",
        "restorer.toy_restorer.amount=0.75", "metric=[toy_metric]", "limit=2",
        "engine=toy_engine", "engine.file=counted",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr + finished.stdout
    return toys.folder / "w", finished.stderr


def test_the_tables_say_that_the_toys_did_it(done):
    root, said = done
    assert tables.read_metadata(root, "images")["dataset"] == {"name": "toy", "licence": "CC0", "attribution": ""}
    assert "toy: these faces are toys" in said
    (signature,) = set(tables.read_table(root, "embeddings")["embedder"])
    assert signature.startswith("toy-grey0:dlib")
    assert signature.endswith("|toy_crop")
    config = tables.read_metadata(root, "references")["config"]
    assert (config["max_distance"], config["min_distance"]) == (0.05, 0.004)
    made = tables.read_table(root, "degradations")
    assert set(made["level"]) == {"toy_benchmark", "toy_degradation"}
    assert set(made.loc[made["level"] == "toy_degradation", "sigma_x"]) == {6.0}
    assert set(made.loc[made["level"] == "toy_benchmark", "scale"]) == {8.0}
    cases = tables.read_table(root, "cases").set_index("benchmark")["reference_paths"].map(len)
    assert cases["toy_benchmark"].max() <= 2
    assert set(tables.read_table(root, "restorations")["method"]) == {"lq", "toy_restorer"}
    stages = (root.parent / "counted").read_text().split()
    assert {"restore-lq", "restore-toy_restorer", "score"} <= set(stages)
    board = tables.read_table(root, "leaderboard")
    assert not board["higher_is_better"].any()
    assert set(board.loc[board["rank"] == 1, "method"]) == {"toy_restorer"}  # lq is a baseline
    means = board.dropna(subset=["mean"]).groupby("method")["mean"].mean()
    assert means["lq"] < means["toy_restorer"]  # darker is farther off


def test_a_second_run_has_nothing_to_do(done, toys, few_faces):
    again = toys(
        "degrade", "root=w", "dataset=toy_dataset", f"dataset.path={few_faces}", "benchmark=[toy_benchmark]",
        "+benchmark.blurred={degradation:toy_degradation,split:test}", "limit=2",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "cases: toy_benchmark 2, blurred 2" in again.stderr


def test_list_shows_them(toys):
    lines = toys("list").stdout.splitlines()
    assert all(any(f" {name}" in line for line in lines) for name in TOYS)


def test_options_are_shown_and_mistakes_are_one_line(toys):
    shown = toys("build", "--cfg", "job", "dataset=toy_dataset", "embedder=toy_embedder", "dataset.path=x").stdout
    assert "  first: null\n" in shown
    assert "  channel: 1\n" in shown
    assert "max_distance: 0.05" in shown
    assert "toy_embedder" in one_line(toys("build", "embedder=toy_embeder"))
    assert "chanel" in one_line(toys("build", "embedder=toy_embedder", "embedder.chanel=2"))
    assert "engine.fiel" in one_line(toys("build", "engine=toy_engine", "engine.fiel=x"))
    assert "toy_crop" in one_line(toys("build", "embedder.crop=toy_crob"))
    assert "toy_degradation" in one_line(
        toys("run", "+benchmark.x={degradation:toy_degradatoin,split:test}", "benchmark=[moderate]")
    )


def test_a_plug_in_that_does_not_import_is_one_line_when_it_is_chosen(toys):
    install(toys.site, "toy_broken", "datasets", "nothing")
    assert "toy_broken" in one_line(toys("build", "dataset=toy_broken"))
    assert toys("run", "--cfg", "job").returncode == 0


OWN = "{degradation:{sigma:[4,4],scale:[8,8],noise:[0,0],jpeg:[90,90]},split:test}"


def test_a_benchmark_of_the_command_line_and_of_a_file(toys, done, few_faces):
    folder = toys.folder / "mine" / "benchmark"
    folder.mkdir(parents=True)
    (toys.folder / "mild.yaml").write_text("sigma: [4, 4]\nscale: [8, 8]\nnoise: [0, 0]\njpeg: [90, 90]\n")
    (folder / "from_file.yaml").write_text("from_file:\n  degradation: mild.yaml\n  split: test\n")
    finished = toys(
        "degrade", "--config-dir", "mine", "root=w", "benchmark=[from_file]", f"benchmark.mine={OWN}", "limit=2"
    )
    assert finished.returncode == 0, finished.stderr
    made = tables.read_table(done[0], "degradations")
    assert set(made["level"]) == {"mild", "mine"}
    assert {(row.sigma_x, row.scale, row.jpeg_quality) for row in made.itertuples()} == {(4.0, 8.0, 90.0)}


def test_a_mistake_in_an_own_benchmark_is_one_line(toys):
    wrong = OWN.replace("sigma:[4,4]", "sigma:[4,2]")
    assert "benchmark.mine.degradation.sigma=[4, 2]: expected the lower end first" in one_line(
        toys("degrade", "root=w", f"benchmark.mine={wrong}")
    )
    assert "benchmark.mine.split" in one_line(toys("degrade", "root=w", "+benchmark.mine={degradation:severe}"))
    assert "different degradations of the name 'severe'" in one_line(
        toys(
            "degrade", "root=w", "benchmark=[severe]", "+benchmark.mine=" + OWN.replace("sigma", "name:severe,sigma", 1)
        )
    )
