"""docs/config.md and the help of pipelines come from the models."""

from __future__ import annotations

import pytest

from ffhqref.cli.main import PIPELINES, main
from ffhqref.config import reference

from ..command import REPOSITORY


def test_the_page_is_current():
    page = (REPOSITORY / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == reference.markdown(), "python -m ffhqref.config.reference > docs/config.md"


def test_nearly_every_key_has_a_meaning():
    rows = list(reference.rows())
    assert {"report.failures", "build.max_distance", "train.faceme.side"} <= {key for key, *_ in rows}
    assert sum(not meaning for *_, meaning in rows) < 15


@pytest.mark.parametrize("name", PIPELINES)
def test_the_help_of_a_pipeline_names_its_keys(name, capsys):
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"ffhqref {name}: {PIPELINES[name]}")
    assert "  root=workspace" in said
    assert ("report.failures" in said) == ("report" in reference.KEYS[name])
