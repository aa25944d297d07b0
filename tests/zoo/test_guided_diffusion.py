"""The guided-diffusion family on random weights: schedule, filters, options; cases, seeds and enhancers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from ffhqref.core.errors import FfhqrefError
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.restorers.check import check_restorer
from ffhqref.zoo.dr2.lowpass import imresize_weights, low_pass
from ffhqref.zoo.dr2.network import folded
from ffhqref.zoo.pgdiff.arcface import ArcFace, identity_gradient, shrunk
from ffhqref.zoo.pgdiff.config import ArcFaceConfig
from ffhqref.zoo.shared.guided_diffusion.diffusion import Diffusion, kept_times
from ffhqref.zoo.shared.guided_diffusion.draws import SeededDraws

from .conftest import tiny


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Options by restorer name, as the contract test makes them."""
    names = ("dr2", "pgdiff")
    return {name: {"device": "cpu", **tiny(name).options(tmp_path_factory.mktemp(name))} for name in names}


def batch_of(seeds, side=32, references=0):
    generator = torch.Generator().manual_seed(5)
    pictures = torch.rand(len(seeds), 3, side, side, generator=generator)
    given = [torch.rand(references, 3, side, side, generator=generator) for _ in seeds]
    return RestorationBatch(pictures, given, list(seeds))


@pytest.mark.parametrize(
    ("respacing", "expected"),
    [
        ("", list(range(1000))),
        ("ddim250", list(range(0, 1000, 4))),
        ("ddpm3", [0, 334, 668]),  # strides 334 to 499 give three; the smallest counts
        ("10", [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]),
        ([1, 2, 2], [0, 334, 666, 667, 999]),  # 1000 = 334 + 333 + 333
    ],
)
def test_kept_times(respacing, expected):
    assert kept_times(respacing).tolist() == expected


@pytest.mark.parametrize("respacing", ["ddim", "ddim300", "fast", "0", "600,10", "", "1"])
def test_impossible_respacing_is_refused_in_one_line(respacing):
    steps = 1 if respacing == "" else 1000
    with pytest.raises(FfhqrefError) as told:
        Diffusion.respaced(respacing, steps)
    assert repr(respacing) in str(told.value)
    assert "\n" not in str(told.value)


def test_respaced_chain_keeps_the_noise_levels():
    full, few = Diffusion.respaced(), Diffusion.respaced("ddim20")
    np.testing.assert_allclose(few.alphas, full.alphas[few.times], rtol=1e-12)


def test_ddpm_step_equals_diffusers():
    schedulers = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
    scheduler = schedulers.DDPMScheduler(variance_type="learned_range", clip_sample=True)
    diffusion = Diffusion.respaced()
    generator = torch.Generator().manual_seed(0)
    for index in (999, 500, 1, 0):
        x, output = torch.randn(1, 3, 8, 8, generator=generator), torch.randn(1, 6, 8, 8, generator=generator)
        theirs = scheduler.step(output, index, x, generator=torch.Generator().manual_seed(index))
        draw = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(index))
        x0 = diffusion.foreseen(x, index, output)
        ours = diffusion.ddpm(*diffusion.posterior(x, x0, index, output), index, draw)
        torch.testing.assert_close(x0, theirs.pred_original_sample, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours, theirs.prev_sample, rtol=1e-4, atol=1e-5)


