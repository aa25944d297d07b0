"""The config: every option composes, and every name in it exists."""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from omegaconf import OmegaConf

import ffhqref.datasets
import ffhqref.faces
import ffhqref.metrics
import ffhqref.restorers
import ffhqref.synthesis
from ffhqref.cases.benchmark import Benchmark
from ffhqref.cli.main import PIPELINES, main
from ffhqref.config import source
from ffhqref.config.run import read_config
from ffhqref.degradation import DEGRADATIONS
from ffhqref.metrics.jury import JUDGES

from ..command import REPOSITORY

CONF = REPOSITORY / "conf"


def composed(*overrides):
    return OmegaConf.to_container(source.compose(overrides), resolve=True)


def options(group):
    return source.names(group) if group != "experiment" else sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("group", ["dataset", "embedder", "engine", "experiment", "synthesis"])
def test_every_option_composes(group):
    for name in options(group):
        assert composed(f"{group}={name}")


LISTS = {"ids_jury": list(JUDGES)}
"""Options that stand for several."""


@pytest.mark.parametrize("group", ["benchmark", "restorer", "metric"])
def test_every_listed_option_composes_alone_and_together(group):
    for name in options(group):
        assert list(composed(f"{group}=[{name}]")[group]) == LISTS.get(name, [name])
    single = [name for name in options(group) if name not in LISTS]
    assert list(composed(f"{group}=[{','.join(single)}]")[group]) == single


def test_the_order_of_a_list_is_the_order_of_the_run():
    assert list(composed("restorer=[reference,lq]")["restorer"]) == ["reference", "lq"]


def test_an_experiment_wins_over_the_common_keys():
    assert composed("experiment=quick")["limit"] == 6
    assert composed("experiment=quick", "limit=2")["limit"] == 2
    assert composed("experiment=faceme_tiny")["train"]["faceme"]["references"] == "synthetic"


def test_the_paper_config_takes_no_faces_of_the_tiny_one(monkeypatch):
    from ffhqref.zoo.faceme import faces

    monkeypatch.setattr(faces, "_insightfaces", lambda detector=None, arcface=None, *, largest: (detector, arcface))
    assert faces.make_finder(composed("train=paper")["train"]["faceme"]["faces"]) == (None, None)


def test_an_onnx_embedder_works_where_the_run_does_unless_named():
    from ffhqref.config.context import embedder_options

    def place(*overrides):
        options = embedder_options(read_config(composed(*overrides)))[2]
        return options.get("device"), options.get("fall_back")

    assert place("embedder=onnx", "device=cuda:1") == ("cuda:1", True)
    assert place("embedder=insightface", "device=cpu") == ("cpu", True)
    assert place("embedder=onnx") == ("auto", True)
    assert place("embedder=onnx", "device=mps") == ("auto", True)
    assert place("embedder=onnx", "device=cpu", "embedder.device=cuda") == ("cuda", None)
    assert place("embedder=dlib", "device=cuda") == (None, None)


def test_names_in_the_config_exist():
    assert {composed(f"dataset={name}")["dataset"]["name"] for name in options("dataset")} <= set(
        ffhqref.datasets.DATASETS
    )
    assert {composed(f"embedder={name}")["embedder"]["name"] for name in options("embedder")} <= set(
        ffhqref.faces.EMBEDDERS
    )
    assert set(options("metric")) - set(LISTS) <= set(ffhqref.metrics.METRICS)
    for name in options("synthesis"):
        assert composed(f"synthesis={name}")["synthesis"]["renderer"]["name"] in ffhqref.synthesis.RENDERERS
    for name in options("restorer"):
        settings = composed(f"restorer=[{name}]")["restorer"][name] or {}
        assert settings.get("name", name) in ffhqref.restorers.RESTORERS


def test_benchmarks_are_valid_once_their_folder_is_named(tmp_path):
    for name in options("benchmark"):
        settings = composed(f"benchmark=[{name}]")["benchmark"][name]
        for key in ("lq_folder", "reference_folder"):
            if key in settings:
                settings[key] = str(tmp_path)
        made = Benchmark.of(name, settings)
        assert made.degradation is None or made.degradation in DEGRADATIONS


module_found_again = pytest.mark.filterwarnings("ignore:'pipelines:RuntimeWarning")


def run_module(name, *arguments):
    with mock.patch.object(sys, "argv", [name, *arguments]), pytest.raises(SystemExit) as end:
        runpy.run_module(f"pipelines.{name}", run_name="__main__")
    return end.value.code


@module_found_again
@pytest.mark.parametrize(
    ("name", "arguments"),
    [*((name, ["--help"]) for name in PIPELINES), ("run", ["--cfg", "job"]), ("train", ["--cfg", "job", "seed=7"])],
)
def test_a_module_says_what_the_command_says(name, arguments, monkeypatch, capfd):
    monkeypatch.syspath_prepend(REPOSITORY)
    assert main([name, *arguments]) == 0
    said = capfd.readouterr()
    assert run_module(name, *arguments) == 0
    assert capfd.readouterr() == said
    assert len(said.out) > 200


@module_found_again
def test_a_module_does_what_the_command_does_and_no_class_exists_twice(built, monkeypatch, capfd):
    monkeypatch.syspath_prepend(REPOSITORY)
    monkeypatch.chdir(built.parent)
    assert run_module("validate", "root=w") == main(["validate", "root=w"]) == 0
    first, second = np.array_split(capfd.readouterr().out.splitlines(), 2)
    assert list(first) == list(second)
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] in ("ffhqref", "pipelines")]
    ours = {item for module in modules for item in vars(module).values() if inspect.isclass(item)}
    written = Counter(
        (inspect.getsourcefile(sys.modules[item.__module__]), item.__qualname__)
        for item in ours
        if item.__module__.split(".")[0] in ("ffhqref", "pipelines")
    )
    assert len(written) > 100
    assert [place for place, count in written.items() if count > 1] == []


def test_modules_run_from_a_checkout_as_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.run", "rot=1"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown key 'rot'" in done.stderr


def printed_commands():
    """Return the commands that the README and the docs print, as lists of arguments."""
    found = []
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]:
        for block in re.findall(r"```\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if not line.startswith("ffhqref "):
                    continue
                words = shlex.split(line, comments=True)
                if words[1] not in ("weights", "list") and "..." not in words:
                    found.append(words[2:])
    return found


@pytest.mark.parametrize("overrides", printed_commands(), ids=" ".join)
def test_every_printed_command_has_a_config(overrides):
    assert composed(*(word for word in overrides if not word.startswith("-")))
