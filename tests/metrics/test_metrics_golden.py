"""Metrics against values of pyiqa that are stored in a golden set."""

import pytest

from ffhqref.core.images import read_rgb, to_tensor
from ffhqref.metrics import MetricBatch, make_metric

from ..conftest import GOLDEN, GOLDEN_IMAGES
from ..golden.make import changes
from ..zoo.golden_tools import read_json

PATH = GOLDEN / "metrics" / "cases.json"
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not PATH.is_file(), reason=f"no golden set in {PATH.parent} (set FFHQREF_GOLDEN)"),
]


def test_values_are_those_of_pyiqa():
    cases = read_json(PATH)
    measures = {name: make_metric(name) for name in cases[0]["values"]}
    for case in cases:
        image = read_rgb(GOLDEN_IMAGES / case["image"])
        batch = MetricBatch(to_tensor([changes(image)[case["change"]]]), to_tensor([image]))
        ours = {name: float(measure(batch)[0]) for name, measure in measures.items()}
        assert ours == pytest.approx(case["values"], rel=1e-5, abs=1e-6), case
