"""What methods cost: the counter against sums by hand and printed figures, the shipped file against the counter."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ffhqref.core.errors import ConfigError
from ffhqref.restorers import RESTORERS
from ffhqref.restorers.base import RestorerInfo
from ffhqref.zoo import counting
from ffhqref.zoo.costs import FILE, known_costs, to_csv
from ffhqref.zoo.openness import openness
from ffhqref.zoo.pgdiff.config import RRDBConfig
from ffhqref.zoo.pgdiff.network import SmoothSemantics


def test_a_stack_of_convolutions_by_hand():
    config = RRDBConfig()
    width, growth, blocks = config.mid_channels, config.growth_channels, config.num_blocks
    side, conv = 512 // 4, lambda given, made: 9 * given * made
    dense = sum(conv(width + k * growth, growth) for k in range(4)) + conv(width + 4 * growth, width)
    at_quarter = conv(9 * 16, width) + 3 * blocks * dense + conv(width, width)
    at_half, at_full = conv(width, width), 2 * conv(width, width) + conv(width, 3)
    expected = side**2 * (at_quarter + 4 * at_half + 16 * at_full) + 100 * 3 + 3 * 3  # the last two: the time
    with torch.device("meta"), torch.no_grad():
        network = SmoothSemantics(config)
        image = torch.empty(1, 3, 512, 512)
        assert counting.multiply_adds(lambda: network(image, image, 1)) == expected
    weights = (at_quarter + at_half + at_full) + 100 * 3 + 3 * 3
    biases = width * (4 + 1) + blocks * 3 * (4 * growth + width) + 3 + 3 + 3
    assert counting.parameters([network, network]) == weights + biases


def test_a_transformer_by_hand():
    tokens, width, wide = 48, 32, 80
    with torch.device("meta"), torch.no_grad():
        layer = torch.nn.TransformerEncoderLayer(width, 4, wide, batch_first=True).eval()
        x = torch.empty(1, tokens, width)
        found = counting.multiply_adds(lambda: layer(x))
    projections, products = 4 * tokens * width**2, 2 * tokens**2 * width
    assert found == projections + products + 2 * tokens * width * wide


@pytest.mark.parametrize(("method", "printed"), [("pgdiff", 480_997), ("difface", 18_682)])
def test_printed_figures(method, printed):
    """OSDFace's paper prints them in units of 1e9, of convolutions and layers without the products of attention."""
    with torch.device("meta"), torch.no_grad():
        found = 0
        for part in counting.CASES[method](0).parts:
            with FlopCounterMode(display=False) as counter:
                part.run()
            of = {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}
            found += part.times * (of["aten.convolution"] + of.get("aten.addmm", 0)) // 2
    assert found / 1e9 == pytest.approx(printed, abs=1)


@pytest.mark.parametrize("method", ["codeformer", "gfpgan", "refldm-tiny"])
def test_shipped_counts_are_those_of_the_networks(method):
    """Make the file anew with ``python -m ffhqref.zoo.counting > ffhqref/zoo/costs.csv``."""
    assert known_costs()[method] == counting.count(method)


@pytest.mark.slow
def test_the_whole_shipped_file():
    assert FILE.read_text() == to_csv(counting.every_cost())


def test_every_restorer_has_counts_or_a_reason():
    costs = known_costs()
    assert sorted(costs) == RESTORERS.names()
    for cost in costs.values():
        counts = [cost.parameters, cost.multiply_adds, cost.evaluations]
        assert all(counts) or (counts == [None] * 3 and cost.note)


def test_no_count_is_made_up():
    with pytest.raises(ConfigError, match="ncnn"):
        counting.count("realesrgan")


def test_counts_are_read_without_torch():
    code = "import sys, ffhqref.zoo.costs as c; assert c.known_costs()['pmrf'].evaluations == 25; "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_openness_of_what_a_method_says():
    def told(**facts):
        return openness(RestorerInfo("x", **facts))

    assert told(weights=("dr2",), trained_on=("FFHQ",)) == "code open, weights open, free licence, data named"
    closed = told(weights=("meintime",), licence="none stated", commercial_use=False, trained_on=("not stated by …",))
    assert closed == "code open, weights not released, no licence, data partly unknown"
    assert told(licence="that of its parts") == ""
