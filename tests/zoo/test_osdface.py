"""What OSDFace's restorer makes of sizes and options, with small random weights."""

import pytest
import torch

from ffhqref.core.errors import ConfigError
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.osdface.model import chosen_codes

from .conftest import tiny


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return tiny("osdface").options(tmp_path_factory.mktemp("osdface"))


def restored(restorer, height, width, seed=1):
    lq = torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(0))
    return restorer.restore(RestorationBatch(lq, [torch.zeros(0, 3, 8, 8)], [seed]))


def test_every_size_comes_back_as_it_was(options):
    restorer = make_restorer("osdface", device="cpu", **options)
    for size in ((36, 50), (40, 40), (64, 64)):
        assert restored(restorer, *size).shape[2:] == size


def test_the_mean_of_the_posterior_needs_no_seed(options):
    restorer = make_restorer("osdface", device="cpu", posterior="mean", **options)
    assert not restorer.info.uses_seed
    assert torch.equal(restored(restorer, 32, 48, seed=1), restored(restorer, 32, 48, seed=2))


def test_codes_run_out():
    codebook = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    features = torch.tensor(
        [[[[0.3, 9.9], [0.0, 0.1]], [[0.0, 0.0], [0.0, 0.0]]]]
    )  # rows 0, 1, 0, 0; the third nearest
    assert chosen_codes(features, codebook, 4).tolist() == [0, 1, -1, -1]
    assert chosen_codes(features, codebook, 1).tolist() == [0]


@pytest.mark.parametrize("wrong", [{"posterior": "meen"}, {"timestep": 1000}, {"config": {"n_mim": 3}}])
def test_wrong_options_are_told(options, wrong):
    with pytest.raises(ConfigError) as told:
        make_restorer("osdface", device="cpu", **{**options, **wrong})
    assert "\n" not in str(told.value)
