"""The toy packages, installed as other packages are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ..command import REPOSITORY, Command
from ..pipelines.conftest import few_faces  # noqa: F401

TOYS = {
    "toy_dataset": ("datasets", "faces"),
    "toy_embedder": ("embedders", "Grey"),
    "toy_crop": ("crops", "mirrored"),
    "toy_degradation": ("degradations", "BLUR"),
    "toy_benchmark": ("benchmarks", "TINY"),
    "toy_engine": ("engines", "Counting"),
    "toy_metric": ("metrics", "Difference"),
    "toy_restorer": ("restorers", "Shade"),
}
"""Package of one file to its entry point group and what it offers."""


def install(site: Path, package: str, group: str, target: str) -> None:
    """Write what pip writes for a package with one entry point."""
    facts = site / f"{package}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[ffhqref.{group}]\n{package} = {package}:{target}\n")


class WithToys(Command):
    """The command line of an environment in which the toy packages are installed."""

    def __init__(self, folder: Path, site: Path) -> None:
        super().__init__(folder)
        self.site = site

    def start(self, *arguments, env=None, terminal=False):
        """Start the command."""
        path = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(self.site)])}
        return super().start(*arguments, env={**path, **(env or {})}, terminal=terminal)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> WithToys:
    """The command line with all toys."""
    site = tmp_path_factory.mktemp("site")
    for package, (group, target) in TOYS.items():
        install(site, package, group, target)
        shutil.copy(Path(__file__).parent / "toys" / f"{package}.py", site)
    return WithToys(tmp_path_factory.mktemp("cwd"), site)
