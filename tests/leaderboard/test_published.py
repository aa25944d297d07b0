"""Published numbers: the data file, and when a number may stand beside a measured one."""

import dataclasses
import io
from pathlib import Path

import pandas as pd
import pytest

from ffhqref.cli.catalogue import describe
from ffhqref.cli.published import main
from ffhqref.core.errors import ConfigError, TableError
from ffhqref.leaderboard import reading
from ffhqref.leaderboard.methods import MethodFacts, changed_options
from ffhqref.leaderboard.published import (
    BenchmarkInfo,
    check_published,
    leak_mark,
    match_published,
    published_numbers,
    published_rows,
)
from ffhqref.leaderboard.report_data import MetricFacts
from ffhqref.restorers.base import RestorerInfo
from ffhqref.weights.files import registry

from .conftest import report_of

CONF = Path(__file__).resolve().parents[2] / "conf"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "published_results.csv"
SEVERE = BenchmarkInfo("severe", "FFHQ-Ref test", "Severe", 5, 857, people_from="FFHQ")
REFLDM = MethodFacts(RestorerInfo("refldm", max_references=5))
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
    key = ["paper", "table", "dataset", "degradation", "method", "metric"]
    both = origin.merge(ours, on=key, suffixes=("", "_ours"))
    assert len(both) == len(origin) == len(ours)
    assert (both["value"] == both["value_ours"]).all()
    assert (both["higher_is_better"].astype(bool) == both["higher_is_better_ours"]).all()


def test_the_two_sets_called_celeba_test_are_told_apart():
    frame = published_numbers()
    both = frame[frame["dataset"] == "CelebA-Test"].groupby("degradation")["lq_release"].unique()
    assert both["CelebA-Test LQ (GFPGAN release)"].tolist() == ["celeba-test/gfpgan"]
    assert both["CelebA-Test LQ (DAEFR release)"].tolist() == ["celeba-test/daefr"]
    gfpgan = BenchmarkInfo("b", "CelebA-Test", "CelebA-Test LQ (GFPGAN release)")
    papers = {}
    for info in (gfpgan, BenchmarkInfo("b", "CelebA-Test", "CelebA-Test LQ (DAEFR release)")):
        found = match_published({"b": info}, {"codeformer": None}, {"psnr": "psnr", "lmd": "lmd", "lpips_vgg": ""})
        papers[info.lq_release] = {paper.split()[0] for paper in found["paper"]}
    assert papers == {"celeba-test/gfpgan": {"IConFace", "PMRF"}, "celeba-test/daefr": {"OSDFace"}}
    (only,) = match_published({"b": gfpgan}, {"osdface": None}, {"lpips_vgg": "lpips|vgg"}).to_dict("records")
    assert not only["comparable"]
    assert only["reason"] == (
        "other low-quality images: published on celeba-test/daefr, measured on celeba-test/gfpgan"
    )


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
    found = match_published({"severe": SEVERE}, {"dmdnet": MethodFacts(RestorerInfo("dmdnet"))}, SIGNATURES)
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
        report_of(made, {}), metrics=metrics, benchmarks={"severe": SEVERE}, methods={"refldm": REFLDM}
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
        ("refldm_severe", "celeba_hq", "celeba_hq test", "CelebA-HQ"),
        ("refldm_severe", "folder", "folder test", ""),
        ("celeba_test_ref", "celeba_hq", "CelebA-Test-Ref", "CelebA-HQ"),
        ("celeba_test_ref", "ffhq", "ffhq test", "FFHQ"),
        ("lfw_test", "ffhq", "LFW-Test", "LFW"),
        ("lfw_test", "folder", "LFW-Test", "LFW"),
    ],
)
def test_a_preset_over_other_pictures_is_not_the_published_set(tables, preset, dataset, expected, people):
    from omegaconf import OmegaConf

    folder = Path(__file__).resolve().parents[2] / "conf" / "benchmark"
    config = OmegaConf.to_container(OmegaConf.load(folder / f"{preset}.yaml"))
    cases = tables({"refldm": {"psnr": [20.0, 21]}}, benchmark=preset).cases
    release = {"config": {"release": "digest"}}
    facts = {"images": {"dataset": {"name": dataset}}, "cases": {"config": config}, "scores": {}, "identities": release}
    (made,) = reading._benchmarks(str, cases, facts).values()
    assert (made.dataset, made.people_from) == (expected, people)