def test_ddim_step_without_noise_equals_its_closed_form():
    diffusion = Diffusion.respaced("ddim50")
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 4, 4, generator=generator) - 0.5
    noise = torch.randn(1, 3, 4, 4, generator=generator)
    x = diffusion.noised(picture, 30, noise)
    output = torch.cat([noise, noise], dim=1)  # a network that knows the noise
    x0 = diffusion.foreseen(x, 30, output)
    torch.testing.assert_close(x0, picture, rtol=0, atol=1e-5)
    stepped = diffusion.ddim(x0, output, 30, 0.0, noise)
    torch.testing.assert_close(stepped, diffusion.noised(picture, 29, noise), rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_low_pass_equals_pil_away_from_the_edges(factor):
    picture = np.random.default_rng(0).random((96, 96), dtype=np.float32)
    small = Image.fromarray(picture).resize((96 // factor,) * 2, Image.Resampling.BICUBIC)
    down = imresize_weights(96, 96 // factor)
    ours = down @ picture @ down.T
    inner = slice(2, -2)
    np.testing.assert_allclose(ours[inner, inner], np.asarray(small)[inner, inner], atol=1e-5)
    small = Image.fromarray(ours)
    large = np.asarray(small.resize((96, 96), Image.Resampling.BICUBIC))
    inner = slice(2 * factor, -2 * factor)
    both = low_pass(torch.from_numpy(picture)[None, None], factor)[0, 0].numpy()
    np.testing.assert_allclose(both[inner, inner], large[inner, inner], atol=1e-5)


def test_low_pass_keeps_constants_up_to_the_edge():
    grey = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(low_pass(grey, 8), grey)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_folding_equals_torch_spectral_norm():
    layer = torch.nn.utils.spectral_norm(torch.nn.Conv2d(4, 6, 3, padding=1))
    picture = torch.randn(1, 4, 8, 8)
    for _ in range(3):
        layer(picture)  # in training mode, to settle u and v
    layer.eval()
    stored = {f"conv2d.{name}": value for name, value in layer.state_dict().items()}
    plain = folded(stored, "file")
    assert set(plain) == {"conv2d.weight", "conv2d.bias"}
    ours = torch.nn.functional.conv2d(picture, plain["conv2d.weight"], plain["conv2d.bias"], padding=1)
    torch.testing.assert_close(ours, layer(picture))


def test_identity_gradient_is_the_slope_of_the_distance():
    torch.manual_seed(0)
    network = ArcFace(ArcFaceConfig(widths=(4, 4, 4, 4), layers=(1, 1, 1, 1), features=8)).double().eval()
    picture, wanted, way = torch.rand(1, 3, 64, 64).double(), torch.randn(1, 8).double(), torch.randn(1, 3, 64, 64)

    def distance(step):
        with torch.no_grad():
            return float((network(shrunk(picture + step * way)) - wanted).pow(2).sum())

    with torch.no_grad():  # as the runner calls restorers
        gradient = identity_gradient(network, picture, wanted)
    slope = (distance(1e-6) - distance(-1e-6)) / 2e-6
    assert float((gradient * way).sum()) == pytest.approx(slope, rel=1e-4)


def test_draws_belong_to_the_case():
    together = SeededDraws([7, 8], (3, 4, 4), "cpu")
    alone = SeededDraws([8], (3, 4, 4), "cpu")
    for _ in range(3):
        assert torch.equal(together()[1], alone()[0])


@pytest.mark.parametrize("name", ["dr2", "pgdiff"])
def test_every_case_has_noise_of_its_own(small, name):
    batch = batch_of([1, 2])
    same = dataclasses.replace(batch, lq=batch.lq[:1].repeat(2, 1, 1, 1))
    first, second = make_restorer(name, **small[name]).restore(same)
    assert (first - second).abs().max() > 0.01


def test_pgdiff_shared_noise(small):
    restorer = make_restorer("pgdiff", **{**small["pgdiff"], "noise": "shared"})
    assert not restorer.info.uses_seed
    batch = batch_of([1, 2])
    same = dataclasses.replace(batch, lq=batch.lq[:1].repeat(2, 1, 1, 1))
    first, second = restorer.restore(same)
    torch.testing.assert_close(first, second)


def test_pgdiff_with_references(small):
    options = {**small["pgdiff"], "task": "ref_restoration", "ref_weight": 1e3}
    restorer = make_restorer("pgdiff", **options)
    assert (restorer.info.min_references, restorer.info.max_references) == (1, 1)
    assert set(restorer.weights_sha256) == {"difface-diffusion", "pgdiff-restorer", "pgdiff-arcface"}
    assert check_restorer(restorer) == []
    batch = batch_of([1, 2], references=2)
    made = restorer.restore(batch)
    others = dataclasses.replace(batch, references=[item.flip(0) for item in batch.references])
    assert not torch.equal(made, restorer.restore(others)), "the first reference is the one that counts"
    second = dataclasses.replace(batch, references=[item[:1] for item in batch.references])
    torch.testing.assert_close(made, restorer.restore(second))
    none = dataclasses.replace(batch, references=[batch.references[0], batch.references[1][:0]])
    with pytest.raises(FfhqrefError, match="needs a reference; case 1 has none"):
        restorer.restore(none)


def test_pgdiff_passes_twice_only_between_the_ends(small):
    restorer = make_restorer("pgdiff", **{**small["pgdiff"], "N": 3, "s_end": 0.001, "s_start": 0.003})
    calls = []
    forward = restorer.unet.forward
    restorer.unet.forward = lambda x, time: calls.append(time) or forward(x, time)
    restorer.restore(batch_of([1]))
    assert calls == [750, 500, 500, 500, 250, 0]  # indices 3 2 1 0; strictly between 1 and 3


def test_dr2_with_an_enhancer_of_the_zoo(small):
    plain = {name: value for name, value in small["dr2"].items() if name != "sparnet_path"}
    own = make_restorer("dr2", **small["dr2"])
    none = make_restorer("dr2", enhancer="lq", **plain)
    batch = batch_of([1, 2], side=64)
    with torch.no_grad():
        enlarged = own.enlarged(own.removed(batch.lq, own.draws(batch)))
    torch.testing.assert_close(none.restore(batch), ((enlarged + 1) / 2).clamp(0, 1))
    assert set(none.weights_sha256) == {"dr2"}

    first = make_restorer("dr2", enhancer="reference", **plain)
    assert (first.info.min_references, first.info.max_references) == (1, 1)
    given = batch_of([1, 2], side=64, references=2)
    torch.testing.assert_close(first.restore(given), torch.stack([item[0] for item in given.references]))

    options = {**small["pgdiff"], "task": "ref_restoration"}
    nested = make_restorer("dr2", enhancer="pgdiff", enhancer_options=options, **plain)
    assert check_restorer(nested) == []
    assert not nested.info.commercial_use
    assert "S-Lab" in nested.info.licence
    assert "MS1MV3" in nested.info.trained_on
    assert nested.info.name == "dr2"
    assert nested.quantization == "truncate"
    assert {"dr2", "enhancer pgdiff-arcface"} <= set(nested.weights_sha256)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dr2", {"N": 5}, "N=5, expected a whole number that divides 32"),
        ("dr2", {"N": 8, "tau": 75}, r"tau=75, expected 0\.\.74 for N=8"),
        ("dr2", {"enhancer": "dr2"}, "would be itself"),
        ("dr2", {"enhancer": "bicubik"}, "Did you mean 'bicubic'"),
        ("dr2", {"enhancer": "bicubic", "enhancer_options": {"factr": 2}}, "factr"),
        ("dr2", {"enhancer_options": {"w": 1}}, "'sparnethd' takes none"),
        ("dr2", {"config": {"unet": {"use_scale_shift_norm": False}}}, "another network"),
        ("dr2", {"config": {"unet": {"model_chanels": 64}}}, "Did you mean 'model_channels'"),
        ("dr2", {"config": {"spar": {"size": 500}}}, "size=500"),
        ("dr2", {"config": "nowhere.yaml"}, "no such file: nowhere.yaml; expected the DR2 config"),
        ("pgdiff", {"task": "restoraton"}, "Did you mean 'restoration'"),
        ("pgdiff", {"noise": "none"}, "'case' or 'shared'"),
        ("pgdiff", {"N": 0}, "N=0"),
        ("pgdiff", {"config": {"model_and_diffusion": {"channel_mult": "1, two"}}}, "channel_mult"),
        ("difface", {"start": 250}, r"start=250, expected 1\.\.249"),
        ("difface", {"eta": 2}, "eta=2"),
        ("difface", {"config": {"model_ir": {"params": {"upsampler": "pixelshuffle"}}}}, "another network"),
        ("difface", {"config": {"model": {"params": {"channel_mult": [1, 2]}}}}, "num_res_blocks has 7"),
    ],
)
def test_wrong_options_are_told_in_one_line(small, name, options, words):
    with pytest.raises(FfhqrefError, match=words) as told:
        make_restorer(name, **{**small.get(name, {"device": "cpu"}), **options})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["difface", "dr2", "pgdiff"])
def test_missing_weights_say_where_they_come_from(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FfhqrefError, match=r"not on this machine.*https://"):
        make_restorer(name, device="cpu")
