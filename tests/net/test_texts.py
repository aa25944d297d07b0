"""What the command line says: help, names, the composed config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ffhqref.config import source

from .conftest import check_text

if TYPE_CHECKING:
    from ..command import Command

PIPELINES = (
    "run", "build", "audit", "degrade", "restore", "score", "report", "train", "prepare", "synthesize", "faceme",
    "validate", "evaluate",
)  # fmt: skip


def choices(group: str) -> str:
    """Return all names of a config group as an override."""
    return f"{group}=[{','.join(source.names(group))}]"


CONFIGS = {
    "job": (),
    "quick": ("experiment=quick",),
    "faceme_tiny": ("experiment=faceme_tiny",),
    "all": (
        "dataset=ffhq", "embedder=insightface", "engine=ray", "train=paper", "synthesis=arc2face",
        choices("benchmark"), choices("restorer"), choices("metric"),
    ),
}  # fmt: skip


def said(bare: tuple[Command, dict[str, str]], *arguments: str) -> str:
    command, env = bare
    done = command(*arguments, env=env)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    home = env["HOME"]
    text = done.stdout.replace(home, "HOME").replace(str(Path.cwd()), "CWD")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("name", CONFIGS)
def test_config(bare: tuple[Command, dict[str, str]], name: str) -> None:
    check_text(f"texts/cfg-{name}.yaml", said(bare, "run", "--cfg", "job", *CONFIGS[name]))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_help_of_a_pipeline(bare: tuple[Command, dict[str, str]], pipeline: str) -> None:
    check_text(f"texts/help-{pipeline}.txt", said(bare, pipeline, "--help"))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("help", ("--help",)),
        ("list", ("list",)),
        ("help-zoo", ("zoo", "--help")),
        ("help-weights", ("weights", "--help")),
        *(
            (f"help-weights-{action}", ("weights", action, "--help"))
            for action in ("list", "fetch", "verify", "path", "convert")
        ),
    ],
)
def test_text(bare: tuple[Command, dict[str, str]], name: str, arguments: tuple[str, ...]) -> None:
    check_text(f"texts/{name}.txt", said(bare, *arguments))