def comparable(method, benchmark=SEVERE, signatures=SIGNATURES, name="refldm"):
    """Return the reasons against ReF-LDM's own numbers, or the metrics in which they are comparable."""
    found = match_published({"severe": benchmark}, {name: method}, signatures)
    ours = found[found["paper"].str.startswith("ReF-LDM")]
    good = ours[ours["comparable"]]
    return set(good["metric"]) if len(good) else set(ours["reason"])


def released(kind, *, options=(), weights=None, references=5):
    known = registry()
    names = {"refldm": ("refldm", "refldm-vqgan"), "codeformer": ("codeformer",)}[kind]
    info = RestorerInfo(kind, max_references=references, weights=names)
    return MethodFacts(info, kind, dict(options), weights or tuple(known[name].sha256 for name in names))


def test_the_published_setting_and_files_are_comparable():
    assert comparable(released("refldm")) == {"ids", "lpips_vgg"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"steps": 50}, "other setting: steps=50"),
        ({"guidance_scale": 3.0}, "other setting: guidance_scale=3.0"),
        ({"preset": "demo"}, "other setting: preset=demo"),
    ],
)
def test_another_setting_is_not_the_published_method(options, reason):
    assert comparable(released("refldm", options=options)) == {reason}


def test_one_reference_is_not_five_wherever_it_is_said():
    reason = {"other references: published with 5, measured with 1"}
    assert comparable(released("refldm", references=1)) == reason
    assert comparable(released("refldm"), BenchmarkInfo("severe", "FFHQ-Ref test", "Severe", 1, 857)) == reason
    unlimited = BenchmarkInfo("severe", "FFHQ-Ref test", "Severe", None, 857)
    assert comparable(released("refldm"), unlimited) == {"ids", "lpips_vgg"}, "the restorer itself takes five"


@pytest.mark.parametrize("kind", ["refldm", "codeformer"])
def test_own_weights_are_not_the_published_file(kind):
    own = released(kind, weights=("e" * 64,))
    assert comparable(own, name=kind) == {"other weights than the published file: eeeeeeeeeeee"}


def test_weights_without_a_known_hash_prove_nothing():
    info = RestorerInfo("gpen", weights=("gpen-bfr-512",))
    method = MethodFacts(info, "gpen", {}, ("e" * 64,))
    assert method.departure() == "weights of no known published hash: eeeeeeeeeeee"
    assert MethodFacts(info, "gpen").departure() == "the weights were not recorded"
    assert MethodFacts(RestorerInfo("bicubic")).departure() == ""


def test_a_label_of_ones_own_is_known_by_its_restorer():
    assert comparable(released("refldm"), name="mine") == {"ids", "lpips_vgg"}
    other = MethodFacts(RestorerInfo("refldm"), "bicubic")
    assert comparable(other) == set(), "a name alone makes no published method"


def test_vqfr_is_comparable_in_no_version():
    for kind, version in (("vqfr", "2"), ("vqfr_v1", "1")):
        found = comparable(MethodFacts(RestorerInfo(kind), kind), name=kind)
        assert found <= {f"the paper does not say which version of VQFR it ran; measured is version {version}"}


def test_pgdiff_with_a_reference_is_not_pgdiff():
    keys = published_numbers().set_index("method")["method_key"]
    assert set(keys["PGDiff (reference)"]) == {"pgdiff_ref"}
    assert set(keys["PGDiff (1000 steps)"]) == {"pgdiff"}


@pytest.mark.parametrize(
    ("file", "same"), [("a.npz@012345678901", True), ("a.npz@012345678901(not the published file)", False)]
)
def test_statistics_of_ffhq_must_be_the_published_file(file, same):
    signatures = {"fid_ffhq": f"fid|clean|ffhq trainval70k {file}|v1"}
    found = comparable(released("refldm"), signatures=signatures)
    assert (found == {"fid_ffhq"}) == same


def test_options_that_change_nothing_do_not_count():
    assert changed_options("refldm", {"batch_size": 8, "device": "cuda", "name": "refldm", "preset": "paper"}) == {}
    assert changed_options("refldm", {"steps": 20, "preset": None}) == {"steps": 20, "preset": None}
    assert changed_options("bicubic", {"scale": 4}) != changed_options("bicubic", {"scale": 8})
    assert changed_options("of_another_package", {"x": 1, "device": "cpu"}) == {"x": 1}


