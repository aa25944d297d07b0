"""The main job: complete, resumable, the same whatever happens on the way."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ffhqref.store import schemas, tables

from .conftest import FEW


def table_names(root: Path) -> list[str]:
    """Return the tables of a workspace: a run does not make those of `synthesize` and `faceme`."""
    return sorted(path.stem for path in (root / "tables").glob("*.parquet"))


def stable_tables(root: Path) -> dict[str, pd.DataFrame]:
    """Return every table without what may differ: times, memory, device."""
    found = {}
    for name in table_names(root):
        frame = tables.read_table(root, name)
        found[name] = frame.drop(columns=[column for column in schemas.VOLATILE if column in frame.columns])
    return found


def stable_metadata(root: Path) -> dict[str, str]:
    """Return what the tables say they were made of, without times and without the name of the workspace."""
    found = {}
    for name in table_names(root):
        facts = json.loads(pq.read_schema(tables.table_path(root, name)).metadata[b"ffhqref"])
        text = json.dumps({key: value for key, value in facts.items() if key not in schemas.VOLATILE}, sort_keys=True)
        found[name] = text.replace(str(root), "ROOT")
    return found


def assert_same(first: Path, second: Path) -> None:
    """Compare two workspaces, tables and images."""
    ours, theirs = stable_tables(first), stable_tables(second)
    assert set(ours) == set(theirs)
    for name in ours:
        if name == "embeddings":
            assert np.array_equal(ours[name].pop("vector").to_list(), theirs[name].pop("vector").to_list())
        pd.testing.assert_frame_equal(ours[name], theirs[name], check_exact=True)
    assert stable_metadata(first) == stable_metadata(second)
    for folder in ("lq", "outputs", "FFHQ-Ref"):
        files = sorted(path.relative_to(first) for path in (first / folder).rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(second) for path in (second / folder).rglob("*") if path.is_file())
        assert files
        assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, few_faces):
    """A workspace that one run made without any trouble."""
    from ..command import Command

    folder = tmp_path_factory.mktemp("undisturbed")
    done = Command(folder)("run", "root=w", f"dataset.path={few_faces}", *FEW)
    assert done.returncode == 0, done.stderr
    return folder / "w", done


def test_a_run_makes_everything_it_promises(undisturbed):
    root, done = undisturbed
    found = stable_tables(root)
    assert set(found["cases"]["benchmark"]) == {"moderate", "severe"}
    board = found["leaderboard"]
    assert {"lq", "bicubic", "reference"} <= set(board["method"])
    assert board.loc[board["method"] != "ground-truth", "mean"].notna().all()
    assert "leaderboard" in done.stdout.lower() or "moderate" in done.stdout
    page = next(line for line in done.stdout.splitlines() if line.strip().endswith(".html"))
    assert Path(page.split()[-1]).is_file()
    for name in ("leaderboard.md", "leaderboard.tex", "leaderboard.csv"):
        assert (root / "report" / name).stat().st_size > 100


def test_cases_pair_by_key(undisturbed):
    root, _ = undisturbed
    cases = tables.read_table(root, "cases")
    references = tables.read_table(root, "references").set_index(["target_id", "rank"])
    for case in cases.itertuples():
        assert Path(case.gt_path).stem == Path(case.lq_path).stem == case.target_id
        wanted = [references.loc[(case.target_id, rank), "reference_id"] for rank in range(len(case.reference_paths))]
        assert [Path(path).stem for path in case.reference_paths] == wanted


def test_a_second_run_does_nothing_and_says_so(undisturbed, few_faces, ffhqref, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    kept = [path for path in root.rglob("*") if path.suffix in (".parquet", ".png")]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}
    done = ffhqref("run", f"root={root}", f"dataset.path={few_faces}", *FEW)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stderr
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(undisturbed, few_faces, ffhqref, tmp_path):
    """Three here, none in the undisturbed run."""
    done = ffhqref("run", f"root={tmp_path}/w", f"dataset.path={few_faces}", "engine.workers=3", *FEW)
    assert done.returncode == 0, done.stderr
    assert_same(undisturbed[0], tmp_path / "w")


def test_kill_at_ten_random_moments(undisturbed, few_faces, ffhqref, tmp_path):
    """Each kill is followed by a run; the last run ends with the tables of an undisturbed one."""
    root = tmp_path / "w"
    command = ("run", f"root={root}", f"dataset.path={few_faces}", *FEW)
    moments = random.Random(7)
    killed = 0
    for attempt in range(10):
        if attempt in (4, 8):
            shutil.rmtree(root)  # so that early stages are hit again
        process = ffhqref.start(*command, f"engine.workers={attempt % 3}")
        try:
            process.wait(timeout=moments.uniform(0.5, 9.0))
        except Exception:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        time.sleep(0.1)
    assert killed >= 5
    done = ffhqref(*command)
    assert done.returncode == 0, done.stderr
    assert_same(undisturbed[0], root)
    assert not list(root.rglob("*.tmp"))


def test_a_lost_or_changed_file_is_made_again(undisturbed, few_faces, ffhqref, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    outputs = sorted((root / "outputs").rglob("*.png"))
    outputs[0].unlink()
    outputs[1].write_bytes(outputs[2].read_bytes())
    lq = sorted((root / "lq").rglob("*.png"))
    lq[0].write_bytes(b"")
    (root / "tables" / "scores.parquet").unlink()
    done = ffhqref("run", f"root={root}", f"dataset.path={few_faces}", *FEW)
    assert done.returncode == 0, done.stderr
    assert_same(undisturbed[0], root)


def test_bad_pictures_are_recorded_skipped_and_counted(few_faces, ffhqref, tmp_path):
    folder = tmp_path / "faces"
    shutil.copytree(few_faces, folder)
    good = sorted(folder.glob("*.jpg"))
    (folder / "cut.png").write_bytes(good[0].read_bytes()[:5000])
    (folder / "text.png").write_text("no image")
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(folder / "small.png")
    Image.open(good[1]).convert("L").save(folder / "grey.png")
    done = ffhqref("run", "root=w", f"dataset.path={folder}", *FEW, "restorer=[lq]")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    images = tables.read_table(ffhqref.folder / "w", "images").set_index("image_id")
    assert images["error"].notna().sum() == 3
    assert {"cut", "text", "small"} == set(images.index[images["error"].notna()])
    assert "left out: text.png: not an image" in done.stderr
    assert not tables.read_table(ffhqref.folder / "w", "leaderboard").empty


PLUGIN = """
import torch
from ffhqref.restorers.base import RestorerInfo

