"""Published numbers: the data file, and when a number may stand beside a measured one."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from ffhqref.core.errors import TableError
from ffhqref.leaderboard.published import BenchmarkInfo, check_published, leak_mark, match_published, published_numbers
from ffhqref.leaderboard.report import MetricFacts
from ffhqref.restorers.base import RestorerInfo

from .conftest import report_of

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "published_results.csv"
SEVERE = BenchmarkInfo("severe", "FFHQ-Ref test", "Severe", 5, 857, people_from="FFHQ")
REFLDM = RestorerInfo("refldm", max_references=5)
SIGNATURES = {
    "ids": "ids|onnx:webface_r50.onnx@0123456789ab|x=(0.5,0.5)|crop=6.25-93.75% area 112 unrounded|vs gt|cosine|v1",
    "lpips_vgg": "lpips|vgg|heads v0.1|vgg16.pth@0123456789ab|rgb|vs gt|v1",
    "lpips_alex": "lpips|alex|heads v0.1|alexnet.pth@0123456789ab|rgb|vs gt|v1",
}


def test_data_file_holds_every_row_of_its_origin():
    if not SHARED.is_file():
        pytest.skip(f"{SHARED} is absent")
    ours = published_numbers()
    origin = pd.read_csv(SHARED)
    origin = origin[origin["paper"].isin(ours["paper"])]  # it may hold papers that the package does not yet
    key = ["paper", "table", "dataset", "degradation", "method", "metric"]
    both = origin.merge(ours, on=key, suffixes=("", "_ours"))
    assert len(both) == len(origin) == len(ours)
    assert (both["value"] == both["value_ours"]).all()
    assert (both["higher_is_better"].astype(bool) == both["higher_is_better_ours"]).all()


def test_anchors_of_table_7_and_their_trust():
    frame = published_numbers()
    anchor = frame[
        (frame["table"] == "Table 7")
        & (frame["degradation"] == "Severe")
        & (frame["method"] == "ReF-LDM")
        & frame["paper"].str.startswith("ReF-LDM")
    ].set_index("metric")
    assert anchor["value"].to_dict() == {"IDS": 0.676, "fLPIPS": 0.110, "LPIPS": 0.429, "FID": 37.60}
    assert set(anchor["trust"]) == {"primary"}
    assert set(anchor["references"]) == {5}
    quoted = frame["paper"].str.contains("secondary|aggregator")
    assert set(frame.loc[quoted, "trust"]) == {"secondary"}
    assert (frame["trust"] == "contradictory").sum() == 4


def test_every_row_says_how_it_may_be_compared():
    frame = published_numbers()
    assert frame["reason"].notna().all()
    assert frame.loc[frame["trust"] == "secondary", "requires"].isna().all()


def test_number_is_comparable_where_all_agrees():
    found = match_published({"severe": SEVERE}, {"refldm": REFLDM}, SIGNATURES)
    best = found[found["comparable"]].set_index("metric")
    assert best["published"].to_dict() == {"ids": 0.676, "lpips_vgg": 0.429}
    assert set(best["source"]) == {"RL-P"}


@pytest.mark.parametrize(
    ("change", "signatures", "reason"),
    [
        ({"dataset": "sample"}, SIGNATURES, "other set: published on FFHQ-Ref test, measured on sample"),
        ({"n_cases": 100}, SIGNATURES, "other cases: published on 857, measured on 100"),
        ({"max_references": 1}, SIGNATURES, "other references: published with 5, measured with 1"),
        ({}, {"lpips_alex": "lpips|alex"}, "other metric: published is LPIPS with the VGG network"),
        (
            {},
            {"ids": SIGNATURES["ids"].replace("ab|", "ab(not the published file)|")},
            "other metric: published is Arc",
        ),
        ({}, {"ids": SIGNATURES["ids"].replace("vs gt", "vs first reference")}, "other metric: published is ArcFace"),
        ({}, {"ids": "ids|dlib|vs gt"}, "other metric: published is ArcFace R50/WebFace12M"),
    ],
)
def test_any_difference_is_named(change, signatures, reason):
    benchmark = BenchmarkInfo(**{**SEVERE.__dict__, **change})
    found = match_published({"severe": benchmark}, {"refldm": REFLDM}, signatures)
    ours = found[found["paper"].str.startswith("ReF-LDM")]
    assert len(ours)
    assert not ours["comparable"].any()
    assert all(text.startswith(reason) for text in ours["reason"])


def test_failures_left_out_by_the_paper_are_not_comparable():
    found = match_published({"severe": SEVERE}, {"dmdnet": RestorerInfo("dmdnet")}, SIGNATURES)
    ours = found[found["paper"].str.startswith("ReF-LDM")]
    assert not ours["comparable"].any()
    assert ours["reason"].str.contains("leaves out the cases in which landmark detection failed").all()


def test_other_papers_are_shown_with_their_reason():
    found = match_published({"severe": SEVERE}, {"refldm": REFLDM}, {"lpips_vgg": "lpips|vgg"})
    other = found[found["paper"].str.startswith("IConFace")]
    assert len(other)
    assert not other["comparable"].any()
    assert other["reason"].str.contains("0.1 below").all()


def test_published_numbers_reach_the_leaderboard(tables):
    made = tables({"refldm": {"ids": [0.7, 0.6], "lpips_vgg": [0.4, 0.5]}, "other": {"ids": [0.1, 0.2]}})
    metrics = {name: MetricFacts(name != "lpips_vgg", signature) for name, signature in SIGNATURES.items()}
    report = dataclasses.replace(
        report_of(made, {}), metrics=metrics, benchmarks={"severe": SEVERE}, infos={"refldm": REFLDM}
    )
    board = report.leaderboard.set_index(["method", "metric"])
    assert board.loc[("refldm", "ids"), "published"] == 0.676
    assert board.loc[("refldm", "ids"), "published_source"] == "RL-P (primary)"
    assert pd.isna(board.loc[("other", "ids"), "published"])


@pytest.mark.parametrize(
    ("trained_on", "leaks"),
    [
        (("FFHQ",), True),
        (("ffhq",), True),
        (("FFHQ (70,000 images)",), True),
        (("ImageNet", "FFHQ"), True),
        (("FFHQ-Ref train",), False),
        (("FFHQ-Ref",), False),
        (("CelebA-HQ",), False),
        ((), False),
    ],
)
def test_leak_marks_follow_the_training_set(trained_on, leaks):
    assert bool(leak_mark(RestorerInfo("x", trained_on=trained_on), SEVERE)) == leaks
    assert leak_mark(RestorerInfo("x", trained_on=trained_on), BenchmarkInfo("b", "CelebRef-HQ")) is None


@pytest.mark.parametrize(
    ("preset", "dataset", "expected", "people"),
    [
        ("refldm_severe", "ffhq", "FFHQ-Ref test", "FFHQ"),
        ("refldm_severe", "celeba_hq", "celeba_hq test", ""),
        ("refldm_severe", "folder", "folder test", ""),
        ("celeba_test_ref", "celeba_hq", "CelebA-Test-Ref", ""),
        ("celeba_test_ref", "ffhq", "ffhq test", "FFHQ"),
        ("lfw_test", "ffhq", "LFW-Test", ""),
        ("lfw_test", "folder", "LFW-Test", ""),
    ],
)
def test_a_preset_over_other_pictures_is_not_the_published_set(tables, preset, dataset, expected, people):
    from omegaconf import OmegaConf

    from ffhqref.leaderboard import reading

    folder = Path(__file__).resolve().parents[2] / "conf" / "benchmark"
    config = OmegaConf.to_container(OmegaConf.load(folder / f"{preset}.yaml"))
    cases = tables({"refldm": {"psnr": [20.0, 21]}}, benchmark=preset).cases
    workspace = SimpleNamespace(picture_hashes=lambda: lambda path: path)
    facts = {"images": {"dataset": {"name": dataset}}, "cases": {"config": config}, "scores": {}}
    (made,) = reading._benchmarks(workspace, cases, facts).values()
    assert (made.dataset, made.people_from) == (expected, people)


def test_bad_rows_are_refused():
    frame = published_numbers()
    with pytest.raises(TableError, match="occurs twice"):
        check_published(pd.concat([frame, frame[:1]]))
    wrong = frame.copy()
    wrong.loc[wrong.index[wrong["metric"] == "IDS"][0], "higher_is_better"] = False
    with pytest.raises(TableError, match="two directions: \\['IDS'\\]"):
        check_published(wrong)
    wrong = frame.copy()
    wrong.loc[wrong.index[wrong["metric"] == "IDS"][0], "value"] = 67.6
    with pytest.raises(TableError, match=r"IDS = 67\.6 .* out of range"):
        check_published(wrong)
    with pytest.raises(TableError, match="unknown source or trust level \\['hearsay'\\]"):
        check_published(frame.assign(trust="hearsay"))
