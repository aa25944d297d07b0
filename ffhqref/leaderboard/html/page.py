"""Putting the page together: what a report is made of, and the one file it becomes."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from ffhqref import __version__
from ffhqref.core.errors import TableError
from ffhqref.core.files import write_atomic
from ffhqref.leaderboard.case_values import RULE
from ffhqref.leaderboard.formats import ReportFormat, Written
from ffhqref.leaderboard.html.payload import (
    benchmark_payload,
    comparison_payload,
    packed,
    script_json,
    subgroup_payload,
)
from ffhqref.leaderboard.html.pictures import Album, CasePictures, build_album, selection
from ffhqref.leaderboard.html.printed import Printed, copies
from ffhqref.leaderboard.html.script import vega_script
from ffhqref.leaderboard.plots.layout import COSTS, SIZES, Layout
from ffhqref.leaderboard.plots.specs import REMEDY, available, templates
from ffhqref.leaderboard.statistics import ALPHA
from ffhqref.leaderboard.view import FEW_PEOPLE, arrow, decimals, feature_name, metric_of_role, scored_metrics
from ffhqref.metrics.base import GROUND_TRUTH
from ffhqref.zoo.costs import case_references, in_words
from ffhqref.zoo.openness import openness

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from ffhqref.leaderboard.case_values import CaseValues
    from ffhqref.leaderboard.report import Report

_SCRIPTS = ("core.js", "tables.js", "plots.js", "lens.js", "cases.js", "compare.js")


IMAGE_SIZE = 384
"""Size in pixels of LQ, outputs and ground truth inside the page."""
REFERENCE_SIZE = 192
"""The same of references."""


@dataclass(frozen=True)
class PageFacts:
    """What a page holds."""

    size: int
    """Bytes of the page."""
    n_cases: int
    n_embedded: int
    """Cases with images."""
    unreadable: tuple[str, ...]
    """Paths of images that could not be read."""


class HtmlFormat(ReportFormat):
    """The report as one page, ``report.html``."""

    def write(self, report: Report, folder: Path) -> Written:
        """Write the page; tell of images that it cannot show."""
        path = folder / "report.html"
        facts = render_html(report, path)
        return Written((path,), tuple(f"page: cannot show {image}" for image in facts.unreadable[:5]))


def render_html(report: Report, path: str | Path, *, workers: int = 2) -> PageFacts:
    """Write the report as one HTML file that needs nothing else: no server, no network, no other file.

    Args:
        report: what is shown. Beyond the budget of its options the worst cases, the best and an even sample of each
            benchmark have images; all cases keep their numbers, and the page says so.
        path: the file to write, atomically.
        workers: threads that read and encode images.

    Raises:
        TableError: there are no scores of single cases.
    """
    import jinja2
    from markupsafe import Markup

    blocks = report.blocks
    if not blocks:
        raise TableError("nothing to report: table 'scores' holds no case; restore and score first")
    views = report.tables
    album = _album(report, blocks, workers, Path(path).absolute().parent)
    n_cases = sum(len(block.case_ids) for block in blocks)
    data = _data(report, blocks, views, album)
    folder = resources.files(__package__)
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    library = vega_script() if available() else ""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(number=_number, sentence=_sentence, minus=lambda text: text.replace("-", "−"))
    environment.globals.update(arrow=arrow, isnan=math.isnan)
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        title=report.title,
        credit=report.credit,
        version=__version__,
        origin=report.origin,
        few_people=FEW_PEOPLE,
        devices=", ".join(sorted(set(report.arrangement.devices.values()))) or "a device that was not recorded",
        one_machine=report.arrangement.one_machine,
        card="../datacard.html" if (Path(path).absolute().parent.parent / "datacard.html").is_file() else "",
        order=report.arrangement.order_words,
        summary=_summary(report, blocks),
        views=views,
        spans={view.benchmark: _spans(view) for view in views},
        infos={
            name: report.infos[name]
            for name in sorted({row.method for view in views for row in view.rows} & {*report.infos})
        },
        benchmarks=report.benchmarks,
        signatures=report.signatures,
        unavailable={name: metric.unavailable for name, metric in report.metrics.items() if metric.unavailable},
        notes=report.notes,
        directions=report.directions,
        failures=_failures(report),
        excluded=report.options.failures == "excluded",
        published=report.published.to_dict("records"),
        printed={name: Printed(rows) for name, rows in report.published_rows.items()},
        gate=[] if report.gate is None else report.gate.to_dict("records"),
        pairs=report.pair_tables,
        costs=_costs(report),
        alpha=ALPHA,
        rule=RULE,
        provenance={name: _provenance(facts) for name, facts in report.provenance.items()},
        n_cases=n_cases,
        n_embedded=len(album.cases),
        n_unreadable=len(album.unreadable),
        image_size=IMAGE_SIZE,
        reference_size=REFERENCE_SIZE,
        has_groups=len(report.subgroups) > 0,
        data=Markup(script_json(data)),  # noqa: S704  script_json escapes all that could end the element
        values=[packed(block.values) for block in blocks],
        pictures=album.data,
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),  # noqa: S704  our own file
        script=Markup(script),  # noqa: S704  our own files
        library=Markup(library),  # noqa: S704  of a package
        hashes=[
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (library, script) if text
        ],
    )
    encoded = page.encode()
    write_atomic(path, encoded)
    return PageFacts(len(encoded), n_cases, len(album.cases), tuple(album.unreadable))


def _digest(script: str) -> str:
    """Return the hash by which a content security policy knows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _album(report: Report, blocks: Sequence[CaseValues], workers: int, folder: Path) -> Album:
    outputs: dict[tuple[str, str], dict[str, str]] = {}
    well = report.restorations[report.restorations["output_path"].notna()]
    for row in zip(well["benchmark"], well["case_id"], well["method"], well["output_path"], strict=True):
        outputs.setdefault((row[0], row[1]), {})[row[2]] = row[3]
    about = {(row["benchmark"], row["case_id"]): row for row in report.cases.to_dict("records")}
    keys = [(block.benchmark, case_id) for block in blocks for case_id in block.case_ids]
    badness = np.concatenate([_badness(block) for block in blocks]) if blocks else np.zeros(0)

    def pictures(key: tuple[str, str]) -> CasePictures:
        case = about[key]
        gt = case["gt_path"] if isinstance(case["gt_path"], str) else None
        return CasePictures(*key, case["lq_path"], gt, list(case["reference_paths"]), outputs.get(key, {}))

    album = build_album(
        (pictures(keys[index]) for index in selection(keys, badness)),
        size=IMAGE_SIZE,
        reference_size=REFERENCE_SIZE,
        max_cases=report.options.max_cases,
        max_characters=int(report.options.max_megabytes * 1e6),
        sha256=report.sha256,
        workers=workers,
    )
    for key, entry in album.cases.items():
        case = about[key]
        files = {"LQ": case["lq_path"], "ground truth": case["gt_path"], **outputs.get(key, {})}
        links = {name: _beside(file, folder) for name, file in files.items() if isinstance(file, str)}
        entry["files"] = {name: link for name, link in links.items() if link}
    return album


