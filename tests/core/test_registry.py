"""The registry: lazy, with suggestions, open to other packages."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ffhqref.core.errors import ConfigError, DependencyError
from ffhqref.core.registry import Registry


def test_entries_load_when_asked_for():
    registry: Registry[object] = Registry("thing", {"path": "pathlib:Path", "gone": "no_such_module_here:x"})
    assert registry.names() == ["gone", "path"]
    assert registry.get("path") is importlib.import_module("pathlib").Path
    with pytest.raises(ConfigError, match="no module 'no_such_module_here'"):
        registry.get("gone")


def test_unknown_name_gets_the_nearest():
    registry: Registry[object] = Registry("restorer", {"bicubic": "a:b", "lq": "a:b"})
    with pytest.raises(ConfigError, match=r"unknown restorer 'bicubik'\. Did you mean 'bicubic'\? Known: b"):
        registry.get("bicubik")


def test_missing_dependency_is_told_from_missing_module(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import a_package_nobody_has\nx = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DependencyError, match="needs the package 'a_package_nobody_has'"):
        Registry("thing", {"t": "needs_more:x"}).get("t")


def install_plugin(folder, group, name, target, code=""):
    (folder / "their_package.py").write_text(code)
    info = folder / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")


def test_other_packages_add_names(tmp_path, monkeypatch):
    install_plugin(tmp_path, "ffhqref.tests", "theirs", "their_package:thing", "thing = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[object] = Registry("thing", {"ours": "pathlib:Path"}, "ffhqref.tests")
    assert registry.names() == ["ours", "theirs"]
    assert registry.get("theirs") == 42


def test_a_plugin_that_does_not_import_is_named(tmp_path, monkeypatch):
    install_plugin(tmp_path, "ffhqref.tests", "broken", "their_package:thing", "raise RuntimeError('boom')\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("their_package", None)
    with pytest.raises(ConfigError, match=r"'broken' \(entry point .*\) does not import: RuntimeError: boom"):
        Registry("thing", {}, "ffhqref.tests").get("broken")


def test_a_plugin_cannot_take_a_built_in_name(tmp_path, monkeypatch):
    install_plugin(tmp_path, "ffhqref.tests", "ours", "their_package:thing", "thing = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="has the name of a built-in one"):
        Registry("thing", {"ours": "pathlib:Path"}, "ffhqref.tests").names()


@pytest.mark.parametrize(
    "module",
    ["ffhqref", "ffhqref.restorers", "ffhqref.metrics", "ffhqref.faces", "ffhqref.datasets", "ffhqref.cli.main"],
)
def test_imports_are_light(module):
    heavy = ("torch", "pandas", "sklearn", "scipy", "diffusers", "pyiqa", "matplotlib", "skimage", "onnxruntime")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
