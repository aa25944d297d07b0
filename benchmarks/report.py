"""How long a large leaderboard takes: statistics, page, and the answer to a click in headless Chromium.

``python benchmarks/report.py`` makes up scores of 20 methods, 6 sets, 12 metrics and 1,000 cases a set with
correlated identities, and prints in one run the seconds of the statistics beside those of a notebook (pandas and
scipy, timed on a share of the work and scaled up), the seconds and size of the page, and the slowest answer of the
page to typical clicks. ``--json FILE`` saves the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from ffhqref.core.images import save_png
from ffhqref.leaderboard.html import render_html
from ffhqref.leaderboard.options import ReportOptions
from ffhqref.leaderboard.render import csv_table, latex_tables, markdown_tables
from ffhqref.leaderboard.report import Report
from ffhqref.leaderboard.report_data import MetricFacts

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def make_up(folder: Path, n_methods: int, n_sets: int, n_metrics: int, n_cases: int) -> tuple[pd.DataFrame, ...]:
    """Return scores, cases and restorations of invented methods."""
    rng = np.random.default_rng(0)
    n_people = max(2, n_cases // 7)
    methods = [f"method-{j:02d}" for j in range(n_methods)]
    metrics = ["psnr", "lpips", "ids", "musiq", "niqe", *(f"metric-{k:02d}" for k in range(5, n_metrics))][:n_metrics]
    ids = [f"{i:05d}" for i in range(n_cases)]
    scores, cases, restorations = [], [], []
    for b in range(n_sets):
        people = rng.integers(0, n_people, n_cases)
        shape = (n_cases, n_methods, n_metrics)
        values = rng.normal(size=(n_people, 1, n_metrics))[people] + 0.7 * rng.normal(size=shape)
        values += np.linspace(0, 1, n_methods)[None, :, None]
        failed = rng.random((n_cases, n_methods)) < 0.004
        values[failed] = np.nan
        method, metric = np.meshgrid(methods, metrics, indexing="ij")
        scores.append(
            pd.DataFrame(
                {
                    "method": np.tile(method.ravel(), n_cases),
                    "benchmark": f"set-{b}",
                    "case_id": np.repeat(ids, n_methods * n_metrics),
                    "metric": np.tile(metric.ravel(), n_cases),
                    "value": values.ravel(),
                    "status": np.where(np.isnan(values.ravel()), "failed", "ok"),
                }
            )
        )
        cases.append(
            pd.DataFrame(
                {
                    "benchmark": f"set-{b}",
                    "case_id": ids,
                    "target_id": ids,
                    "identity_id": pd.array(people, "Int32"),
                    "lq_path": [str(folder / f"{i % 40:02d}.png") for i in range(n_cases)],
                    "gt_path": [str(folder / f"{(i + 1) % 40:02d}.png") for i in range(n_cases)],
                    "reference_paths": [
                        [str(folder / f"{(i + r) % 40:02d}.png") for r in range(1 + i % 5)] for i in range(n_cases)
                    ],
                    "age": rng.uniform(5, 70, n_cases).astype(np.float32),
                    "age_gap": rng.normal(0, 12, n_cases).astype(np.float32),
                }
            )
        )
        restorations.append(
            pd.DataFrame(
                {
                    "method": np.tile(methods, n_cases),
                    "benchmark": f"set-{b}",
                    "case_id": np.repeat(ids, n_methods),
                    "output_path": [str(folder / f"{b}-{n}.png") for n in range(n_cases * n_methods)],
                    "output_sha256": None,
                    "status": np.where(failed.ravel(), "failed", "ok"),
                    "error": np.where(failed.ravel(), "out of memory", None),
                    "seconds": rng.exponential(1, n_cases * n_methods),
                    "peak_memory_bytes": None,
                    "device": "cpu",
                }
            )
        )
    return tuple(pd.concat(part, ignore_index=True) for part in (scores, cases, restorations))


def make_images(folder: Path, outputs: list[str]) -> None:
    """Write 40 images of 512 x 512 with the detail of photographs; outputs are links to them."""
    rng = np.random.default_rng(1)
    for index in range(40):
        coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        smooth = np.kron(coarse, np.ones((22, 22, 1)))[:512, :512]
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        save_png(folder / f"{index:02d}.png", noisy)
    for index, path in enumerate(outputs):
        Path(path).symlink_to(f"{index % 40:02d}.png")


def notebook_seconds(scores: pd.DataFrame, cases: pd.DataFrame, n_bootstrap: int) -> float:
    """Seconds of a notebook's way to the same figures, from a small share of the work.

    Means: a loop that resamples identities and averages with pandas. Comparisons: ``scipy.stats.permutation_test``
    with sign flips for each pair of methods, metric and set.
    """
    n_sets, n_metrics = scores["benchmark"].nunique(), scores["metric"].nunique()
    part = scores[scores["benchmark"] == scores["benchmark"].iloc[0]]
    wide = part.pivot_table(index="case_id", columns=["metric", "method"], values="value")
    about = cases[cases["benchmark"] == cases["benchmark"].iloc[0]].set_index("case_id")
    person = about["identity_id"].reindex(wide.index).to_numpy()
    rows = dict(enumerate(wide.groupby(person).indices.values()))
    rng = np.random.default_rng(0)
    start, share = time.perf_counter(), 20
    for _ in range(share):
        drawn = np.concatenate([rows[p] for p in rng.integers(0, len(rows), len(rows))])
        wide.iloc[drawn].mean()
    means = (time.perf_counter() - start) / share * n_bootstrap * n_sets
    values = wide[scores["metric"].iloc[0]].groupby(person).sum().to_numpy()
    pairs = [(a, b) for a in range(values.shape[1]) for b in range(a)]
    start = time.perf_counter()
    for a, b in pairs[:share]:
        stats.permutation_test(
            (values[:, a] - values[:, b],),
            lambda x, axis: x.sum(axis=axis),
            permutation_type="samples",
            n_resamples=n_bootstrap,
            vectorized=True,
            rng=0,
        )
    tests = (time.perf_counter() - start) / share * len(pairs) * n_metrics * n_sets
    return means + tests


def click_milliseconds(path: Path) -> dict[str, float]:
    """Milliseconds until the page has answered and painted, the slowest of several clicks of each kind."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("FFHQREF_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not found:
        print("click latency: no Chromium on the PATH", file=sys.stderr)
        return {}
    timer = """async ([selector, index, value]) => {
      const node = document.querySelectorAll(selector)[index];
      const start = performance.now();
      if (value === null) node.click();
      else { node.value = value; node.dispatchEvent(new Event('change')); node.dispatchEvent(new Event('input')); }
      document.body.getBoundingClientRect();
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      return performance.now() - start;
    }"""
    clicks = {
        "sort a table": ("[data-panel='0'] thead button", [(1, None), (2, None), (1, None)]),
        "choose a set": ("[data-tab]", [(1, None), (2, None), (6, None), (0, None)]),
        "open a case": ("#case-list button", [(3, None), (7, None), (12, None)]),
        "next page of cases": ("#pager button", [(1, None), (1, None)]),
        "filter by metric": ("#filters select", [(2, "niqe"), (2, "psnr")]),
        "filter by method": ("#filters select", [(1, "method-03"), (1, "method-11")]),
        "order by improvement": ("#filters select", [(3, "best"), (3, "id"), (3, "worst")]),
        "move the slider": ("#split", [(0, "20"), (0, "80")]),
        "plots of another set": ("#plot-controls select", [(0, "3"), (0, "5")]),
        "plots of another metric": ("#plot-controls select", [(1, "ids"), (2, "psnr")]),
        "compare two methods": ("#compare-controls select", [(1, "method-04"), (2, "method-09"), (0, "2")]),
        "switch the theme": ("#theme", [(0, None), (0, None)]),
    }
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector("#case-list li")
        took = {"open the page": 1000 * (time.perf_counter() - start)}
        for name, (selector, steps) in clicks.items():
            took[name] = max(page.evaluate(timer, [selector, index, value]) for index, value in steps)
        browser.close()
    return took


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("methods", 20), ("sets", 6), ("metrics", 12), ("cases", 1000), ("bootstrap", 2000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scores, cases, restorations = make_up(folder, options.methods, options.sets, options.metrics, options.cases)
        make_images(folder, restorations["output_path"].tolist())
        metrics = {metric: MetricFacts(metric not in ("lpips", "niqe")) for metric in scores["metric"].unique()}
        report = Report(
            "made up", scores, cases, restorations, metrics, options=ReportOptions(n_bootstrap=options.bootstrap)
        )
        figures: dict[str, object] = {"rows": len(scores)}
        _ = replace(report, scores=scores[:100], restorations=restorations[:10]).analysis  # imports
        start = time.perf_counter()
        board = report.leaderboard
        figures["statistics_s"] = time.perf_counter() - start
        figures["notebook_s"] = notebook_seconds(scores, cases, options.bootstrap)
        start = time.perf_counter()
        _ = report.subgroups
        figures["subgroups_s"] = time.perf_counter() - start
        start = time.perf_counter()
        for render in (markdown_tables, latex_tables, csv_table):
            render(board)
        figures["text_tables_s"] = time.perf_counter() - start
        start = time.perf_counter()
        page = render_html(report, folder / "report.html")
        figures["page_s"] = time.perf_counter() - start
        figures["page_mb"] = page.size / 1e6
        figures["cases_with_images"] = f"{page.n_embedded} of {page.n_cases}"
        figures["click_ms"] = click_milliseconds(folder / "report.html")
    parts = ("statistics_s", "subgroups_s", "text_tables_s", "page_s")
    figures["total_s"] = sum(float(str(figures[part])) for part in parts)
    ratio = float(str(figures["notebook_s"])) / float(str(figures["statistics_s"]))
    figures["ratio_to_notebook"] = ratio
    print(f"{len(scores):,} scores: {options.methods} methods x {options.sets} sets x {options.metrics} metrics")
    print(f"statistics        {figures['statistics_s']:6.1f} s")
    print(f"  in a notebook   {figures['notebook_s']:6.1f} s   (pandas and scipy, estimated: {ratio:.0f}x as long)")
    print(f"sub-groups        {figures['subgroups_s']:6.1f} s")
    print(f"Markdown LaTeX CSV{figures['text_tables_s']:6.1f} s")
    print(f"HTML page         {figures['page_s']:6.1f} s   ({figures['page_mb']:.1f} MB)")
    print(f"images of         {figures['cases_with_images']} cases")
    print(f"total             {figures['total_s']:6.1f} s")
    for click, milliseconds in dict(figures["click_ms"]).items():  # type: ignore[call-overload]
        print(f"  {click:26s} {milliseconds:7.0f} ms")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
