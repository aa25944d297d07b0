"""What the package declares: every import has its requirement, every requirement its pin, every Python its promise."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import ffhqref

from .conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DYNAMIC = {"import_module", "find_spec", "importorskip", "optional"}
"""Functions whose first argument is the name of a module."""
UNLISTED = {"dlib": "dlib-bin"}
"""Modules that the metadata of their distribution leaves out."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in requirements} - {"ffhqref"}


EXTRAS = {extra: names(wanted) for extra, wanted in PROJECT["optional-dependencies"].items()}
FOR_DEVELOPERS = {"dev", "docs", "hub"}
FOR_USERS = names(PROJECT["dependencies"]).union(*(EXTRAS[extra] for extra in EXTRAS.keys() - FOR_DEVELOPERS))
DEVELOPMENT = set().union(*(EXTRAS[extra] for extra in FOR_DEVELOPERS))


def imported_by(node: ast.AST) -> Iterator[str]:
    """Yield the modules that one statement or call imports, by whatever means."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        yield node.module
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in DYNAMIC and isinstance(node.args[0].value, str) and not node.args[0].value.startswith("."):
            yield node.args[0].value


def third_party(*folders: str) -> dict[str, Path]:
    """Return each foreign top-level package that the sources of these folders import, with a file that does."""
    found = {}
    sources = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    ours = {path.stem for path in sources} | {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
    for path in sources:
        text = path.read_text(encoding="utf-8")
        for module in (module for node in ast.walk(ast.parse(text)) for module in imported_by(node)):
            if f'"{module}.py"' not in text:  # a module that a test writes
                found[module.partition(".")[0]] = path.relative_to(REPOSITORY)
    return {name: path for name, path in found.items() if name not in ours and name not in sys.stdlib_module_names}


def undeclared(imports: dict[str, Path], declared: set[str]) -> list[str]:
    distributions = packages_distributions()
    return [
        f"{path} imports {name}"
        for name, path in sorted(imports.items())
        if not declared & {normal(found) for found in distributions.get(name, [UNLISTED.get(name, name)])}
    ]


def test_every_import_of_the_product_is_declared():
    assert undeclared(third_party("ffhqref", "pipelines"), FOR_USERS) == []


def test_every_import_of_tests_and_benchmarks_is_declared():
    assert undeclared(third_party("tests", "benchmarks"), FOR_USERS | DEVELOPMENT) == []


def test_all_takes_every_extra_for_users():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.split(r"[\[\],]", everything)[1:-1]) == set(EXTRAS) - {"all", *FOR_DEVELOPERS}


def test_every_requirement_is_pinned():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = names([line for line in lines if line and not line.startswith("#")])
    assert sorted((FOR_USERS | DEVELOPMENT) - pinned) == []


def test_the_version_has_one_place():
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(rc\d+|\.dev\d+)?", ffhqref.__version__)
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE).group(1) == ffhqref.__version__


@pytest.mark.parametrize("file", [".github/workflows/ci.yml", "CONTRIBUTING.md"])
def test_promised_pythons_are_those_that_are_named(file):
    prefix = "Programming Language :: Python :: 3."
    promised = {f"3.{entry.removeprefix(prefix)}" for entry in PROJECT["classifiers"] if entry.startswith(prefix)}
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    assert promised <= set(re.findall(r"\b3\.\d{2}\b", text))
    assert PROJECT["requires-python"] == f">={min(promised)}"
