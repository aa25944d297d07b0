"""The page as a parser sees it: self-contained, escaped, and showing the numbers of the frames."""

import base64
import dataclasses
import html.parser
import io
import json
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from ffhqref.core.errors import TableError
from ffhqref.leaderboard.html import render_html
from ffhqref.leaderboard.html.payload import script_json
from ffhqref.leaderboard.html.pictures import CasePictures, build_album, selection

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.stack, self.scripts, self.links, self.cells, self.text, self.rows = [], {}, [], [], [], []
        self.tags = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        for name in ("src", "href"):
            if name in attrs:
                self.links.append(attrs[name])
        assert not [name for name in attrs if name.startswith("on")], "no inline event handlers"
        if tag not in VOID:
            self.stack.append((tag, attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and "data-v" in attrs:
            self.rows[-1].append(attrs["data-v"])

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.stack and self.stack[-1][0] == "script":
            self.scripts[self.stack[-1][1].get("id", "code")] = data
        elif self.stack and self.stack[-1][0] != "style":
            self.text.append(data)


def with_budget(report, **options):
    return dataclasses.replace(report, options=report.options.model_copy(update=options))


def test_costs_are_a_table_without_scripts(tmp_path, make_report):
    report = make_report(tmp_path, methods=("lq", "good"), n_failed=0)
    methods = {**report.methods, "good": dataclasses.replace(report.methods["good"], kind="pgdiff")}
    render_html(dataclasses.replace(report, methods=methods), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    table = text[text.index('id="costs"') :].split("</table>")[0]
    good = next(row for row in table.split("<tr>") if ">good<" in row)
    cells = good.split("<td>")[1:]
    found = [cell.split("</td>")[0] for cell in cells]
    assert found[1:4] == ["177 M", "484 T", "1000"]
    assert found[6] == "cpu"


@pytest.fixture
def page(tmp_path, make_report):
    report = make_report(tmp_path)
    path = tmp_path / "report.html"
    return report, render_html(report, path), Page(path.read_text())


def test_page_is_whole_and_needs_nothing_else(page, tmp_path):
    _, summary, parsed = page
    assert parsed.stack == []
    assert summary.n_cases == summary.n_embedded == 12
    assert all(link.startswith(("#", "data:")) for link in parsed.links)
    text = (tmp_path / "report.html").read_text()
    assert summary.size == len(text.encode())
    own = text.replace(parsed.scripts["vega"], "")
    assert "url(" not in own
    assert "@import" not in own


def test_names_stay_text(page, evil, tmp_path):
    _, _, parsed = page
    text = (tmp_path / "report.html").read_text()
    assert evil not in text
    assert "".join(parsed.text).count(evil) >= 5  # title, tables, methods, provenance
    # Only our own scripts and Vega's: code, data, two sets of values, and images.
    named = [name for name in parsed.scripts if not name.startswith("picture-")]
    assert sorted(named) == ["code", "data", "values-0", "values-1", "vega"]
    assert parsed.tags.count("script") == len(parsed.scripts)


def test_script_json_cannot_end_its_element():
    text = script_json({"a": "</script><!--\u2028&", "b": float("nan"), "c": np.float32(1.5), "d": np.int64(2)})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&", "b": None, "c": 1.5, "d": 2}


def test_tables_show_the_leaderboard(page):
    report, _, parsed = page
    board = report.leaderboard
    shown = [row for row in parsed.rows if row and row[0] == "good"]
    assert len(shown) == 2
    for benchmark, row in zip(("moderate", "severe"), shown, strict=True):
        mine = board[(board["benchmark"] == benchmark) & (board["method"] == "good")].set_index("metric")
        assert [float(v) for v in row[1:]] == [
            mine.loc["niqe", "mean"], mine.loc["psnr", "mean"], mine.loc["psnr", "n_failed"],
            mine.loc["psnr", "seconds_per_image"],
        ]  # fmt: skip


def test_packed_values_are_the_scores(page, evil):
    report, _, parsed = page
    data = json.loads(parsed.scripts["data"])
    for index, benchmark in enumerate(data["benchmarks"]):
        raw = base64.b64decode(parsed.scripts[f"values-{index}"])
        values = np.array(struct.unpack(f"<{len(raw) // 4}f", raw)).reshape(
            len(benchmark["cases"]), len(benchmark["methods"]), len(benchmark["metrics"])
        )
        mine = report.scores[report.scores["benchmark"] == benchmark["name"]]
        for row in mine.itertuples():
            value = values[
                benchmark["cases"].index(row.case_id),
                benchmark["methods"].index(row.method),
                benchmark["metrics"].index(row.metric),
            ]
            assert value == pytest.approx(row.value, rel=1e-6, nan_ok=True)
        assert list(benchmark["errors"].values()) == [f"failed: RuntimeError: {evil}"]


def test_every_case_finds_its_own_pictures(page, tmp_path):
    report, _, parsed = page
    data = json.loads(parsed.scripts["data"])

    def decode(number):
        raw = np.frombuffer(base64.b64decode(parsed.scripts[f"picture-{number}"]), np.uint8)
        return cv2.imdecode(raw, cv2.IMREAD_COLOR).astype(float)

    for benchmark in data["benchmarks"]:
        for case_id, album in zip(benchmark["cases"], benchmark["pictures"], strict=True):
            case = report.cases[
                (report.cases["benchmark"] == benchmark["name"]) & (report.cases["case_id"] == case_id)
            ].iloc[0]
            for number, path in [
                (album["lq"], case["lq_path"]),
                (album["gt"], case["gt_path"]),
                *zip(album["refs"], case["reference_paths"], strict=True),
                (album["out"]["good"], str(tmp_path / f"out/good/{benchmark['name']}/{case_id}.png")),
            ]:
                original = cv2.imread(path).astype(float)
                assert np.abs(decode(number) - original).mean() < 6


def test_provenance_and_leaks_are_shown(page, tmp_path):
    _, _, parsed = page
    text = " ".join(" ".join(parsed.text).split())
    assert "psnr|rgb|v1" in text
    assert '"seed": 1' in text
    assert (tmp_path / "report.html").read_text().count('title="Trained on FFHQ, whose people are tested here"') == 2


def test_published_numbers_are_shown_with_the_reason(tmp_path, make_report):
    render_html(make_report(tmp_path, n=2, n_failed=0, methods=("codeformer",)), tmp_path / "r.html")
    text = " ".join(" ".join(Page((tmp_path / "r.html").read_text()).text).split())
    assert "no: other cases: published on 857, measured on 2" in text


def test_budget_embeds_worst_best_and_a_sample_and_says_so(tmp_path, make_report):
    report = make_report(tmp_path, n=20, n_failed=0)
    summary = render_html(with_budget(report, max_cases=6), tmp_path / "r.html")
    parsed = Page((tmp_path / "r.html").read_text())
    assert summary.n_embedded == 6
    assert "6 of 40 cases carry images" in "".join(parsed.text)
    data = json.loads(parsed.scripts["data"])
    for benchmark in data["benchmarks"]:
        embedded = {c for c, album in zip(benchmark["cases"], benchmark["pictures"], strict=True) if album}
        mine = report.scores[(report.scores["benchmark"] == benchmark["name"]) & (report.scores["metric"] == "psnr")]
        mean = mine.groupby("case_id")["value"].mean()
        assert {mean.idxmin(), mean.idxmax()} <= embedded
        assert len(embedded) == 3


def test_budget_in_megabytes_is_kept(tmp_path, make_report):
    report = make_report(tmp_path, n=20)

    def characters(**options):
        summary = render_html(with_budget(report, **options), tmp_path / "r.html")
        scripts = Page((tmp_path / "r.html").read_text()).scripts
        return summary.n_embedded, sum(len(text) for name, text in scripts.items() if name.startswith("picture-"))

    n_all, whole = characters()
    n_half, half = characters(max_megabytes=whole / 2e6)
    assert n_all == 40
    assert 0 < n_half < n_all
    assert whole / 4 < half <= whole / 2


def test_missing_pictures_are_counted_and_do_not_stop_the_page(tmp_path, make_report):
    report = make_report(tmp_path)
    (tmp_path / "lq" / "severe" / "00002.png").write_text("no picture")
    (tmp_path / "gt" / "00001.png").unlink()
    summary = render_html(report, tmp_path / "r.html")
    assert set(summary.unreadable) == {str(tmp_path / name) for name in ("lq/severe/00002.png", "gt/00001.png")}
    assert "2 images could not be read" in "".join(Page((tmp_path / "r.html").read_text()).text)


def test_pictures_are_reduced_and_stored_once(tmp_path):
    from ffhqref.core.images import save_png

    save_png(tmp_path / "a.png", np.zeros((300, 200, 3), np.uint8))
    path = str(tmp_path / "a.png")
    cases = [CasePictures("b", str(k), path, path, [path, path], {"m": path}) for k in range(3)]
    album = build_album(cases, size=150, reference_size=30, max_cases=9, max_characters=10**6, sha256={})
    assert len(album.data) == 2  # one for each size, however often it is shown
    assert [Image.open(io.BytesIO(base64.b64decode(x))).size for x in album.data] == [(100, 150), (20, 30)]


def test_selection_takes_turns_and_repeats_nothing():
    keys = [("a", str(k)) for k in range(9)] + [("b", str(k)) for k in range(4)]
    badness = np.array([0, 1, 2, 9, 4, 5, 6, 7, -1, 3, np.nan, 1, 2], float)
    order = selection(keys, badness)
    assert sorted(order) == list(range(13))
    assert order[:2] == [3, 9]  # the worst of each benchmark first
    assert order[2] == 8  # then the best
    assert selection([], np.zeros(0)) == []


def test_nothing_scored_is_one_clear_line(tmp_path, make_report):
    report = make_report(tmp_path)
    with pytest.raises(TableError, match=r"nothing to report: .*restore and score first"):
        render_html(dataclasses.replace(report, scores=report.scores[:0]), tmp_path / "a.html")


def test_same_input_gives_the_same_bytes(tmp_path, make_report):
    report = make_report(tmp_path)
    render_html(report, tmp_path / "a.html")
    render_html(report, tmp_path / "b.html", workers=1)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
