"""Experiment trackers get every finite number, and what cannot work is told before any work."""

from __future__ import annotations

import math

import pytest

from ffhqref.core.errors import ConfigError, DependencyError
from ffhqref.core.trackers import PACKAGES, Trackers


def scalars(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_numbers_that_were_sent(tmp_path):
    pytest.importorskip("tensorboard")
    trackers = Trackers(["tensorboard", "tensorboard"], tmp_path / "logs", {"seed": 1, "train": {"steps": [1, 2]}})
    for step in (1, 2):
        trackers.log({"vqgan/loss": 0.5 / step, "vqgan/broken": math.nan, "severe/lq/psnr": math.inf}, step)
    trackers.close()
    assert scalars(tmp_path / "logs" / "ffhqref") == {"vqgan/loss": [(1, 0.5), (2, 0.25)]}


def test_nothing_is_started_before_there_is_a_number(tmp_path):
    pytest.importorskip("tensorboard")
    trackers = Trackers(["tensorboard"], tmp_path / "logs", {})
    trackers.log({"a": math.nan})
    trackers.close()
    assert not (tmp_path / "logs").exists()


def test_mistakes_are_told_at_once(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"no 'tensorbord'\. Did you mean 'tensorboard'"):
        Trackers(["tensorbord"], tmp_path, {})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(DependencyError, match="pip install wandb"):
        Trackers(["wandb"], tmp_path, {})


def test_the_trackers_are_those_of_accelerate():
    tracking = pytest.importorskip("accelerate.tracking")
    assert {str(name) for name in tracking.LOGGER_TYPE_TO_CLASS} == set(PACKAGES)
