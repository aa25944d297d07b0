"""Templates of the plots, made with Altair.

Strings such as ``"@xlow"`` stand for what `fill` puts in their place: data, titles, ranges, sizes, colours. Sizes and
ranges are fixed, so that the places of labels are known before anything is drawn.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ffhqref.core.errors import DependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import altair as alt

    Chart = alt.LayerChart | alt.FacetChart

REMEDY = "plots need the packages altair and vl-convert-python: pip install 'ffhqref[plots]'"


def available() -> bool:
    """Return whether the packages that draw plots are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("altair", "vl_convert"))


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Return a template with values in the place of strings that are ``@`` and their name.

    >>> fill({"title": "@x", "domain": ["@low", 1]}, {"x": "psnr", "low": 0})
    {'title': 'psnr', 'domain': [0, 1]}
    """
    if isinstance(template, dict):
        return {key: fill(item, values) for key, item in template.items()}
    if isinstance(template, list):
        return [fill(item, values) for item in template]
    if isinstance(template, str) and template[:1] == "@" and template[1:] in values:
        return values[template[1:]]
    return template


@cache
def templates() -> dict[str, dict[str, Any]]:
    """Return the Vega-Lite specification of each plot by name.

    Raises:
        DependencyError: Altair is not installed.
    """
    if not available():
        raise DependencyError(REMEDY)
    return {
        "scatter": _finished(_scatter("linear")),
        "cost": _finished(_scatter("log")),
        "groups": _finished(_groups()),
        "people": _finished(_people(), height=None),
        "histogram": _finished(_histogram()),
    }


def _finished(chart: Chart, height: str | None = "@height") -> dict[str, Any]:
    """Return a chart as a specification with the look that all share and its size and data to be filled in."""
    chart = (
        chart.configure(background="transparent", font="Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="@muted",
            titleColor="@ink",
            gridColor="@hair",
            domainColor="@line",
            tickColor="@line",
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight=600,
            titlePadding=8,
        )
    )
    spec: dict[str, Any] = chart.to_dict()
    spec |= {"width": "@width", "datasets": "@datasets", "description": "@description"}
    if height:
        spec["height"] = height
    return spec


def _scatter(kind: Literal["linear", "log"]) -> Chart:
    import altair as alt

    axis = (
        alt.Axis(format="~g", tickCount=5, labelOverlap=True, grid=False)
        if kind == "log"
        else alt.Axis(tickCount=6, labelOverlap=True)
    )

    def x(field: str) -> alt.X:
        scale = alt.Scale(type=kind, domain=["@xlow", "@xhigh"], nice=False, reverse=alt.ExprRef("@xreverse"))
        if kind == "linear":
            scale.zero = False
        return alt.X(f"{field}:Q", title="@xtitle", scale=scale, axis=axis)

    def y(field: str) -> alt.Y:
        scale = alt.Scale(domain=["@ylow", "@yhigh"], nice=False, zero=False, reverse=alt.ExprRef("@yreverse"))
        return alt.Y(f"{field}:Q", title="@ytitle", scale=scale, axis=alt.Axis(tickCount=6))

    base = alt.Chart(alt.NamedData("points"))
    stroke = alt.Stroke("colour:N", scale=None)
    faint = alt.Opacity("opacity:Q", scale=None)
    lines = alt.Opacity("whisker:Q", scale=None)
    across = base.mark_rule(aria=False).encode(x("xl"), y("y"), stroke, lines, x2="xh")
    up = base.mark_rule(aria=False).encode(x("x"), y("yl"), stroke, lines, y2="yh")
    front = (
        base.transform_filter("isValid(datum.front)")
        .mark_line(strokeDash=[4, 4], color="@muted", strokeWidth=1, aria=False)
        .encode(x("x"), y("y"), order="front:Q")
    )
    points = base.mark_point(size=80, strokeWidth=2, opacity=1).encode(
        x("x"), y("y"), stroke, faint, fill=alt.Fill("fill:N", scale=None), tooltip="told:N", description="told:N"
    )
    labels = (
        base.transform_filter("isValid(datum.lx)")
        .mark_text(fontSize=12, fontWeight=500, baseline="middle", align="center", color="@ink", aria=False)
        .encode(x("lx"), y("ly"), faint, text="method:N")
    )
    return alt.layer(front, across, up, points, labels)


def _groups() -> Chart:
    import altair as alt

    def y(field: str) -> alt.Y:
        scale = alt.Scale(domain=["@ylow", "@yhigh"], nice=False, zero=False)
        return alt.Y(f"{field}:Q", title="@ytitle", scale=scale, axis=alt.Axis(tickCount=6))

    # A label is "group|n 12": two lines.
    axis = alt.Axis(labelAngle=0, labelExpr="split(datum.label, '|')", grid=True)
    x = alt.X("group:N", title="@xtitle", sort=alt.EncodingSortField("order", op="min"), axis=axis)
    base = alt.Chart(alt.NamedData("groups"))
    colour = alt.Color("colour:N", scale=None)
    faint = alt.Opacity("opacity:Q", scale=None)
    dash = alt.condition("datum.dashed", alt.value([5, 3]), alt.value([1, 0]))
    lines = base.mark_line(strokeWidth=2, aria=False).encode(
        x, y("mean"), colour, faint, detail="method:N", strokeDash=dash
    )
    whiskers = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(opacity=0.5, aria=False)
        .encode(x, y("low"), colour, y2="high")
    )
    points = base.mark_circle(size=50).encode(x, y("mean"), colour, faint, tooltip="told:N", description="told:N")
    return alt.layer(lines, whiskers, points)


def _people() -> Chart:
    import altair as alt

    def x(field: str) -> alt.X:
        scale = alt.Scale(domain=["@xlow", "@xhigh"], nice=False, zero=False)
        return alt.X(f"{field}:Q", title="@xtitle", scale=scale, axis=alt.Axis(tickCount=6))

    y = alt.Y(
        "method:N", title=None, sort=alt.EncodingSortField("order", op="min"),
        axis=alt.Axis(labelColor="@ink", labelLimit=160, ticks=False, domain=False, grid=False),
    )  # fmt: skip
    colour = alt.Color("colour:N", scale=None)
    faint = alt.Opacity("opacity:Q", scale=None)
    boxes = alt.Chart(alt.NamedData("boxes"))
    dots = alt.Chart(alt.NamedData("dots"))
    spread = alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-1, 1]))
    chart = alt.layer(
        boxes.mark_bar(height=18, cornerRadius=3).encode(
            x("q1"), y, colour, alt.Opacity("box:Q", scale=None), x2="q3", tooltip="told:N", description="told:N"
        ),
        boxes.mark_tick(thickness=2.5, height=18, aria=False).encode(x("q2"), y, colour, faint, tooltip="told:N"),
        dots.mark_circle(size=12, aria=False).encode(x("value"), y, colour, faint, yOffset=spread),
    )
    return chart.properties(height=alt.Step(28))


def _histogram() -> Chart:
    import altair as alt

    base = alt.Chart(alt.NamedData("bars"))
    x = alt.X("from:Q", title="@xtitle", scale=alt.Scale(nice=False, zero=False), axis=alt.Axis(tickCount=6))
    bars = base.mark_rect(opacity=0.85).encode(
        x, alt.Y("count:Q", title="cases", axis=alt.Axis(tickMinStep=1, tickCount=4)),
        alt.Color("colour:N", scale=None), x2="to:Q", y2="base:Q", tooltip="told:N", description="told:N",
    )  # fmt: skip
    zero = alt.Chart(alt.NamedData("zero")).mark_rule(color="@ink", aria=False).encode(alt.X("at:Q", title="@xtitle"))
    return alt.layer(bars, zero)