@pytest.mark.parametrize(
    ("trained_on", "benchmark", "leaks"),
    [
        ("FFHQ-Ref train", BenchmarkInfo("b", "FFHQ-Ref test", people_from="FFHQ"), False),
        ("FFHQ-Ref train", BenchmarkInfo("b", "ffhq test", people_from="FFHQ"), True),
        ("FFHQ", BenchmarkInfo("b", "ffhq test", people_from="FFHQ"), True),
        ("CelebRef-HQ", BenchmarkInfo("b", "celebref_hq test", people_from="CelebRef-HQ"), True),
        ("CelebRef-HQ train", BenchmarkInfo("b", "celebref_hq test", people_from="CelebRef-HQ"), True),
        ("CelebA", BenchmarkInfo("b", "CelebA-Test-Ref", people_from="CelebA-HQ"), True),
        ("CelebA-HQ (30,000)", BenchmarkInfo("b", "celeba_hq test", people_from="CelebA-HQ"), True),
        ("CelebRef-HQ", BenchmarkInfo("b", "celeba_hq test", people_from="CelebA-HQ"), False),
        ("LFW", BenchmarkInfo("b", "LFW-Test", people_from="LFW"), True),
    ],
)
def test_people_of_every_data_set_belong_to_it(trained_on, benchmark, leaks):
    assert bool(leak_mark(RestorerInfo("x", trained_on=(trained_on,)), benchmark)) == leaks


@pytest.mark.parametrize("name", ["dmdnet", "restorerid", "asffnet"])
def test_released_weights_that_have_seen_celebref_hq_are_marked(name):
    tested = BenchmarkInfo("b", "celebref_hq test", people_from="CelebRef-HQ")
    assert leak_mark(describe(name), tested) == "trained on CelebRef-HQ, whose people are tested here"


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
    wrong = frame.copy()
    wrong.loc[wrong.index[wrong["lq_release"] == "celeba-test/daefr"][0], "lq_release"] = "celeba-test/gfpgan"
    with pytest.raises(TableError, match="two LQ releases"):
        check_published(wrong)
    with pytest.raises(TableError, match="unknown source or trust level \\['hearsay'\\]"):
        check_published(frame.assign(trust="hearsay"))


def test_rows_of_papers_for_a_set_and_level_with_the_reason_where_not_comparable():
    """Each row of the data file for the set and level, of any method, under the metric that was measured."""
    known = published_numbers()
    signatures = {"lpips_vgg": SIGNATURES["lpips_vgg"], "niqe": "niqe|rgb|v1"}
    rows = published_rows(SEVERE, signatures)
    mine = known[(known["dataset"] == "FFHQ-Ref test") & (known["degradation"] == "Severe")]
    assert {row.method for row in rows} == {*mine.loc[mine["metric"].isin(["LPIPS", "NIQE"]), "method"]}
    own = mine[mine["paper"].str.startswith("ReF-LDM") & (mine["metric"] == "LPIPS")]
    cells = {(row.method, row.table): row.cells for row in rows if row.paper.startswith("ReF-LDM")}
    for method, table, value in zip(own["method"], own["table"], own["value"], strict=True):
        assert cells[method, table]["lpips_vgg"].value == value
    assert any(cell["lpips_vgg"].reason == "" for cell in cells.values() if "lpips_vgg" in cell)
    assert all(cell["niqe"].reason for cell in cells.values() if "niqe" in cell)
    fewer = published_rows(dataclasses.replace(SEVERE, n_cases=10), signatures)
    assert all(cell.reason for row in fewer for cell in row.cells.values())
    assert published_rows(dataclasses.replace(SEVERE, dataset="my album"), signatures) == []


def test_the_command_lists_sets_and_prints_their_numbers(capsys):
    assert main(["--csv"]) == 0
    assert "FFHQ-Ref test,Severe," in capsys.readouterr().out
    assert main(["ffhq-ref test", "--level", "severe", "--csv"]) == 0
    rows = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert set(rows["dataset"]) == {"FFHQ-Ref test"}
    assert set(rows["degradation"]) == {"Severe"}
    assert main(["FFHQ-Ref test"]) == 0
    assert "LPIPS" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"no set 'CelbA-Test'\. Did you mean 'CelebA-Test'"):
        main(["CelbA-Test"])
    with pytest.raises(ConfigError, match="no level 'mild'"):
        main(["FFHQ-Ref test", "--level", "mild"])