def _beside(file: str, folder: Path) -> str | None:
    """Return the address of a workspace's file for a page in its folder ``report``; None where it is elsewhere."""
    if not (folder.parent / "tables").is_dir():
        return None
    link = Path(os.path.relpath(file, folder)).as_posix()
    return None if link.startswith("../../") or Path(link).is_absolute() else quote(link)


def _main_metric(metrics: list[str]) -> str:
    found = metric_of_role(metrics, "fidelity") or metric_of_role(metrics, "identity")
    return found or metric_of_role(metrics, "perception") or metrics[0]


def _scored(block: CaseValues) -> list[str]:
    """Metrics in which a competing method has a value; all of them when there is none at all."""
    known = np.asarray(np.isfinite(block.values[:, block.ranked]).any(axis=(0, 1)))
    return [metric for metric, on in zip(block.metrics, known, strict=True) if on] or block.metrics


def _badness(block: CaseValues) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How badly the competing methods did on each case on average; failures count as the worst value."""
    metric = block.metrics.index(_main_metric(_scored(block)))
    values = (block.filled * block.sign)[:, block.ranked, metric]
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray[Any, np.dtype[np.float64]] = -np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return mean


def _data(report: Report, blocks: Sequence[CaseValues], views: list[Any], album: Album) -> dict[str, Any]:
    board = report.leaderboard
    metrics = sorted({metric for block in blocks for metric in block.metrics})
    largest = board["mean"].abs().groupby(board["metric"]).max()
    methods = list(dict.fromkeys(row.method for view in views for row in view.rows if not row.ceiling))
    # Colours follow the order of the first table, and stay with a method in every plot.
    ceiling = [GROUND_TRUTH] if (board["method"] == GROUND_TRUTH).any() else []
    benchmarks = []
    for block in blocks:
        view = next(view for view in views if view.benchmark == block.benchmark)
        payload = benchmark_payload(block, report.cases, report.features, report.restorations)
        mine = report.analysis.comparisons[report.analysis.comparisons["benchmark"] == block.benchmark]
        payload["comparisons"] = comparison_payload(mine, block.methods, block.metrics)
        payload["board"] = {
            row.method: {
                **{cost: getattr(row, cost) for cost in COSTS},
                "cells": {
                    metric: [c.mean, c.ci_low, c.ci_high, c.rank, c.rank_low, c.rank_high]
                    for metric, c in row.cells.items()
                },
            }
            for row in view.rows
        }
        subgroups = report.subgroups
        payload["subgroups"] = subgroup_payload(
            subgroups[subgroups["benchmark"] == block.benchmark], block.methods, block.metrics
        )
        payload["pictures"] = [album.cases.get((block.benchmark, case_id)) for case_id in block.case_ids]
        payload["main"] = _main_metric(_scored(block))
        # Plots and cases show values of single cases; a distance between whole sets has none.
        scored = scored_metrics(view, block)
        payload["scored"] = scored
        payload["plots"] = Layout(view, scored).payload()
        payload["roles"] = {role: metric_of_role(scored, role) for role in ("identity", "fidelity", "perception")}
        benchmarks.append(payload)
    kinds = {name: (facts.kind or facts.info.name) for name, facts in report.methods.items()}
    return {
        "imageSize": IMAGE_SIZE,
        "referenceSize": REFERENCE_SIZE,
        "copies": copies(report),
        "ceiling": GROUND_TRUTH,
        "baselines": list(report.baselines),
        "lq": next((name for name in report.baselines if kinds.get(name, name) == "lq"), None),
        "alpha": ALPHA,
        "fewPeople": FEW_PEOPLE,
        "methods": methods + ceiling,
        "metrics": {
            metric: {
                "higher": bool(report.directions[metric]),
                "decimals": decimals(float(largest.get(metric, math.nan))),
                "signature": report.signatures.get(metric, ""),
            }
            for metric in metrics
        },
        "benchmarks": benchmarks,
        "features": {name: feature_name(name) for name in report.features.columns},
        "plots": templates() if available() else None,
        "plotsRemedy": REMEDY,
        "plotSizes": SIZES,
        "costs": COSTS,
    }


def _spans(view: Any) -> dict[str, tuple[float, float]]:
    """The range of each metric's intervals over the competing methods: the scale of the whiskers in the table.

    Metrics without any value are left out.
    """
    spans: dict[str, tuple[float, float]] = {}
    for metric in view.metrics:
        cells = [row.cells[metric] for row in view.rows if metric in row.cells and not row.baseline]
        ends = [end for c in cells for end in (c.mean, c.ci_low, c.ci_high) if not math.isnan(end)]
        if ends:
            spans[metric] = (min(ends), max(ends))
    return spans


def _costs(report: Report) -> list[tuple[str, ...]]:
    """Return what each method costs in words: the page's table, and what its plot of work shows."""
    board = report.leaderboard
    found = []
    for name, facts in sorted(report.methods.items()):
        rows = board[board["method"] == name]
        if not len(rows):
            continue
        counts = rows[["parameters", "multiply_adds", "evaluations"]].astype(float).max()
        times = rows[["seconds_per_image", "peak_memory_mb"]].astype(float).max()
        other = "counted for the default options only" if facts.options else "not counted"
        found.append(
            (
                name,
                str(case_references(facts.info)) if counts.notna().any() else "",
                *map(in_words, counts),
                *map(in_words, times),
                report.arrangement.devices.get(name, ""),
                openness(facts.info),
                facts.cost.note if facts.cost else other,
            )
        )
    return found


