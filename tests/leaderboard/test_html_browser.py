"""The page in a real browser: no console errors, sorting, slider, filters, theme, and images only when shown."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from ffhqref.leaderboard.html import render_html

pytestmark = pytest.mark.browser

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("FFHQREF_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip(f"no Chromium on the PATH ({', '.join(NAMES)}) nor in FFHQREF_CHROMIUM")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def written(make_report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report = make_report(folder, n=30)
    path = folder / "report.html"
    render_html(report, path)
    return report, path


@pytest.fixture
def opened(browser, written, evil):
    report, path = written
    context = browser.new_context(viewport={"width": 1300, "height": 900}, color_scheme="light", offline=True)
    page = context.new_page()
    page.set_default_timeout(120_000)  # a busy machine is no defect; benchmarks/report.py measures the answers
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(Path(path).as_uri())
    yield report, page
    assert said == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.title() == f"Face restoration on Report {evil}"
    context.close()


def column(page, index):
    return page.eval_on_selector_all(
        "[data-panel='0'] table.board tbody:not(.printed) tr:not(.block)",
        f"rows => rows.map(row => row.children[{index}].dataset.v)",
    )


def test_sorting_by_a_click_on_a_heading(opened):
    report, page = opened
    board = report.leaderboard
    mine = board[(board["benchmark"] == "moderate") & (board["metric"] == "niqe")]
    competing = sorted(mine.loc[~mine["method"].isin(["ground-truth", "lq"]), "mean"])
    head = page.locator("[data-panel='0'] thead th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"  # lower is better: the best on top
    values = [float(v) for v in column(page, 1)]
    assert values[: len(competing)] == competing
    assert column(page, 0)[-2:] == ["lq", "ground-truth"]
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(v) for v in column(page, 1)][: len(competing)] == competing[::-1]
    assert column(page, 0)[-2:] == ["lq", "ground-truth"], "baselines stay below, whatever the order"
    psnr = page.locator("[data-panel='0'] thead th").nth(2)
    psnr.locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert psnr.get_attribute("aria-sort") == "descending"


def test_tabs_choose_a_benchmark(opened):
    _, page = opened
    page.get_by_role("button", name="severe", exact=True).first.click()
    assert page.locator("[data-panel='0']").is_hidden()
    assert page.locator("[data-panel='1']").is_visible()


def test_slider_moves_by_mouse_and_keyboard(opened):
    _, page = opened
    box = page.locator(".ba")
    box.scroll_into_view_if_needed()
    area = box.bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.25, area["y"] + area["height"] / 2)
    assert abs(float(page.locator("#split").input_value()) - 25) <= 2
    assert abs(float(box.evaluate("node => node.style.getPropertyValue('--p')").rstrip("%")) - 25) <= 2
    page.locator("#split").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    moved = float(page.locator("#split").input_value())
    assert abs(moved - 30) <= 2
    edge = box.locator(".edge").bounding_box()
    assert abs(edge["x"] + 1 - area["x"] - area["width"] * moved / 100) < 2
    clip = box.locator("img.right").evaluate("node => getComputedStyle(node).clipPath")
    assert f"{moved:g}%" in clip


def test_any_two_pictures_can_be_put_side_by_side(opened, evil):
    _, page = opened
    page.get_by_label("Left", exact=True).select_option("ground truth")
    page.get_by_label("Right", exact=True).select_option("good")
    assert page.locator(".ba img.left").get_attribute("alt").startswith("ground truth, case")
    assert page.locator(".ba img.right").get_attribute("alt").startswith("good, case")
    page.get_by_role("button", name="Swap left and right").click()
    assert page.locator(".ba img.left").get_attribute("alt").startswith("good, case")
    assert page.locator(".refs img").count() >= 1
    assert page.locator(".ba img.left").evaluate("node => node.naturalWidth") == 64


def test_filters_agree_with_the_scores(opened, evil):
    report, page = opened
    scores = report.scores[(report.scores["metric"] == "psnr") & (report.scores["method"] == "good")]
    page.get_by_label("Method", exact=True).first.select_option("good")
    low = float(scores["value"].median())
    page.get_by_label("At least").fill(str(low))
    assert page.locator("#count").inner_text().startswith(f"{int((scores['value'] >= low).sum())} cases")
    page.get_by_label("At least").fill("")
    page.locator("#filters").get_by_label("Benchmark").select_option("severe")
    severe = scores[scores["benchmark"] == "severe"]
    assert page.locator("#count").inner_text().startswith(f"{len(severe)} cases")
    worst = severe.sort_values("value").iloc[0]
    assert page.locator("#case-list b").first.inner_text() == worst["case_id"]
    page.get_by_label("Order").select_option("best")
    assert page.locator("#case-list b").first.inner_text() == severe.sort_values("value").iloc[-1]["case_id"]
    page.get_by_label("Person").select_option("3")
    assert page.locator("#case-list li").count() == 2
    page.get_by_label("Person").select_option("all")
    page.get_by_label("Method", exact=True).first.select_option(evil)
    page.get_by_label("Status").select_option("failed")
    assert page.locator("#case-list li").count() == 1
    page.locator("#case-list button").click()
    assert evil in page.locator(".ba").inner_text(), "the reason of a failure is shown, as text"


def test_list_is_paged_and_pictures_wait_until_shown(opened):
    _, page = opened
    assert page.locator("#case-list li").count() == 24
    embedded = page.evaluate("document.querySelectorAll('script[id^=picture-]').length")
    assert page.evaluate("document.images.length") < embedded
    page.get_by_role("button", name="Next ›").click()
    assert page.locator("#pager span").inner_text() == "2 / 3"
    assert page.locator("#case-list li").count() == 24
    ids = "nodes => nodes.map(node => node.textContent)"
    shown = page.eval_on_selector_all("#case-list .who", ids)
    page.get_by_role("button", name="‹ Previous").click()
    assert not set(shown) & set(page.eval_on_selector_all("#case-list .who", ids))


def test_theme_follows_the_system_and_the_button(opened):
    _, page = opened
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(colour) != light
    page.locator("#theme").click()
    assert page.evaluate(colour) == light


def test_comparison_shows_the_paired_difference(opened):
    report, page = opened
    c = report.analysis.comparisons
    row = c[(c["benchmark"] == "severe") & (c["metric"] == "psnr")]
    row = row[row["method_a"].isin(["good", "lq"]) & row["method_b"].isin(["good", "lq"])].iloc[0]
    page.locator("#compare-controls").get_by_label("Benchmark").select_option("1")
    page.locator("#compare-controls").get_by_label("First").select_option(row["method_a"])
    page.locator("#compare-controls").get_by_label("Second").select_option(row["method_b"])
    line = page.locator("#compare-out tbody tr", has_text="psnr").inner_text().split("\t")
    assert float(line[1].replace("−", "-")) == pytest.approx(row["difference"], abs=0.006)
    page.locator(".tiles button").first.click()
    assert page.locator(".viewer h3").inner_text() == page.locator(".tiles button").first.inner_text().split("\n")[0]


def test_plots_are_drawn_and_named(opened):
    _, page = opened
    page.wait_for_function("document.querySelectorAll('figure .plot svg').length === 4")
    names = page.eval_on_selector_all("figure svg", "nodes => nodes.map(node => node.getAttribute('aria-label'))")
    assert all(names)
    dots = page.locator("#plot-scatter .mark-symbol path")
    assert dots.count() == 3
    page.locator("#legend button").first.click()
    page.wait_for_function("document.querySelectorAll(`#plot-scatter .mark-symbol path[opacity='0.22']`).length === 2")
    page.locator("#plot-scatter .mark-symbol path").first.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "psnr ↑" in page.locator("#vg-tooltip-element").inner_text()


def test_the_histogram_of_differences_stands_on_zero_and_counts_each_case(opened):
    _, page = opened
    page.wait_for_selector("#compare-out .mark-rect path")
    told = page.eval_on_selector_all(
        "#compare-out .mark-rect path", "nodes => nodes.map(n => n.getAttribute('aria-label'))"
    )
    shared = page.locator("#compare-out").inner_text()
    assert f"of {sum(int(text.split()[0]) for text in told)} cases" in shared
    boxes = page.eval_on_selector_all(
        "#compare-out .mark-rect path",
        "nodes => nodes.map(n => { const r = n.getBoundingClientRect(); return [r.bottom, r.height]; })",
    )
    assert len({round(bottom) for bottom, _ in boxes}) == 1
    heights = [height for _, height in boxes]
    counts = [int(text.split()[0]) for text in told]
    assert heights.index(max(heights)) == counts.index(max(counts))


NEAREST = """place => {
  const centre = (node) => { const r = node.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; };
  const dots = [...document.querySelectorAll(`${place} .mark-symbol path`)];
  const labels = [...document.querySelectorAll(`${place} .role-mark.mark-text text`)];
  return labels.map((label) => {
    const [x, y] = centre(label);
    const away = dots.map((dot) => Math.hypot(centre(dot)[0] - x, centre(dot)[1] - y));
    const nearest = dots[away.indexOf(Math.min(...away))];
    return [label.textContent, nearest.getAttribute("aria-label").split(":")[0]];
  });
}"""


@pytest.mark.parametrize("width", [400, 1300])
def test_labels_stand_at_their_own_dots(browser, tmp_path, make_report, width):
    """As a reader takes them: the nearest dot of each label is its own, in every plot of pairs."""
    names = ["bicubic", "nlm", "tv", "lq", "refldm-tiny", "codeformer", "gfpgan", "restoreformer_pp"]
    report = make_report(tmp_path, n=4, n_failed=0, methods=names)
    # Means close to one another, as those of simple methods are.
    close = {name: 25 + 0.05 * place + 2 * (place % 2) for place, name in enumerate(names)}
    rows = report.scores[["method", "case_id"]].values
    scores = report.scores.assign(value=[close.get(method, 3.0) + 0.01 * int(case) for method, case in rows])
    path = tmp_path / "report.html"
    render_html(dataclasses.replace(report, scores=scores), path)
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(path.as_uri())
    seen = 0
    for benchmark in ("0", "1"):
        page.locator("#plot-controls").get_by_label("Benchmark").select_option(benchmark)
        for place in ("#plot-scatter", "#plot-speed"):
            page.wait_for_selector(f"{place} .mark-symbol path")
            found = page.evaluate(NEAREST, place)
            assert all(label == dot for label, dot in found), found
            seen += len(found)
    page.close()
    assert seen >= 10


def test_print_cuts_nothing_and_has_no_scroll_boxes(opened):
    """On a sheet of A4 across, 273 mm between the margins, at 96 pixels an inch."""
    _, page = opened
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 1032, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    cut = page.evaluate("""() => [...document.querySelectorAll("main *")].filter((node) => {
      const style = getComputedStyle(node), box = node.getBoundingClientRect();
      if (!node.getClientRects().length || node.closest("svg, .ba, .strip, select")) return false;
      const scrolls = ["auto", "scroll"].includes(style.overflowY) && node.scrollHeight > node.clientHeight + 1;
      return scrolls || box.right > 1033;
    }).map((node) => node.tagName + "." + node.className)""")
    assert cut == []
    page.emulate_media(media="screen")


@pytest.mark.parametrize("width", [400, 1300])
def test_headings_stand_over_their_columns(opened, width):
    _, page = opened
    page.set_viewport_size({"width": width, "height": 900})
    apart = page.evaluate("""() => [...document.querySelectorAll("table.board")].flatMap((table) => {
      const heads = [...table.tHead.rows[0].cells], row = table.tBodies[0].rows[0].cells;
      const text = (node) => { const range = document.createRange(); range.selectNodeContents(node); return range; };
      return heads.map((head, at) => Math.abs(text(head.querySelector("button")).getBoundingClientRect().left
        - text(row[at]).getBoundingClientRect().left));
    }).filter((gap) => gap > 1.5)""")
    assert apart == []
    ends = page.eval_on_selector_all(".bar a, .bar button", "nodes => nodes.map(n => n.getBoundingClientRect().right)")
    assert max(ends) <= width


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_no_sideways_scrolling_of_the_page(opened, width):
    _, page = opened
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_text_has_contrast_in_both_themes(opened):
    _, page = opened
    probe = """() => {
      const lum = c => { const p = c.match(/[\\d.]+/g).slice(0, 3).map(v => { v /= 255;
        return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * p[0] + 0.7152 * p[1] + 0.0722 * p[2]; };
      const back = n => { for (; n; n = n.parentElement) { const c = getComputedStyle(n).backgroundColor;
        if (!/, 0\\)$|transparent/.test(c) && c.startsWith('rgb(')) return c; } return 'rgb(255,255,255)'; };
      const bad = [];
      for (const n of document.querySelectorAll('p, td, th, h2, h3, li, label, summary, .ci, .rank, .mark, dt, dd')) {
        if (!n.textContent.trim() || !n.getClientRects().length) continue;
        const a = lum(getComputedStyle(n).color), b = lum(back(n));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) bad.push([n.className, n.textContent.trim().slice(0, 30), ratio]);
      }
      return bad;
    }"""
    for _ in range(2):
        assert json.dumps(page.evaluate(probe)) == "[]"
        page.locator("#theme").click()
        page.wait_for_timeout(50)


def test_page_reads_without_scripts(browser, tmp_path, make_report):
    path = tmp_path / "report.html"
    render_html(make_report(tmp_path), path)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("table.board").count() == 2
    assert page.locator("table.board").nth(1).is_visible()
    assert page.locator("#cases").is_hidden()
    assert "need JavaScript" in page.locator("body").inner_text()
    context.close()


def test_a_benchmark_without_any_value_breaks_nothing(browser, tmp_path, make_report):
    report = make_report(tmp_path)
    scores = report.scores.copy()
    severe = scores["benchmark"] == "severe"
    scores.loc[severe, "value"] = float("nan")
    scores.loc[severe, "status"] = "unavailable"
    path = tmp_path / "report.html"
    render_html(dataclasses.replace(report, scores=scores), path)
    page = browser.new_page()
    said = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    page.locator("#plot-controls").get_by_label("Benchmark").select_option("1")
    page.locator("#compare-controls").get_by_label("Benchmark").select_option("1")
    page.locator("#filters").get_by_label("Benchmark").select_option("severe")
    page.locator("#case-list button").first.click()
    page.close()
    assert said == []


def shown(page):
    """Return what a reader sees that the address keeps."""
    filters, plots, compare = (page.locator(place) for place in ("#filters", "#plot-controls", "#compare-controls"))
    return [
        *(filters.get_by_label(name, exact=True).input_value() for name in ("Metric", "Order", "Person")),
        *(plots.get_by_label(name).input_value() for name in ("Benchmark", "Fidelity")),
        *(compare.get_by_label(name).input_value() for name in ("First", "Second")),
        *(page.get_by_label(name, exact=True).input_value() for name in ("Left", "Right")),
        page.locator(".viewer h3").inner_text(),
        *column(page, 0),
        page.locator("[data-panel='0']").is_visible(),
    ]


def test_a_link_restores_what_was_seen(browser, opened):
    report, page = opened
    start = shown(page)
    page.locator("#filters").get_by_label("Metric", exact=True).select_option("niqe")
    page.locator("#filters").get_by_label("Order", exact=True).select_option("best")
    page.locator("#plot-controls").get_by_label("Benchmark").select_option("1")
    page.locator("#plot-controls").get_by_label("Fidelity").select_option("niqe")
    page.locator("#compare-controls").get_by_label("First").select_option("good")
    page.locator("#case-list button").nth(7).click()
    page.get_by_label("Left", exact=True).select_option("ground truth")
    page.locator("[data-panel='0'] thead th").nth(2).locator("button").click()
    seen, address = shown(page), page.evaluate("location.href")
    assert seen != start
    other = browser.new_page()
    other.goto(address)
    assert shown(other) == seen
    other.goto("about:blank")
    other.goto(address.partition("#")[0])
    assert shown(other) == start
    other.goto("about:blank")
    other.goto(address.replace("metric=niqe", "metric=nonsense"))
    assert other.locator("#filters").get_by_label("Metric", exact=True).input_value() in report.metrics
    other.close()


FOCUSED = (
    "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.labels?.[0]?.textContent ?? "
    "document.activeElement.textContent)"
)


def test_focus_stays_after_every_control_by_keyboard(opened):
    """Controls that draw themselves again have the focus again after; at the end of a list it stays beside."""
    _, page = opened
    controls = (
        ("#plot-controls", "Fidelity"),
        ("#compare-controls", "First"),
        ("#filters", "Order"),
        ("#viewer", "Right"),
    )
    for place, label in controls:
        page.locator(place).get_by_label(label, exact=True).focus()
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(30)
        assert page.evaluate(FOCUSED) == label
        assert page.evaluate("node => document.querySelector(node).contains(document.activeElement)", place)
    page.locator("#case-list button").first.click()
    for button in (
        page.get_by_role("button", name="Swap left and right"),
        page.get_by_role("button", name="Next case"),
        page.locator("#legend button").nth(1),
        page.get_by_role("button", name="Next ›"),
        page.locator(".strip button").nth(1),
    ):
        button.focus()
        before = page.evaluate(FOCUSED)
        page.keyboard.press("Enter")
        assert page.evaluate(FOCUSED) == before
    page.get_by_role("button", name="Next ›").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(FOCUSED) == "‹ Previous", "the last page has no next one"


def test_j_and_k_and_arrows_go_through_the_cases(opened):
    _, page = opened
    ids = page.eval_on_selector_all("#case-list b", "nodes => nodes.map(node => node.textContent)")
    page.locator("#case-list button").first.click()
    title = page.locator(".viewer h3")
    for key, place in (("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0), ("k", 0)):
        page.keyboard.press(key)
        assert title.inner_text() == ids[place]
    page.get_by_label("Case", exact=True).focus()
    page.keyboard.press("j")
    assert page.get_by_label("Case", exact=True).input_value() == "j", "typed, not followed"
    assert title.inner_text() == ids[0]


def test_copied_tables_are_the_leaderboard(opened):
    report, page = opened
    page.evaluate("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    page.locator("[data-panel='0'] [data-copy]", has_text="TSV").click()
    page.wait_for_function("window.copied")
    board = report.leaderboard[report.leaderboard["benchmark"] == "moderate"].set_index(["method", "metric"])
    lines = [line.split("\t") for line in page.evaluate("window.copied").splitlines()]
    seen = 0
    for line in lines[1:]:
        row = dict(zip(lines[0], line, strict=True))
        for metric in ("psnr", "niqe"):
            if row[metric]:
                facts = board.loc[(row["method"], metric)]
                found = [float(row[name]) for name in (metric, f"{metric} low", f"{metric} high")]
                assert found == [facts["mean"], facts["ci_low"], facts["ci_high"]]
                seen += 1
    assert seen == 7
    for kind, sign in (("Markdown", "### moderate"), ("LaTeX", r"\begin{table*}")):
        page.locator("[data-panel='0'] [data-copy]", has_text=kind).click()
        page.wait_for_function("text => window.copied.includes(text)", arg=sign)
    assert page.locator("#said").inner_text() == "LaTeX table copied"


PANES = """() => [...document.querySelectorAll(".lens-tile")].map((tile) => {
  const [pane, img] = [".pane", "img"].map((name) => tile.querySelector(name).getBoundingClientRect());
  return [tile.querySelector("b").textContent, img.x - pane.x, img.y - pane.y, img.width, img.height,
    tile.querySelector("small").textContent];
})"""


def test_the_lens_moves_all_images_together(opened):
    _, page = opened
    page.get_by_role("button", name="Lens", exact=True).click()
    page.wait_for_function("[...document.querySelectorAll('.lens-tile img')].every((img) => img.naturalWidth)")
    tiles = page.evaluate(PANES)
    assert [tile[0] for tile in tiles][:3] == ["LQ", "ground truth", "reference 1"]
    assert len(tiles) >= 5
    assert all("64 × 64 px, reduced or lossy copy" in tile[5] for tile in tiles)

    def together():
        found = page.evaluate(PANES)
        for at in range(1, 5):
            assert max(tile[at] for tile in found) - min(tile[at] for tile in found) <= 1
        return found[0]

    area = page.locator(".pane").nth(1).bounding_box()
    start = together()
    x, y = area["x"] + area["width"] / 4, area["y"] + area["height"] / 4
    page.mouse.move(x, y)
    page.mouse.wheel(0, -500)
    page.wait_for_function(
        "w => document.querySelector('.pane img').getBoundingClientRect().width > w + 1", arg=start[3]
    )
    zoomed = together()
    share = (area["width"] / 4 - start[1]) / start[3]
    assert abs(zoomed[1] + share * zoomed[3] - area["width"] / 4) <= 1.5, "what is under the pointer stays there"
    page.mouse.down()
    page.mouse.move(x - 30, y - 20)
    page.mouse.up()
    moved = together()
    assert abs(moved[1] - zoomed[1] + 30) <= 1
    assert abs(moved[2] - zoomed[2] + 20) <= 1
    page.keyboard.press("1")
    assert together()[3] == 64
    assert page.locator("#lens-zoom").inner_text() == "1:1"
    page.keyboard.press("0")
    assert together()[3] == pytest.approx(area["width"], abs=1)
    page.locator("#lens-names").get_by_role("button", name="LQ", exact=True).click()
    assert page.evaluate(PANES)[0][0] == "ground truth"
    assert "lens=LQ" in page.evaluate("location.hash")
    before = page.locator("#lens-title").inner_text()
    page.keyboard.press("j")
    assert page.locator("#lens-title").inner_text() != before
    page.keyboard.press("Escape")
    assert page.locator("#lens").is_hidden()


def test_baselines_are_sorted_for_themselves_and_never_best(opened):
    """Fifteen people are enough to rank; lq is a baseline and never the best."""
    report, page = opened
    block = page.locator("[data-panel='0'] tbody.baselines tr")
    assert block.locator("th").all_inner_texts()[:2] == ["Baselines, not ranked", "lq"]
    assert page.locator("tbody.baselines .best, tbody.baselines .tied, tbody.baselines .rank").count() == 0
    assert page.locator("[data-panel='0'] tbody .best").count() == 2
    page.locator("[data-panel='0'] thead th").nth(2).locator("button").click()
    assert block.locator("th").first.inner_text() == "Baselines, not ranked"
    assert report.arrangement.people == {"moderate": 15, "severe": 15}


BOLD = """() => [...document.querySelectorAll("#viewer table tr")].map((row) =>
  [row.cells[0].textContent,
   [...row.cells].slice(1).map((cell) => [cell.textContent, cell.classList.contains("strong")])])"""


def test_a_baseline_is_not_the_best_of_a_case_either(opened):
    report, page = opened
    leading = 0
    for _ in range(12):
        (_, metrics), *lines = page.evaluate(BOLD)
        rows = dict(lines)
        ranked = [name for name in rows if name not in (*report.baselines, "ground-truth")]
        for k, (metric, _) in enumerate(metrics):
            value, bold = rows["lq"][k]
            best = [float(rows[name][k][0]) for name in ranked if rows[name][k][1]]
            assert not bold
            assert best or all(rows[name][k][0] == "–" for name in ranked)
            if best and value != "–":
                leading += float(value) > best[0] if metric.endswith("↑") else float(value) < best[0]
        page.keyboard.press("j")
    assert leading, "in some case the baseline leads, so that marking it would show"


def test_few_people_give_no_verdict_between_two_methods(browser, tmp_path, make_report):
    report = make_report(tmp_path, n=14)
    assert set(report.arrangement.people.values()) == {7}
    render_html(report, tmp_path / "few.html")
    page = browser.new_page()
    page.goto((tmp_path / "few.html").as_uri())
    assert set(page.locator("#compare-out .verdict").all_inner_texts()) == {"too few people"}
    page.close()
