"""Aggregation, statistics, published numbers and renderers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffhqref.core.registry import Registry

if TYPE_CHECKING:
    from ffhqref.leaderboard.formats import ReportFormat

FORMATS: Registry[type[ReportFormat]] = Registry(
    "report format",
    {
        "csv": "ffhqref.leaderboard.formats:CsvFormat",
        "figures": "ffhqref.leaderboard.plots.figures:FiguresFormat",
        "html": "ffhqref.leaderboard.html:HtmlFormat",
        "latex": "ffhqref.leaderboard.formats:LatexFormat",
        "markdown": "ffhqref.leaderboard.formats:MarkdownFormat",
    },
    "ffhqref.report_formats",
)
