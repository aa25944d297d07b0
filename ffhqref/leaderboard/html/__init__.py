"""The leaderboard as one self-contained HTML page that works from disk."""

from ffhqref.leaderboard.html.page import HtmlOptions, HtmlSummary, ReportData, render_html

__all__ = ["HtmlOptions", "HtmlSummary", "ReportData", "render_html"]
