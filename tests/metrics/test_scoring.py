"""Scoring: statuses, resume, work shared between methods, any engine gives the same table."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.engine import LocalEngine
from ffhqref.metrics import Metric, MetricBatch, stage
from ffhqref.metrics.base import GROUND_TRUTH
from ffhqref.metrics.identity import IDS, EmbeddingCache, FaceEmbedder
from ffhqref.metrics.scoring import MetricSet, ScoreRow, resolve_metrics, score
from ffhqref.store.tables import to_arrow


class Mean(Metric):
    """A metric that counts its calls and needs only what it is told."""

    higher_is_better = True

    def __init__(self, needs=(), signature="mean|v1", error=None):
        self.needs, self.signature, self.error = frozenset(needs), signature, error
        self.calls = 0

    def __call__(self, batch: MetricBatch):
        self.calls += 1
        if self.error is not None:
            raise self.error
        values = batch.output.mean(dim=(1, 2, 3)).double().numpy()
        if "references" in self.needs:
            values = values + sum(float(picture.mean()) for picture in batch.references[0])
        return values


@pytest.fixture
def world(tmp_path):
    """Two methods, two benchmarks, three cases, each with a ground truth and two references; 64 px images."""
    generator = np.random.default_rng(0)

    def picture(name):
        path = tmp_path / f"{name}.png"
        if not path.exists():
            save_png(path, generator.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        return str(path), sha256_file(path)

    rows = []
    for method, benchmark, case in itertools.product("ab", ("moderate", "severe"), ("0", "1", "2")):
        output, gt = picture(f"{method}-{benchmark}-{case}"), picture(f"gt-{case}")
        references = [picture(f"ref-{case}-{rank}") for rank in range(2)]
        paths, hashes = zip(*references, strict=True)
        rows.append(ScoreRow(method, benchmark, case, *output, *gt, paths, hashes))
    return rows


def run(rows, metrics, journal, workers=1, **options):
    return score(rows, metrics, engine=LocalEngine(workers), journal_dir=journal, size=None, **options)


def values(scores, metric):
    frame = scores.frame[scores.frame["metric"] == metric]
    return dict(
        zip(zip(frame["method"], frame["benchmark"], frame["case_id"], strict=True), frame["value"], strict=True)
    )


def test_every_row_and_metric_has_its_value(world, tmp_path):
    metrics = resolve_metrics(["psnr", "ssim"])
    scores = run(world, metrics, tmp_path / "journal")
    assert len(scores.frame) == 12 * 2
    assert set(scores.frame["status"]) == {"ok"}
    for row in world:
        output, gt = (read_rgb(path) / 255.0 for path in (row.output_path, row.gt_path))
        expected = 10 * np.log10(1 / (((output - gt) ** 2).mean() + 1e-8))
        assert values(scores, "psnr")[row.method, row.benchmark, row.case_id] == pytest.approx(expected, abs=1e-5)
    to_arrow("scores", scores.frame)  # fits the table


def test_pictures_of_another_size_are_brought_to_512(world, tmp_path):
    scores = score(world[:1], resolve_metrics(["ms_ssim"]), engine=LocalEngine(1), journal_dir=tmp_path / "journal")
    assert np.isfinite(scores.frame["value"]).all()  # at 64 px it has no value
    small = run(world[:1], resolve_metrics(["ms_ssim"]), tmp_path / "journal")
    assert list(small.frame["status"]) == ["left_out"], "nor has its ground truth"
    assert [name for name, _ in small.undefined] == ["ms_ssim"]


def test_failures_and_absences_are_rows(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    metrics = resolve_metrics(["psnr", "niqe", "lpips_vgg", {"name": "ids_ref", "label": "idr"}])
    assert set(metrics.available) == {"psnr", "niqe", "idr"}
    assert "vgg16-397923af.pth" in metrics.unavailable["lpips_vgg"]
    assert set(metrics.signatures) == {"psnr", "niqe", "idr"}
    failed = ScoreRow("a", "x", "failed", None, None, world[0].gt_path, world[0].gt_sha256)
    blind = ScoreRow("a", "x", "blind", world[0].output_path, world[0].output_sha256)
    truth = ScoreRow(GROUND_TRUTH, "x", "0", world[0].gt_path, world[0].gt_sha256, world[0].gt_path, world[0].gt_sha256)
    scores = run([failed, blind, truth], metrics, tmp_path / "journal")
    status = {(row.method, row.case_id, row.metric): row.status for row in scores.frame.itertuples()}
    assert status == {
        ("a", "failed", "psnr"): "failed",
        ("a", "failed", "niqe"): "failed",
        ("a", "failed", "idr"): "unavailable",
        ("a", "failed", "lpips_vgg"): "unavailable",
        ("a", "blind", "psnr"): "unavailable",
        ("a", "blind", "niqe"): "failed",  # 64 px: too small for two blocks
        ("a", "blind", "idr"): "unavailable",
        ("a", "blind", "lpips_vgg"): "unavailable",
        (GROUND_TRUTH, "0", "niqe"): "failed",
        (GROUND_TRUTH, "0", "idr"): "unavailable",
        (GROUND_TRUTH, "0", "lpips_vgg"): "unavailable",
    }
    assert scores.frame["value"].isna().all()
    to_arrow("scores", scores.frame)


def test_a_second_run_computes_nothing_and_a_new_metric_only_itself(world, tmp_path):
    one, two = Mean(signature="one"), Mean(signature="two")
    first = run(world, MetricSet({"one": one}), tmp_path / "journal")
    assert one.calls == 12
    told = []
    again = run(world, MetricSet({"one": one}), tmp_path / "journal", progress=lambda *state: told.append(state))
    assert one.calls == 12
    assert told == [("score", 12, 12)]
    assert again.frame.equals(first.frame)
    both = run(world, MetricSet({"one": one, "two": two}), tmp_path / "journal")
    assert (one.calls, two.calls) == (12, 12)
    assert values(both, "one") == values(first, "one")


def test_another_signature_or_picture_is_computed_again(world, tmp_path):
    metric = Mean(signature="v1")
    run(world, MetricSet({"mean": metric}), tmp_path / "journal")
    metric.signature = "v2"
    run(world, MetricSet({"mean": metric}), tmp_path / "journal")
    assert metric.calls == 24
    other = {"output_path": world[1].gt_path, "output_sha256": world[1].gt_sha256}
    changed = [ScoreRow(**{**world[0].__dict__, **other})]
    run(changed, MetricSet({"mean": metric}), tmp_path / "journal")
    assert metric.calls == 25


def test_what_a_metric_does_not_look_at_does_not_count(world, tmp_path):
    """A metric of the output alone is computed once for equal outputs, whatever method, benchmark or ground truth."""
    blind, seeing = Mean(signature="blind"), Mean({"gt", "references"}, signature="seeing")
    rows = [ScoreRow(**{**row.__dict__, "output_path": world[0].output_path, "output_sha256": world[0].output_sha256})
            for row in world]  # fmt: skip
    scores = run(rows, MetricSet({"blind": blind, "seeing": seeing}), tmp_path / "journal")
    assert blind.calls == 1
    assert seeing.calls == 3  # one a ground truth
    assert len(set(values(scores, "blind").values())) == 1
    assert len(values(scores, "blind")) == 12


def test_the_order_of_the_rows_and_the_workers_change_nothing(world, tmp_path):
    metrics = resolve_metrics(["psnr", "ssim_rgb", "niqe"])
    plain = run(world, metrics, tmp_path / "one").frame
    assert run(world[::-1], metrics, tmp_path / "two").frame.equals(plain)
    assert run(world, metrics, tmp_path / "three", workers=2).frame.equals(plain)


class Says(Metric):
    """A metric whose values are given; below 1 they are left out."""

    higher_is_better = True
    needs = frozenset()

    def __init__(self, *values, signature="says|v1"):
        self.values, self.signature = iter(values), signature

    def __call__(self, batch: MetricBatch):
        return np.array([next(self.values)])

    def left_out(self, values):
        return values < 1.0


@pytest.mark.parametrize("journalled", [False, True])
def test_infinite_undefined_and_left_out_are_three_statuses(world, tmp_path, journalled):
    values = [np.inf, np.nan, 0.5, 7.0, -np.inf]
    rows = [replace(row, benchmark="x", case_id=str(case)) for case, row in enumerate(world[:5])]
    scores = run(rows, MetricSet({"says": Says(*values)}), tmp_path / "journal")
    if journalled:
        scores = run(rows, MetricSet({"says": Says()}), tmp_path / "journal")
    frame = scores.frame.sort_values("case_id")
    assert frame["status"].tolist() == ["ok", "failed", "left_out", "ok", "left_out"]
    assert frame["value"].tolist()[0] == np.inf
    assert frame["value"].tolist()[3] == 7.0
    assert frame["value"].isna().tolist() == [False, True, True, False, True]
    assert scores.reasons == {("says", "the metric is undefined for this image"): 1}
    to_arrow("scores", scores.frame)


def test_a_perfect_output_has_an_infinite_matched_psnr(world, tmp_path):
    row = world[0]
    perfect = replace(row, output_path=row.gt_path, output_sha256=row.gt_sha256)
    flat = tmp_path / "flat.png"
    save_png(flat, np.full((64, 64, 3), 9, np.uint8))
    constant = replace(row, case_id="flat", output_path=str(flat), output_sha256=sha256_file(flat))
    scores = run([perfect, constant], resolve_metrics(["psnr_matched", "ssim_matched"]), tmp_path / "journal")
    found = scores.frame.set_index(["case_id", "metric"])
    assert found.loc[(row.case_id, "psnr_matched"), ["value", "status"]].tolist() == [np.inf, "ok"]
    assert found.loc[(row.case_id, "ssim_matched"), "value"] == pytest.approx(1.0)
    assert found.loc[("flat", "psnr_matched"), "status"] == "failed"


class Colours(FaceEmbedder):
    """Mean of each channel in the place of an identity vector."""

    signature = "colours"

    def __call__(self, image):
        return image.mean(dim=(1, 2)).numpy()


@pytest.mark.parametrize("drop", [1.0, None])
def test_identical_pairs_are_left_out_where_the_published_mean_leaves_them_out(world, tmp_path, drop):
    """Equal and nearly equal outputs have a status of their own; a failed restoration keeps its own."""
    metric = IDS(EmbeddingCache(Colours()), "gt", "degrees", drop_below=drop)
    levels = {"equal": (100, 100, 100), "near": (100, 100, 101), "far": (100, 100, 200)}
    rows = []
    for name, level in levels.items():
        path = tmp_path / f"{name}.png"
        save_png(path, np.full((64, 64, 3), level, np.uint8))
        rows.append(ScoreRow("a", "x", name, str(path), sha256_file(path)))
    truth = {"gt_path": rows[0].output_path, "gt_sha256": rows[0].output_sha256}
    rows = [replace(row, **truth) for row in rows] + [ScoreRow("a", "x", "lost", None, None, **truth)]
    frame = run(rows, MetricSet({"deg": metric}), tmp_path / "journal").frame.set_index("case_id")
    left_out = "ok" if drop is None else "left_out"
    assert frame["status"].to_dict() == {"equal": left_out, "near": left_out, "far": "ok", "lost": "failed"}
    angle = np.degrees(np.arccos(4.0 / (np.sqrt(3.0) * np.sqrt(6.0))))
    assert frame.loc["far", "value"] == pytest.approx(angle, rel=1e-4)
    assert frame["value"].isna().sum() == (1 if drop is None else 3)


def test_the_size_of_the_images_is_in_the_signature(world, tmp_path):
    metrics, found = resolve_metrics(["psnr"]), []
    for size in (512, 64, 32, None):
        options = {"engine": LocalEngine(1), "journal_dir": tmp_path / "journal", "size": size}
        found.append(score(world[:1], metrics, **options).signatures["psnr"])
    assert len(set(found)) == 4
    assert found[0] == metrics.signatures["psnr"], "of the size that every run has"


def test_a_metric_that_raises_fails_alone_and_is_tried_again(world, tmp_path):
    broken, sound = Mean(signature="broken", error=RuntimeError("out of memory\ntrace")), Mean(signature="sound")
    scores = run(world, MetricSet({"broken": broken, "sound": sound}), tmp_path / "journal")
    status = scores.frame.groupby("metric")["status"].unique().map(list).to_dict()
    assert status == {"broken": ["failed"], "sound": ["ok"]}
    assert scores.reasons == {("broken", "RuntimeError: out of memory"): 12}
    broken.error = None
    mended = run(world, MetricSet({"broken": broken, "sound": sound}), tmp_path / "journal")
    assert set(mended.frame["status"]) == {"ok"}
    assert sound.calls == 12


def test_a_reason_that_lies_in_the_pictures_stands(world, tmp_path):
    unfit = Mean(error=ImageError("too odd"))
    for _ in range(2):
        scores = run(world, MetricSet({"unfit": unfit}), tmp_path / "journal")
        assert scores.reasons == {("unfit", "too odd"): 12}
    assert unfit.calls == 12


def test_an_output_that_cannot_be_read_takes_no_other_along(world, tmp_path):
    whole = Path(world[0].output_path).read_bytes()
    Path(world[0].output_path).write_bytes(whole[:100])
    scores = run(world, resolve_metrics(["psnr"]), tmp_path / "journal")
    failed = scores.frame[scores.frame["status"] == "failed"]
    assert failed[["method", "benchmark", "case_id"]].to_numpy().tolist() == [["a", "moderate", "0"]]
    Path(world[0].output_path).write_bytes(whole)
    assert set(run(world, resolve_metrics(["psnr"]), tmp_path / "journal").frame["status"]) == {"ok"}


@pytest.mark.parametrize("role", ["output", "ground truth", "reference"])
def test_a_changed_file_is_never_scored_under_its_old_hash(world, tmp_path, role):
    row = world[0]
    path = {"output": row.output_path, "ground truth": row.gt_path, "reference": row.reference_paths[0]}[role]
    whole = Path(path).read_bytes()
    save_png(path, np.zeros((64, 64, 3), np.uint8))
    metric = Mean({"gt", "references"})
    scores = run([row], MetricSet({"mean": metric}), tmp_path / "journal")
    assert scores.frame["status"].tolist() == ["failed"]
    assert scores.reasons == {
        ("mean", f"changed since its hash was recorded, run the pipeline that recorded it again: {path}"): 1
    }
    Path(path).write_bytes(whole)
    mended = run([row], MetricSet({"mean": metric}), tmp_path / "journal")
    expected = sum((read_rgb(picture) / 255).mean() for picture in (row.output_path, *row.reference_paths))
    assert mended.frame["value"].tolist() == pytest.approx([expected], abs=1e-5)


def test_each_picture_is_read_once_for_all_metrics_and_methods(world, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(stage, "read_rgb", lambda path, *a, **k: read.append(str(path)) or read_rgb(path, *a, **k))
    metrics = MetricSet({name: Mean({"gt", "references"}, signature=name) for name in ("x", "y", "z")})
    run(world, metrics, tmp_path / "journal")
    used = {row.output_path for row in world} | {row.gt_path for row in world}
    used |= {path for row in world for path in row.reference_paths}
    assert sorted(read) == sorted(used)


def test_references_are_not_read_when_no_metric_looks_at_them(world, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(stage, "read_rgb", lambda path, *a, **k: read.append(str(path)) or read_rgb(path, *a, **k))
    run(world, resolve_metrics(["psnr"]), tmp_path / "journal")
    assert not any("ref-" in path for path in read)


def test_requests_are_checked(world):
    with pytest.raises(ConfigError, match="two metrics are called 'psnr'"):
        resolve_metrics(["psnr", {"name": "psnr", "colour": "y"}])
    both = resolve_metrics(["psnr", {"name": "psnr", "label": "psnr_luma", "colour": "y"}])
    assert list(both.available) == ["psnr", "psnr_luma"]
    with pytest.raises(ConfigError, match="unknown metric 'lpisp'"):
        resolve_metrics(["lpisp"])
    with pytest.raises(ConfigError, match="needs a name"):
        resolve_metrics([{"label": "x"}])


class Picky(Mean):
    """A metric that finds no face on bright images, whatever their part is."""

    def __call__(self, batch: MetricBatch):
        looked = list(batch.output)
        looked += list(batch.gt) if batch.gt is not None and "gt" in self.needs else []
        looked += list(batch.references[0]) if "references" in self.needs else []
        if any(float(picture.mean()) > 0.9 for picture in looked):
            raise ImageError("no face")
        return super().__call__(batch)


@pytest.mark.parametrize("needs", ["gt", "references"])
def test_nobody_fails_where_the_ground_truth_or_a_reference_has_no_value(world, tmp_path, needs):
    """The output of one method is to blame on case 0, what it is compared with on case 1."""

    def brighten(path):
        save_png(path, np.full((64, 64, 3), 250, np.uint8))
        return sha256_file(path)

    rows = []
    for row in world:
        if row.case_id == "0" and row.method == "a":
            row = replace(row, output_sha256=brighten(row.output_path))
        if row.case_id == "1":
            gt, last = brighten(row.gt_path), brighten(row.reference_paths[1])
            row = replace(row, gt_sha256=gt, reference_sha256=(row.reference_sha256[0], last))
        rows.append(row)
    for _ in range(2):
        scores = run(rows, MetricSet({"picky": Picky([needs])}), tmp_path / "journal")
        found = scores.frame.set_index(["case_id", "method"])["status"]
        assert set(found["0", "a"]) == {"failed"}
        assert set(found["0", "b"]) == {"ok"}
        assert set(found["1"]) == {"left_out"}
        assert scores.reasons == {("picky", "no face"): 2}
        assert list(scores.undefined.values()) == [4]


def test_a_failure_of_an_earlier_release_is_looked_into_again(world, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "replace", lambda result, **changes: result)  # as results were before
    monkeypatch.setattr(stage, "_perfect", lambda metric, batch: None)
    run(world, MetricSet({"unfit": Mean(["gt"], error=ImageError("no face"))}), tmp_path / "journal")
    monkeypatch.undo()
    scores = run(world, MetricSet({"unfit": Mean(["gt"], error=ImageError("no face"))}), tmp_path / "journal")
    assert set(scores.frame["status"]) == {"left_out"}