class Base:
    info = RestorerInfo(name="x")
    def restore(self, batch):
        return self.one(batch.lq)

class Good(Base):
    def __init__(self, amount=0.1): self.amount = amount
    def one(self, lq): return (lq * (1 - self.amount)).clamp(0, 1)
class Raises(Base):
    def one(self, lq): raise RuntimeError("no <b>luck</b> today")
class GivesNaN(Base):
    def one(self, lq): return lq * float("nan")
class WrongShape(Base):
    def one(self, lq): return lq[..., ::2, ::2]
class OwnInput(Base):
    def one(self, lq): return lq
"""


@pytest.fixture
def plugin_package(tmp_path):
    """A package that adds restorers by entry points, installed as pip would lay it out."""
    folder = tmp_path / "site"
    info = folder / "their_restorers-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "their_restorers.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-restorers\nVersion: 1.0\n")
    points = {"good": "Good", "raises": "Raises", "nan": "GivesNaN", "shape": "WrongShape", "own": "OwnInput"}
    lines = [f"their_{name} = their_restorers:{target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("[ffhqref.restorers]\n" + "\n".join(lines) + "\n")
    return folder


def test_restorers_of_another_package(undisturbed, few_faces, plugin_package, ffhqref, tmp_path):
    from ..command import REPOSITORY

    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    environment = {"PYTHONPATH": f"{REPOSITORY}:{plugin_package}"}
    assert "their_good" in ffhqref("list", env=environment).stdout
    names = "their_good,their_raises,their_nan,their_shape,their_own"
    done = ffhqref(
        "run", f"root={root}", f"dataset.path={few_faces}", *FEW,
        f"restorer=[lq,{names}]", "restorer.their_good.amount=0.2", env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    rows = tables.read_table(root, "restorations").groupby("method")
    status = {method: set(group["status"]) for method, group in rows}
    assert status["their_good"] == {"ok"}
    assert status["their_own"] == {"passthrough"}
    assert all(status[f"their_{name}"] == {"failed"} for name in ("raises", "nan", "shape"))
    reason = {method: group["error"].iloc[0] for method, group in rows}
    assert "luck" in reason["their_raises"]
    assert "NaN" in reason["their_nan"]
    assert "256" in reason["their_shape"]
    board = tables.read_table(root, "leaderboard").set_index(["benchmark", "method", "metric"])
    assert board.loc[("moderate", "their_raises", "psnr"), "n_failed"] == 4
    page = (root / "report" / "report.html").read_text()
    assert "<b>luck</b>" not in page


def test_a_restorer_by_target(undisturbed, few_faces, plugin_package, ffhqref, tmp_path):
    from ..command import REPOSITORY

    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    done = ffhqref(
        "restore", f"root={root}", "restorer=[lq]", "+restorer.mine={_target_: their_restorers.Good, amount: 0.3}",
        env={"PYTHONPATH": f"{REPOSITORY}:{plugin_package}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(tables.read_table(root, "restorations")["method"]) == {"lq", "mine"}


def test_a_table_of_another_version_is_kept_and_refused(undisturbed, ffhqref, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    path = tables.table_path(root, "cases")
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"ffhqref"])
    facts["version"] = 99
    pq.write_table(table.replace_schema_metadata({b"ffhqref": json.dumps(facts).encode()}), path)
    before = path.read_bytes()
    done = ffhqref("restore", f"root={root}")
    assert done.returncode == 2
    assert "version 99" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before


def test_ctrl_c_ends_in_a_line_and_goes_on_later(undisturbed, few_faces, ffhqref, tmp_path):
    root = tmp_path / "w"
    command = ("run", f"root={root}", f"dataset.path={few_faces}", *FEW)
    process = ffhqref.start(*command)
    journal = root / "journal" / "images.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert ffhqref(*command).returncode == 0
    assert_same(undisturbed[0], root)
