"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from ..command import REPOSITORY


def modules() -> list[str]:
    """Return the modules with an example; the others need not be imported."""
    found = [path for path in (REPOSITORY / "ffhqref").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    return sorted(module_name(path) for path in found)


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("ffhqref", "pipelines"):
            raise
        pytest.skip(f"{name} needs the package '{error.name}', which is not installed")
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0
