"""The identity jury: verification rates and mean ranks against brute force, and who may not judge whom."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ffhqref.config.run import read_config
from ffhqref.config.source import compose
from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.engine import LocalEngine
from ffhqref.metrics import MetricRuntime, make_metric
from ffhqref.metrics.dataset_scoring import dataset_notes
from ffhqref.metrics.jury import JUDGES, _ranks, mean_ranks, score_jury, verification_rate
from ffhqref.metrics.scoring import ScoreRow, resolve_metrics, score


def brute_force(genuine, impostors, far):
    """Try every threshold: the best share of genuine pairs with at most ``far`` of the impostors accepted."""
    best = 0.0
    for threshold in [-np.inf, *impostors, *genuine, np.inf]:
        for accepted in (lambda x, t=threshold: x > t, lambda x, t=threshold: x >= t):
            if accepted(impostors).mean() <= far + 1e-12:
                best = max(best, accepted(genuine).mean())
    return best


@pytest.mark.parametrize("far", [1e-3, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("digits", [1, 6])
def test_the_rate_is_the_best_that_any_threshold_gives(far, digits):
    """With one digit most values are tied."""
    random = np.random.default_rng(int(1000 * far) + digits)
    genuine = np.round(random.normal(0.5, 0.2, 40), digits)
    impostors = np.round(random.normal(0.2, 0.2, 120), digits)
    found = verification_rate(genuine, impostors, far)
    assert found.rate == pytest.approx(brute_force(genuine, impostors, far))
    assert (impostors > found.threshold).mean() <= far
    assert bool(found.note) == (far < 1 / 120)


def test_a_rate_in_closed_form():
    impostors = np.arange(2000) / 2000  # two may be accepted: 0.9995 and 0.999
    found = verification_rate(np.array([0.9984, 0.99851, 0.9995, 1.0]), impostors)
    assert (found.threshold, found.rate, found.note) == (0.9985, 0.75, "")
    few = verification_rate(np.array([0.5, 0.9]), impostors[:999])
    assert few.note == "999 pairs of two people: 0.001 needs 1000, so this is the rate without any false acceptance"
    assert few.rate == 1.0
    assert verification_rate(np.array([-np.inf, 1.0]), np.zeros(1000)).rate == 0.5
    assert math.isnan(verification_rate(np.array([0.5]), np.array([])).rate)


def test_mean_ranks():
    """Cases a and b by judges x and y; c failed for m3, d is judged for nobody."""
    x = pd.DataFrame({"m1": [0.9, 0.2], "m2": [0.5, 0.4], "m3": [0.1, -np.inf]}, index=["a", "c"])
    y = pd.DataFrame({"m1": [0.9, np.nan], "m2": [0.9, 0.1], "m3": [0.8, 0.1]}, index=["a", "d"])
    found = mean_ranks({"x": x, "y": y}, {})
    assert found.to_dict() == {"m1": (1.5 + 1.5) / 2, "m2": (1.5 + 1.5) / 2, "m3": 3.0}
    # without m1, x ranks two methods: 1 and 2 become 1 and 3 of three
    found = mean_ranks({"x": x, "y": y}, {"x": frozenset({"m1"})})
    assert found.to_dict() == {"m1": 1.5, "m2": (1.0 + 1.5) / 2, "m3": 3.0}
    assert mean_ranks({"x": x}, {"x": frozenset({"m1"})}).isna().to_dict() == {"m1": True, "m2": False, "m3": False}


@pytest.fixture
def world(sample_folder, tmp_path):
    """Two judges; method same gives the truths, next those of another person, part the truths but for two cases.

    One of these has no output, the other an input that was handed through.
    """
    pytest.importorskip("onnx")
    from tests.onnx_networks import mean_colours

    colours = mean_colours(tmp_path / "w600k_r50.onnx")
    judges = resolve_metrics(["ids_dlib", {"name": "ids_arcface_r50", "path": str(colours)}, "ids_facenet"])
    files = [str(path) for path in sorted(sample_folder.glob("*.jpg"))[:24:6]]
    digests = [sha256_bytes(Path(path).read_bytes()) for path in files]
    rows = []
    for index in range(4):
        outputs = {"same": index, "next": (index + 1) % 4, "part": index, "ground-truth": index}
        for method, of in outputs.items():
            lost = method == "part" and index in (2, 3)
            made = (None, None) if lost and index == 2 else (files[of], digests[of])
            rows.append(ScoreRow(method, "b", f"c{index}", *made, files[index], digests[index], usable=not lost))
    return rows, judges


def test_who_was_trained_with_a_judge_is_not_ranked_by_it(world, tmp_path):
    rows, metrics = world
    where = {"engine": LocalEngine(0), "journal_dir": tmp_path / "journal"}
    frame = score(rows, metrics, **where).frame
    people = {("b", f"c{index}"): f"p{index}" for index in range(4)}
    known = {"next": ["buffalo-l-r50"], "same": ["webface-r50"]}
    found = score_jury(rows, frame, metrics.available, people, known, **where).set_index(["metric", "method"])
    rate = found["value"].unstack()
    for judge in ("ids_dlib", "ids_arcface_r50"):
        assert rate.loc[f"{judge}_tar", ["same", "next", "part"]].tolist() == [1.0, 0.0, 0.5]
        assert found.loc[(f"{judge}_tar", "same"), "n_reference"] == 12
        assert "12 pairs of two people: 0.001 needs 1000" in found.loc[(f"{judge}_tar", "same"), "note"]
    # same and part are tied but where part failed; dlib ranks three methods, the other judge two, 1 and 3 for 1 and 2
    dlib = {"same": (2 * 1.5 + 2 * 1) / 4, "part": (2 * 1.5 + 2 * 3) / 4, "next": (2 * 3 + 2 * 2) / 4}
    colours = {"same": (2 * 2 + 2 * 1) / 4, "part": (2 * 2 + 2 * 3) / 4}
    assert rate.loc["ids_jury", "next"] == pytest.approx(dlib["next"])
    for method in ("same", "part"):
        assert rate.loc["ids_jury", method] == pytest.approx((dlib[method] + colours[method]) / 2)
    notes = dataset_notes(found.reset_index())["b"]["ids_jury"]
    assert notes == "not for next: ids_arcface_r50 (trained with, or conditioned on)"
    assert "ids_facenet" in metrics.unavailable
    assert ("ids_jury", "ground-truth") not in found.index


def test_impostors_are_other_people(world, tmp_path):
    rows, metrics = world
    where = {"engine": LocalEngine(0), "journal_dir": tmp_path / "journal"}
    frame = score(rows, metrics, **where).frame
    one = {name: metric for name, metric in metrics.available.items() if name == "ids_dlib"}
    pairs = {("b", f"c{index}"): f"p{index // 2}" for index in range(4)}
    found = score_jury(rows, frame, one, pairs, {}, **where)
    assert set(found["metric"]) == {"ids_dlib_tar"}  # one judge ranks nobody
    assert found.set_index("method").loc["same", "n_reference"] == 8
    alone = score_jury(rows, frame, one, dict.fromkeys(pairs, "p"), {}, **where)
    assert set(alone["status"]) == {"failed"}
    assert set(alone["note"]) == {"no pairs of two people"}
    lost = [dataclasses.replace(row, usable=False) for row in rows if row.method == "next"]
    nothing = score_jury(lost, frame, one, pairs, {}, **where)
    assert nothing[["status", "note"]].to_numpy().tolist() == [["failed", "no output to compare"]]


def test_the_config_chooses_all_judges():
    assert tuple(read_config(compose(["metric=[ids_jury]"])).metric) == JUDGES


def test_judges_know_their_input(tmp_path, monkeypatch):
    from tests.onnx_networks import mean_colours

    path = mean_colours(tmp_path / "adaface_ir_101.onnx")
    ada = make_metric("ids_adaface", path=path)
    assert " bgr|" in ada.signature
    assert " bgr|" not in make_metric("ids_adaface", path=path, channels="rgb").signature
    assert "crop=refldm_center" in make_metric("ids_edgeface", path=path, crop="refldm_center").signature
    assert "x=(0.5,0.25)" in make_metric("ids_arcface_r100", path=path, mean=0.5, std=0.25).signature
    assert "first reference" in make_metric("ids_dlib", target="first").signature
    assert ada.recogniser == "adaface-ir101-onnx"
    mean_colours(tmp_path / "adaface_ir_50.onnx", 140)
    runtime = MetricRuntime(weights_dir=tmp_path)
    monkeypatch.setattr("ffhqref.weights.files._check_whole", lambda *_: None)
    monkeypatch.setattr("ffhqref.weights.files._judge", lambda *_: None)
    other = make_metric("ids_adaface", weights="adaface-ir50-onnx", runtime=runtime)
    assert other.recogniser == "adaface-ir50-onnx"
    assert other.signature != make_metric("ids_adaface", runtime=runtime).signature == ada.signature
    assert make_metric("ids_dlib").signature == make_metric("ids", embedder="dlib").signature
    with pytest.raises(ConfigError, match="has no option 'embeder'"):
        make_metric("ids_adaface", path=path, embeder="dlib")


def test_recognisers_of_methods_are_registered():
    from importlib import resources

    from ffhqref.restorers import RESTORERS
    from ffhqref.weights.files import registry

    text = resources.files("ffhqref.weights").joinpath("weights.json").read_text()
    assert {item["name"] for item in json.loads(text)["files"]} == set(registry())
    for name in ("refldm", "faceme", "restorerid", "gfpgan"):
        known = RESTORERS.get(name).info.recognisers
        assert known
        assert set(known) <= set(registry())


def test_a_method_that_ran_on_a_part_takes_no_cases_from_the_others():
    """Ranked with it, the others would be judged on its cases alone."""
    values = {"a": (0.9, 0.9, 0.1, 0.1, 0.1), "b": (0.5,) * 5, "part": (0.7, 0.7)}
    rows = [
        (judge, method, str(case), value)
        for judge in ("x", "y")
        for method, column in values.items()
        for case, value in enumerate(column)
    ]
    scores = pd.DataFrame(rows, columns=["metric", "method", "case_id", "value"]).assign(benchmark="s", status="ok")
    judges = dict.fromkeys(("x", "y"), SimpleNamespace(recogniser="none"))
    found = {line.method: line for line in _ranks(scores, set(), judges, {})}
    assert (found["a"].value, found["b"].value) == (pytest.approx(1.6), pytest.approx(1.4))
    assert (found["a"].n, found["part"].status) == (5, "unavailable")
    assert found["part"].note == "part was not run on all cases"
