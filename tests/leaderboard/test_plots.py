"""Plots as specifications: labels at their own dots, one template for page and paper, figures as files."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from ffhqref.leaderboard.plots import figures as figures_module
from ffhqref.leaderboard.plots.figures import FiguresFormat, figures
from ffhqref.leaderboard.plots.labels import CHARACTER, LINE, place_labels
from ffhqref.leaderboard.plots.layout import Axis, Layout, span
from ffhqref.leaderboard.plots.specs import fill, templates
from ffhqref.leaderboard.view import tables
from ffhqref.zoo.costs import known_costs

WIDTH, HEIGHT = 400, 300


def nearest(place, dots):
    return min(range(len(dots)), key=lambda k: math.dist(place, dots[k]))


def edge_distance(place, name, dot):
    half = len(name) * CHARACTER / 2
    return math.hypot(max(abs(dot[0] - place[0]) - half, 0), max(abs(dot[1] - place[1]) - LINE / 2, 0))


@pytest.mark.parametrize("seed", range(40))
def test_the_nearest_dot_of_each_label_is_its_own(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 25))
    spread = rng.choice([4, 30, 300])
    dots = [tuple(xy) for xy in np.clip(rng.normal([200, 150], spread, (n, 2)), 0, [WIDTH, HEIGHT])]
    names = ["method-" + "x" * int(rng.integers(0, 12)) for _ in dots]
    places = place_labels(dots, names, WIDTH, HEIGHT)
    boxes = []
    for index, (place, name) in enumerate(zip(places, names, strict=True)):
        if place is None:
            continue
        assert nearest(place, dots) == index
        by_edge = [edge_distance(place, name, dot) for dot in dots]
        assert by_edge.index(min(by_edge)) == index
        half = len(name) * CHARACTER / 2
        box = (place[0] - half, place[1] - LINE / 2, place[0] + half, place[1] + LINE / 2)
        assert box[0] >= 0
        assert box[2] <= WIDTH
        for other in boxes:
            assert box[0] >= other[2] or other[0] >= box[2] or box[1] >= other[3] or other[1] >= box[3]
        boxes.append(box)


def test_dots_with_room_all_have_labels():
    dots = [(50 + 80 * k, 40 + 50 * j) for k in range(4) for j in range(5)]
    assert None not in place_labels(dots, ["label"] * 20, WIDTH, HEIGHT)


def test_dots_on_one_spot_have_no_label_that_could_be_the_others():
    assert place_labels([(200, 150), (200, 150)], ["a", "b"], WIDTH, HEIGHT) == [None, None]


@pytest.mark.parametrize("axis", [Axis((2.0, 6.0)), Axis((2.0, 6.0), reverse=True), Axis((0.01, 100.0), log=True)])
def test_an_axis_goes_both_ways(axis):
    for value in (2.5, 4.0, 5.9):
        assert axis.value(axis.share(value)) == pytest.approx(value)
    better, worse = (2.5, 5.9) if axis.reverse else (5.9, 2.5)
    assert axis.share(better) > axis.share(worse)


def test_ranges_leave_out_what_is_not_finite():
    assert span([1.0, float("inf"), 3.0, float("nan")], room=0.5) == (0.0, 4.0)
    assert span([]) == (0.0, 1.0)


def test_the_front_is_of_ranked_methods_in_their_directions(tmp_path, make_report):
    report = make_report(tmp_path, methods=("a", "b", "c"), n_failed=0)
    view = tables(report.leaderboard)[0]
    front = Layout(view, ["psnr", "niqe"]).front("psnr", "niqe")
    means = {row.method: (row.cells["psnr"].mean, -row.cells["niqe"].mean) for row in view.rows if not row.ceiling}
    for method, (x, y) in means.items():
        beaten = any(p >= x and q >= y and (p > x or q > y) for p, q in means.values())
        assert (method in front) == (not beaten)


def test_quality_against_work_is_of_counted_methods(tmp_path, make_report):
    report = make_report(tmp_path, methods=("mine", "twice", "changed", "unknown"), n_failed=0)
    kinds = {"mine": "gfpgan", "twice": "difface", "changed": "codeformer", "unknown": "of-another-package"}
    methods = {
        name: replace(facts, kind=kinds[name], options={"start": 50} if name == "changed" else {})
        for name, facts in report.methods.items()
    }
    report = replace(report, methods=methods)
    view = report.tables[0]
    work = {row.method: row.multiply_adds for row in view.rows if row.multiply_adds}
    expected = {name: known_costs()[kinds[name]].multiply_adds / 1e9 for name in ("mine", "twice")}
    assert work == pytest.approx(expected)
    spec = dict(figures(report))[f"{view.benchmark}-psnr-multiply-adds"]
    points = {point["method"]: point for point in spec["datasets"]["points"]}
    assert {name: point["x"] for name, point in points.items()} == pytest.approx(expected)
    better = points["twice"]["y"] > points["mine"]["y"]
    front = [name for name in points if points[name]["front"] is not None]
    assert sorted(front) == (["mine", "twice"] if better else ["mine"])


def test_templates_hold_no_data_and_are_filled_whole():
    for name, template in templates().items():
        marks = set(re.findall(r"'@(\w+)'", str(template)))
        assert {"width", "datasets", "ink", "muted"} <= marks, name
        filled = fill(template, dict.fromkeys(marks, 0))
        assert "'@" not in str(filled)


def test_figures_are_the_page_plots_as_svg_and_pdf(tmp_path, make_report):
    report = make_report(tmp_path, methods=("lq", "good"), n_failed=0)
    written = FiguresFormat().write(report, tmp_path / "report")
    names = {path.stem for path in written.files}
    assert {"severe-psnr-niqe", "severe-psnr-seconds", "severe-psnr-by-age-gap", "severe-psnr-people"} <= names
    for path in written.files:
        content = path.read_bytes()
        assert content.startswith(b"<svg" if path.suffix == ".svg" else b"%PDF"), path
        assert b"http://" not in content.replace(b"http://www.w3.org/", b""), path
    svg = (tmp_path / "report" / "figures" / "severe-psnr-niqe.svg").read_text()
    assert {"lq", "good"} <= set(re.findall(r"<text[^>]*>([^<]+)</text>", svg))


def test_figures_hold_the_numbers_of_the_leaderboard(tmp_path, make_report):
    report = make_report(tmp_path, methods=("lq", "good"), n_failed=0)
    spec = dict(figures(report))["severe-psnr-niqe"]
    board = report.leaderboard.set_index(["benchmark", "method", "metric"])["mean"]
    for point in spec["datasets"]["points"]:
        assert (point["x"], point["y"]) == (
            board["severe", point["method"], "psnr"], board["severe", point["method"], "niqe"],
        )  # fmt: skip
    people = dict(figures(report))["severe-psnr-people"]["datasets"]["dots"]
    scores = report.scores.merge(report.cases[["benchmark", "case_id", "identity_id"]])
    scores = scores[(scores["benchmark"] == "severe") & (scores["metric"] == "psnr") & (scores["method"] == "good")]
    expected = sorted(scores.groupby("identity_id")["value"].mean())
    assert [dot["value"] for dot in people if dot["method"] == "good"] == pytest.approx(expected)


def test_without_the_packages_figures_and_page_say_what_is_missing(tmp_path, make_report, monkeypatch):
    from ffhqref.leaderboard.html import page

    monkeypatch.setattr(figures_module, "available", lambda: False)
    monkeypatch.setattr(page, "available", lambda: False)
    report = make_report(tmp_path)
    written = FiguresFormat().write(report, tmp_path)
    assert written.files == ()
    assert "pip install 'ffhqref[plots]'" in written.warnings[0]
    page.render_html(report, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "vegaEmbed =" not in text
    assert "ffhqref[plots]" in text