def _summary(report: Report, blocks: Sequence[CaseValues]) -> list[tuple[str, str]]:
    board = report.leaderboard
    people = {(block.benchmark, int(person)) for block in blocks for person in block.identities}
    largest = max((len({p for b, p in people if b == block.benchmark}) for block in blocks), default=0)
    values = [
        ("methods", board.loc[board["method"] != GROUND_TRUTH, "method"].nunique()),
        ("benchmarks", board["benchmark"].nunique()),
        ("metrics", board.loc[board["mean"].notna(), "metric"].nunique()),
        ("cases", sum(len(block.case_ids) for block in blocks)),
        ("people", largest),
    ]
    return [(name, f"{value:,}".replace(",", "\u202f")) for name, value in values]


def _failures(report: Report) -> list[dict[Hashable, Any]]:
    """Means with failures as the worst value and without them, where the two differ."""
    board = report.leaderboard[["benchmark", "method", "metric", "n", "n_failed"]]
    both = report.analysis.details.merge(board, on=["benchmark", "method", "metric"])
    return both[both["n_failed"] > 0].to_dict("records")


def _provenance(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    import json

    return [
        (str(key), value if isinstance(value, str) else json.dumps(value, indent=1, default=str, ensure_ascii=False))
        for key, value in facts.items()
    ]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
