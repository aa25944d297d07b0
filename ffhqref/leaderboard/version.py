"""Which version of the report's code and files this is, so that an edited template makes another page."""

from __future__ import annotations

from pathlib import Path

from ffhqref.core.hashing import content_key, sha256_file

SUFFIXES = (".py", ".js", ".css", ".j2", ".csv")


def renderer_version(folder: Path | None = None) -> str:
    """Return a hash over what makes leaderboards and pages: code, templates, scripts, styles, published numbers.

    Args:
        folder: theirs; None: this package.
    """
    folder = folder or Path(__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    return content_key([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files])
