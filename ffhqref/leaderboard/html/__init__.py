"""The report as one self-contained HTML page that works from disk."""

from ffhqref.leaderboard.html.page import HtmlFormat, PageFacts, render_html

__all__ = ["HtmlFormat", "PageFacts", "render_html"]
