"""Filter and retries: every attempt a row, every bucket a row, and nothing done twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_bytes, sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.store import tables
from ffhqref.synthesis import stage as stage_module
from ffhqref.synthesis.base import Renderer, RendererInfo, as_renderer
from ffhqref.synthesis.layout import read_layout, reference_path, remove_rejected
from ffhqref.synthesis.plan import make_plan
from ffhqref.synthesis.stage import COPY, RenderRow, RenderStage, synthesize

CLUSTERS = (2, 2)


class StubRenderer:
    """Grey images whose level says how similar they are: 200 is the same person, 0 is nobody like it."""

    info = RendererInfo("stub", "grey images")
    signature = "stub:1"
    batch_size = 3

    def __init__(self, levels=None):
        self.levels = dict(levels or {})
        self.calls = []

    def render(self, requests):
        self.calls.append([request.seed for request in requests])
        found = [self.levels.get(request.seed, 200) for request in requests]
        if "raise" in found:
            raise RuntimeError("out of luck\nsecond line")
        return [self.picture(level, request) for level, request in zip(found, requests, strict=True)]

    def picture(self, level, request):
        if level == "copy":
            return request.identity.copy()
        if level == "small":
            return np.zeros((64, 64, 3), np.uint8)
        return np.full((512, 512, 3), level, np.uint8)


class StubEmbedder:
    dim, signature, face_size, template, threaded = 2, "stub", 112, "arcface", True

    def __call__(self, faces):
        level = faces[:, 56, 56, 0].astype(np.float64)
        angle = (200 - level) / 200 * np.pi / 2
        vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        vectors[level == 13] = np.nan
        return vectors


class Room:
    """A folder of images, a plan over them, and a stage with stubs."""

    def __init__(self, folder, monkeypatch, tries=3):
        self.folder, self.pictures = folder, folder / "pictures"
        names = [f"{n:05d}" for n in range(20)]
        for k, name in enumerate(names):
            save_png(self.pictures / f"{name}.png", np.full((512, 512, 3), 40 + k, np.uint8))
        buckets = pd.DataFrame(
            {"image_id": names, "pose_bucket": np.arange(20) % 2, "expression_bucket": np.arange(20) // 2 % 2}
        )
        self.targets = names[:3]
        self.plan = make_plan(self.targets, buckets, {}, CLUSTERS, tries=tries, seed=5)
        self.renderer = StubRenderer()
        monkeypatch.setattr(stage_module, "make_renderer", lambda name, **options: self.renderer)
        monkeypatch.setattr(stage_module, "make_embedder", lambda name, **options: StubEmbedder())
        self.rounds = []

    def seeds(self, target, pose, expression):
        part = self.plan[
            (self.plan["target_id"] == target)
            & (self.plan["pose_bucket"] == pose)
            & (self.plan["expression_bucket"] == expression)
        ]
        return part.sort_values("attempt")["seed"].tolist()

    def set(self, target, pose, expression, *levels):
        self.renderer.levels |= dict(zip(self.seeds(target, pose, expression), levels, strict=False))

    def stage(self, min_similarity=0.5, **options):
        return RenderStage(
            self.pictures, self.folder / "out", ("stub", {}), ("stub", {}), "ffhq_template",
            min_similarity=min_similarity, **options,
        )  # fmt: skip

    def row(self, target_id, pose_id, seed, out_path):
        target, pose = (self.pictures / f"{name}.png" for name in (target_id, pose_id))
        return RenderRow(
            path=target.name, of_faces=False, sha256=sha256_file(target),
            vector=np.array([1.0, 0.0], np.float32),
            pose_path=pose.name, pose_of_faces=False, pose_sha256=sha256_file(pose),
            wanted_normals=f"{target_id}/{pose_id}.png", normals_path=None, normals_sha256=None,
            seed=seed, out_path=out_path,
        )  # fmt: skip

    def go(self, plan=None, **options):
        stage, self.rounds, self.renderer.calls = self.stage(**options), [], []

        def run(number, rows):
            self.rounds.append(len(rows))
            return run_stage(stage, rows, engine=LocalEngine(1), journal_dir=self.folder / "journal")

        attempts, references = synthesize(self.plan if plan is None else plan, stage, self.row, run, "out")
        for name, frame in (("synthesis_attempts", attempts), ("synthetic_references", references)):
            tables.to_arrow(name, frame)
        return attempts, references

    @property
    def rendered(self):
        return sum(len(call) for call in self.renderer.calls)


@pytest.fixture
def room(tmp_path, monkeypatch):
    return Room(tmp_path, monkeypatch)


def of(frame, *bucket):
    target, pose, expression = bucket
    return frame[
        (frame["target_id"] == target) & (frame["pose_bucket"] == pose) & (frame["expression_bucket"] == expression)
    ]


def test_a_rejected_picture_is_tried_again_with_another_seed_and_pose_and_every_attempt_is_a_row(room):
    room.set("00000", 0, 0, 10, 20, 200)
    room.set("00001", 1, 1, 10, 20, 30)
    attempts, references = room.go()
    assert room.rounds == [12, 2, 2]
    part = of(attempts, "00000", 0, 0)
    assert part["status"].tolist() == ["rejected", "rejected", "accepted"]
    assert part["pose_id"].is_unique
    assert part["seed"].is_unique
    expected = [np.cos((200 - level) / 200 * np.pi / 2) for level in (10, 20, 200)]
    assert part["similarity"].tolist() == pytest.approx(expected, abs=1e-6)
    lost = of(references, "00001", 1, 1).iloc[0]
    assert lost["status"] == "missing"
    assert lost["attempts"] == 3
    assert pd.isna(lost["path"])
    assert "best similarity 0.233 of 3" in lost["error"]
    assert not (room.folder / "out" / reference_path("00001", 1, 1)).exists()
    assert len(references) == 3 * 4, "missing buckets are rows, not holes"
    assert (references["status"] == "accepted").sum() == 11
    assert set(references["source"]) == set(attempts["source"]) == {"synthetic:stub"}
    for row in references[references["status"] == "accepted"].itertuples():
        assert sha256_file(room.folder / row.path) == row.sha256
    level = read_rgb(room.folder / "out" / reference_path("00000", 0, 0))[0, 0, 0]
    assert level == 200, "the accepted attempt's image lies there"


def test_a_failure_takes_no_neighbour_along_and_tells_why(room):
    room.set("00000", 0, 0, "raise", 200)
    room.set("00000", 0, 1, "copy", "small", 13)
    attempts, references = room.go()
    first = of(attempts, "00000", 0, 0)
    assert first["status"].tolist() == ["failed", "accepted"]
    assert first["error"].iloc[0] == "RuntimeError: out of luck"
    second = of(attempts, "00000", 0, 1)
    assert second["status"].tolist() == ["failed"] * 3
    assert second["error"].tolist() == [
        COPY, "the renderer returned uint8 (64, 64, 3), expected uint8 (512, 512, 3)",
        "the embedder gave no finite vector",
    ]  # fmt: skip
    assert of(references, "00000", 0, 1).iloc[0]["error"] == COPY
    assert (references["status"] == "accepted").sum() == 11


def test_a_bucket_without_another_person_is_a_row_of_both_tables(room):
    names = ["00000", "00001", "00002", "00003"]
    buckets = pd.DataFrame({"image_id": names, "pose_bucket": [0, 1, 1, 1], "expression_bucket": 0})
    plan = make_plan(["00000"], buckets, {}, (2, 1), tries=2, seed=1)
    attempts, references = room.go(plan)
    assert of(attempts, "00000", 0, 0)["status"].tolist() == ["failed"]
    lost = of(references, "00000", 0, 0).iloc[0]
    assert lost["status"] == "missing"
    assert lost["error"] == "no image of another person in this bucket"
    assert of(references, "00000", 1, 0).iloc[0]["status"] == "accepted"


def test_nothing_is_rendered_twice_and_a_lost_or_changed_picture_again(room):
    room.set("00000", 0, 0, 10, 200)
    first = room.go()
    assert room.rendered == 13
    second = room.go()
    assert room.rendered == 0
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one, other)
    path = room.folder / "out" / reference_path("00000", 0, 0)
    before = path.read_bytes()
    path.unlink()
    room.go()
    assert room.rendered == 1
    assert path.read_bytes() == before
    path.write_bytes(before[:-1])
    room.go()
    assert room.rendered == 1
    assert path.read_bytes() == before
    save_png(room.pictures / "00000.png", np.full((512, 512, 3), 99, np.uint8))
    room.go()
    assert room.rendered >= 5, "the target's own references; and those that took it as a pose"


def test_another_threshold_renders_only_what_it_accepts_anew(room):
    room.set("00000", 0, 0, 120, 150, 200)  # similarities .81, .92, 1
    room.set("00001", 1, 1, 60, 70, 80)  # .45, .52, .59
    _, references = room.go(min_similarity=0.95)
    assert (references["status"] == "accepted").sum() == 11
    attempts, references = room.go(min_similarity=0.8)
    assert room.rendered == 1, "the first try of one bucket is good enough now"
    assert of(attempts, "00000", 0, 0)["status"].tolist() == ["accepted"]
    assert read_rgb(room.folder / "out" / reference_path("00000", 0, 0))[0, 0, 0] == 120
    strict, references = room.go(min_similarity=0.95)
    assert room.rendered == 1
    assert read_rgb(room.folder / "out" / reference_path("00000", 0, 0))[0, 0, 0] == 200
    fresh = strict[strict["status"] == "accepted"].set_index(["target_id", "pose_bucket", "expression_bucket"])
    assert fresh["sha256"].to_dict() == {
        (row.target_id, row.pose_bucket, row.expression_bucket): row.sha256
        for row in references[references["status"] == "accepted"].itertuples()
    }


def test_fewer_and_more_tries_keep_what_is_there(room, tmp_path, monkeypatch):
    room.set("00000", 0, 0, 10, 20, 200)
    fewer = room.plan[room.plan["attempt"] == 0]
    _, references = room.go(fewer)
    assert (references["status"] == "accepted").sum() == 11
    _, references = room.go()
    assert room.rendered == 2
    assert (references["status"] == "accepted").sum() == 12


def test_failures_are_tried_again_on_request_only(room):
    room.set("00000", 0, 0, "raise", "raise", "raise")
    room.go()
    room.renderer.levels.clear()
    _, references = room.go()
    assert room.rendered == 0
    _, references = room.go(retry_failed=True)
    assert room.rendered == 1
    assert (references["status"] == "accepted").all()


def test_normal_maps_are_asked_for_by_name_and_awaited(room):
    room.renderer.info = RendererInfo("stub", "grey images", needs_normals=True)
    attempts, _ = room.go()
    row = attempts.iloc[0]
    assert row["error"] == f"no normal map {row['target_id']}/{row['pose_id']}.png: renderer 'stub' needs one"
    normals, plain_row = room.folder / "normals", room.row
    room.go()
    assert room.rendered == 0

    width = 640

    def with_map(*attempt):
        row = plain_row(*attempt)
        data = save_png(normals / row.wanted_normals, np.full((512, width, 3), 128, np.uint8))
        return replace(row, normals_path=row.wanted_normals, normals_sha256=sha256_bytes(data))

    room.row = with_map
    attempts, _ = room.go(normals=normals)
    assert attempts.iloc[0]["error"].startswith("640x512 pixels"), "not squashed"
    assert room.rendered == 0
    width = 512
    _, references = room.go(normals=normals)
    assert room.rendered == 12
    assert (references["status"] == "accepted").all()


def test_a_threshold_that_is_no_cosine_is_refused(room):
    for wrong in (1.5, -2, "high", None):
        with pytest.raises(ConfigError, match=r"synthesis.min_similarity=.*-1 to 1"):
            room.stage(min_similarity=wrong)


def test_the_layout_on_disk_is_the_table(room):
    _, references = room.go()
    found = set(read_layout(room.folder / "out"))
    accepted = references[references["status"] == "accepted"]
    assert found == {
        (row.target_id, row.pose_bucket, row.expression_bucket, row.path.removeprefix("out/"))
        for row in accepted.itertuples()
    }
    kept = set(accepted["path"].str.removeprefix("out/")) - {reference_path("00000", 1, 0)}
    assert remove_rejected(room.folder / "out", {"00000"}, kept) == [reference_path("00000", 1, 0)]
    assert len(set(read_layout(room.folder / "out"))) == len(found) - 1
    assert remove_rejected(room.folder / "out", set(), set()) == [], "other targets' images stay"


def test_a_renderer_of_another_class_is_taken_and_what_it_lacks_is_named():
    made = as_renderer(StubRenderer(), "stub")
    assert isinstance(made, Renderer)
    assert (made.signature, made.batch_size, made.info.name) == ("stub:1", 3, "stub")
    with pytest.raises(ConfigError, match="renderer 'mine': object has no 'info'; derive it from Renderer"):
        as_renderer(object(), "mine")
