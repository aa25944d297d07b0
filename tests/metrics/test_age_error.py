"""Age error: with a network whose answer is known in closed form, and with a plug-in's model."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.registry import Registry
from ffhqref.faces import ages
from ffhqref.metrics import MetricBatch, MetricRuntime, make_metric
from ffhqref.metrics.scoring import resolve_metrics

from ..onnx_networks import genderage


def years_of(value):
    """What insightface makes of a pixel value: (x - 127.5) / 128, times 100, in whole years."""
    return round((value - 127.5) / 128 * 100)


def grey(*values, side=512):
    return torch.stack([torch.full((3, side, side), value / 255) for value in values])


@pytest.fixture
def network(tmp_path):
    pytest.importorskip("insightface")
    pytest.importorskip("onnx")
    return genderage(tmp_path / "genderage.onnx")


@pytest.mark.parametrize("side", [512, 300])
def test_it_is_the_difference_of_two_ages_without_sign(network, side):
    metric = make_metric("age_error", path=network)
    found = metric(MetricBatch(output=grey(200, 160, 170, side=side), gt=grey(180, 190, 170, side=side)))
    expected = [abs(years_of(a) - years_of(b)) for a, b in ((200, 180), (160, 190), (170, 170))]
    assert found.tolist() == expected
    assert metric.higher_is_better is False


def test_the_signature_names_the_file_and_workers_load_their_own(network):
    metric = make_metric("age_error", runtime=MetricRuntime(), model="insightface", path=str(network))
    assert sha256_file(network)[:12] in metric.signature
    again = pickle.loads(pickle.dumps(metric))
    batch = MetricBatch(output=grey(200), gt=grey(180), gt_ids=["gt"])
    assert again(batch) == metric(batch) == abs(years_of(200) - years_of(180))


class Mean:
    """What another package would register: the mean of an image as its age."""

    signature, calls = "mean:1", 0

    def __call__(self, images):
        Mean.calls += len(images)
        return images.mean(axis=(1, 2, 3)).astype(np.float32)


def test_a_ground_truth_is_looked_at_once(monkeypatch):
    registry = Registry("age model", {"mean": f"{__name__}:Mean"})
    monkeypatch.setattr(ages, "AGE_MODELS", registry)
    monkeypatch.setattr(Mean, "calls", 0)
    metric = make_metric("age_error", model="mean")
    values = [metric(MetricBatch(output=grey(value), gt=grey(100), gt_ids=["gt"]))[0] for value in (90, 130, 40)]
    assert values == [10, 30, 60]
    assert Mean.calls == 4
    assert "mean:1" in metric.signature


def test_without_a_model_file_it_is_unavailable_and_a_named_file_that_is_absent_is_refused(tmp_path):
    found = resolve_metrics(["psnr", "age_error"])
    assert list(found.available) == ["psnr"]
    assert "ages.path" in found.unavailable["age_error"]
    assert "\n" not in found.unavailable["age_error"]
    with pytest.raises(ConfigError, match=r"metric 'age_error': .*absent\.onnx"):
        resolve_metrics(["psnr", {"name": "age_error", "path": str(tmp_path / "absent.onnx")}])
    with pytest.raises(ConfigError, match="unknown age model"):
        make_metric("age_error", model="nobody", path="x")
