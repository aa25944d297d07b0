"""Figures of a report for papers: the page's specifications as SVG and PDF files."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.files import write_atomic
from ffhqref.leaderboard.formats import ReportFormat, Written
from ffhqref.leaderboard.plots.layout import COSTS, SIZES, Layout, span
from ffhqref.leaderboard.plots.specs import REMEDY, available, fill, templates
from ffhqref.leaderboard.statistics import cluster_sums
from ffhqref.leaderboard.view import arrow, feature_name, metric_of_role, scored_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ffhqref.leaderboard.case_values import CaseValues
    from ffhqref.leaderboard.report import Report

PALETTE = (
    "#0a6660", "#c2500f", "#4656b8", "#a32a72", "#5f7310", "#86552a", "#1f7fb3", "#7546c0", "#a87400", "#4d555c",
)  # fmt: skip
COLOURS = {"ink": "#1b1f23", "muted": "#565e66", "line": "#999999", "hair": "#e4e4de"}

Spec = dict[str, Any]


class FiguresFormat(ReportFormat):
    """Each plot of the page as ``figures/NAME.svg`` and ``.pdf``, for the metrics that the page shows first."""

    def write(self, report: Report, folder: Path) -> Written:
        """Write the figures; say what is missing where the packages that draw them are not installed."""
        if not available():
            return Written((), (f"figures: not written: {REMEDY}",))
        import vl_convert

        files = []
        for name, spec in figures(report):
            path = folder / "figures" / name
            svg = vl_convert.vegalite_to_svg(spec)
            write_atomic(path.with_name(f"{name}.svg"), svg.encode())
            write_atomic(path.with_name(f"{name}.pdf"), vl_convert.svg_to_pdf(svg))
            files += [path.with_name(f"{name}.svg"), path.with_name(f"{name}.pdf")]
        return Written(tuple(files))


def figures(report: Report) -> Iterator[tuple[str, Spec]]:
    """Yield name and specification of each figure of a report."""
    views = report.tables
    order = list(dict.fromkeys(row.method for view in views for row in view.rows if not row.ceiling))
    colours = {method: PALETTE[place % len(PALETTE)] for place, method in enumerate(order)}
    blocks = {block.benchmark: block for block in report.blocks}
    for view in views:
        block = blocks.get(view.benchmark)
        metrics = [] if block is None else scored_metrics(view, block)
        if block is None or not metrics:
            continue
        drawn = _Drawn(report, block, Layout(view, metrics), colours)
        roles = [metric_of_role(metrics, role) for role in ("fidelity", "identity", "perception")]
        x = roles[0] or roles[1] or metrics[0]
        y = next((metric for metric in (roles[2], roles[1], *metrics) if metric not in (None, x)), None)
        name = re.sub(r"[^a-z0-9]+", "-", view.benchmark.lower()).strip("-")
        if y is not None:
            yield f"{name}-{x}-{y}", drawn.scatter(x, y)
        for cost in COSTS:
            if drawn.layout.points(cost, x):
                yield f"{name}-{x}-{cost.replace('_', '-')}", drawn.cost(cost, x)
        mine = report.subgroups[report.subgroups["benchmark"] == view.benchmark]
        for feature in sorted(mine["feature"].unique()):
            yield f"{name}-{x}-by-{feature.replace('_', '-')}", drawn.groups(x, feature)
        yield f"{name}-{x}-people", drawn.people(x)


class _Drawn:
    """Specifications of one benchmark, filled with data."""

    def __init__(self, report: Report, block: CaseValues, layout: Layout, colours: dict[str, str]) -> None:
        self.report, self.block, self.layout, self.colours = report, block, layout, colours

    def _filled(self, template: str, datasets: dict[str, Any], **values: Any) -> Spec:
        width, height = SIZES["wide"]
        both = {**COLOURS, "width": width, "height": height, "datasets": datasets, **values}
        spec: Spec = fill(templates()[template], both)
        return spec

    def _title(self, metric: str) -> str:
        return f"{metric} {arrow(self.layout.higher[metric])}"

    def _limits(self, axis: str, metric: str) -> dict[str, Any]:
        of = self.layout.axes[metric]
        low, high = of.range
        return {
            f"{axis}low": low, f"{axis}high": high, f"{axis}reverse": str(of.reverse).lower(),
            f"{axis}title": self._title(metric),
        }  # fmt: skip

    def scatter(self, x: str, y: str) -> Spec:
        """Return one metric against another."""
        labels, front = self.layout.labels(x, y, "wide"), self.layout.front(x, y)
        points = []
        for row in self.layout.with_values(x, y):
            across, up = row.cells[x], row.cells[y]
            points.append(
                {
                    **self._look(row.method, bool(across.rank and up.rank)),
                    "x": across.mean, "xl": _known(across.ci_low), "xh": _known(across.ci_high),
                    "y": up.mean, "yl": _known(up.ci_low), "yh": _known(up.ci_high),
                    **_label(labels.get(row.method)),
                    "front": front.index(row.method) if row.method in front else None,
                }
            )  # fmt: skip
        title = f"{self._title(y)} against {self._title(x)}"
        return self._filled(
            "scatter", {"points": points}, description=title, **self._limits("x", x), **self._limits("y", y)
        )

    def cost(self, x: str, y: str) -> Spec:
        """Return a metric against a cost of `COSTS`."""
        labels, front = self.layout.labels(x, y, "wide"), self.layout.front(x, y)
        points = []
        for row, across, _ in self.layout.points(x, y):
            up = row.cells[y]
            points.append(
                {
                    **self._look(row.method, bool(up.rank)), "x": across, "xl": None, "xh": None,
                    "y": up.mean, "yl": _known(up.ci_low), "yh": _known(up.ci_high),
                    **_label(labels.get(row.method)),
                    "front": front.index(row.method) if row.method in front else None,
                }
            )  # fmt: skip
        low, high = self.layout.costs[x].range
        return self._filled(
            "cost", {"points": points}, description=f"{self._title(y)} against {COSTS[x]}", xtitle=COSTS[x],
            xlow=low, xhigh=high, xreverse="false", **self._limits("y", y),
        )  # fmt: skip

    def groups(self, metric: str, feature: str) -> Spec:
        """Return means within groups of cases."""
        means = self.report.subgroups
        means = means[
            (means["benchmark"] == self.block.benchmark) & (means["feature"] == feature) & (means["metric"] == metric)
        ]
        means = means[means["method"].isin(self.colours)]
        sizes = means.groupby("order")["n"].max()
        few = means["method"].nunique() <= 3
        rows = [
            {
                **self._look(row["method"], ranked=True), "group": f"{row['group']}|n {sizes[row['order']]}",
                "order": row["order"], "mean": row["mean"], "dashed": False,
                "low": _known(row["low"]) if few else None, "high": _known(row["high"]) if few else None,
            }
            for row in means.to_dict("records")
        ]  # fmt: skip
        low, high = span(value for row in rows for value in (row["mean"], row["low"], row["high"]) if value is not None)
        return self._filled(
            "groups", {"groups": rows}, xtitle=feature_name(feature), ytitle=self._title(metric), ylow=low, yhigh=high,
            description=f"{metric} by {feature_name(feature)}",
        )  # fmt: skip

    def people(self, metric: str) -> Spec:
        """Return the spread over people: one dot a person, box and median."""
        k = self.block.metrics.index(metric)
        rows = []
        for j, method in enumerate(self.block.methods):
            sums, counts = cluster_sums(self.block.measured[:, [j], k], self.block.identities)
            means = np.sort((sums[counts > 0] / counts[counts > 0]).ravel())
            if method in self.colours and len(means) and np.isfinite(means).all():
                rows.append((method, means))
        rows.sort(key=lambda row: (-self.block.sign[k] * float(np.median(row[1])), row[0]))
        boxes, dots = [], []
        for order, (method, means) in enumerate(rows):
            q1, q2, q3 = (float(value) for value in np.quantile(means, [0.25, 0.5, 0.75]))
            look = {**self._look(method, ranked=True), "order": order}
            boxes.append({**look, "q1": q1, "q2": q2, "q3": q3, "box": 0.25})
            dots += [{**look, "value": float(value), "jitter": ((7 * i) % 9 - 4) / 6} for i, value in enumerate(means)]
        low, high = span((dot["value"] for dot in dots), room=0.03)
        return self._filled(
            "people", {"boxes": boxes, "dots": dots}, xtitle=self._title(metric), xlow=low, xhigh=high,
            description=f"Spread of {metric} over people",
        )  # fmt: skip

    def _look(self, method: str, ranked: bool) -> dict[str, Any]:
        colour = self.colours[method]
        return {
            "method": method, "colour": colour, "fill": colour if ranked else "#ffffff", "opacity": 1.0,
            "whisker": 0.45, "told": method,
        }  # fmt: skip


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _label(place: list[float] | None) -> dict[str, float | None]:
    x, y = place or (None, None)
    return {"lx": x, "ly": y}
