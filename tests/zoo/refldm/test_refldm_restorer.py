"""The restorer: presets, noise, references, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.hashing import sha256_file
from ffhqref.restorers.base import RestorationBatch, Restorer
from ffhqref.restorers.check import check_restorer
from ffhqref.zoo.refldm import RefLDM
from ffhqref.zoo.refldm.checkpoint import RefLDMWeights
from ffhqref.zoo.refldm.converted import save_converted
from ffhqref.zoo.refldm.restorer import RefLDMRestorer


@pytest.fixture
def weights(small_config, small_modules, tmp_path):
    states = (module.state_dict() for module in small_modules)
    return save_converted(tmp_path / "small.safetensors", RefLDMWeights(*states), small_config)


@pytest.fixture
def batch(faces):
    lq = (faces(1, 3, 3, 64, 64) + 1) / 2
    references = [(faces(5 + i, n, 3, 64, 64) + 1) / 2 for i, n in enumerate((2, 6, 1))]
    return RestorationBatch(lq=lq, references=references, seeds=[7, 8, 9], case_ids=["a", "b", "c"])


def part(batch, *indices):
    return RestorationBatch(
        lq=batch.lq[list(indices)],
        references=[batch.references[i] for i in indices],
        seeds=[batch.seeds[i] for i in indices],
    )


def test_presets_are_the_published_ones(weights):
    paper, demo = RefLDMRestorer(weights), RefLDMRestorer(weights, preset="demo")
    assert (paper.steps, paper.spacing, paper.guidance_scale, paper.max_references) == (100, "uniform", 1.5, 5)
    assert (demo.steps, demo.spacing, demo.guidance_scale, demo.max_references) == (50, "uniform_trailing", 1.5, None)
    assert isinstance(paper, Restorer)
    assert paper.info.max_references == 5
    assert demo.info.max_references is None
    assert paper.info.input_size is None  # the small model's side is not the field's 512; it resizes
    assert paper.quantization == "truncate"


@pytest.mark.parametrize("noise", ["shared", "case"])
def test_restore_is_the_model_with_the_settings(weights, batch, noise):
    restorer = RefLDMRestorer(weights, steps=4, noise=noise)
    ours = restorer.restore(batch)
    assert ours.shape == batch.lq.shape
    assert ours.dtype == torch.float32
    assert 0 <= float(ours.min()) <= float(ours.max()) <= 1
    model = RefLDM.from_checkpoint(weights)
    for index in range(3):
        seed = 2024 if noise == "shared" else batch.seeds[index]
        torch.manual_seed(seed)
        x_T = torch.randn([1, 4, 16, 16])  # as the published scripts draw it
        references = batch.references[index][None, :5] * 2 - 1
        latent = model.sample_latent(batch.lq[index : index + 1] * 2 - 1, references, x_T, 4, 1.5, "uniform")
        image = ((model.decode(latent) + 1) / 2).clamp(0, 1)
        torch.testing.assert_close(ours[index : index + 1], image, rtol=0, atol=2e-4)


@pytest.mark.parametrize("noise", ["shared", "case"])
def test_results_do_not_depend_on_the_batch(weights, batch, noise):
    restorer = RefLDMRestorer(weights, steps=4, noise=noise)
    ours = restorer.restore(batch)
    other = restorer.restore(part(batch, 2, 0))
    torch.testing.assert_close(other, ours[[2, 0]], rtol=0, atol=2e-4)


def test_seeds_matter_only_where_they_should(weights, batch):
    changed = RestorationBatch(lq=batch.lq, references=batch.references, seeds=[1, 2, 3])
    shared, case = (RefLDMRestorer(weights, steps=4, noise=noise) for noise in ("shared", "case"))
    assert torch.equal(shared.restore(batch), shared.restore(changed))
    assert not torch.equal(case.restore(batch), case.restore(changed))
    assert (shared.info.uses_seed, case.info.uses_seed) == (False, True)


def test_no_more_references_than_allowed(weights, batch):
    five = RefLDMRestorer(weights, steps=4).restore(part(batch, 1))
    six = RefLDMRestorer(weights, steps=4, max_references=None).restore(part(batch, 1))
    assert not torch.allclose(five, six, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "papper"}, "Did you mean 'paper'"),
        ({"steps": 3}, "3 DDIM steps"),
        ({"spacing": "even"}, "unknown DDIM spacing"),
        ({"noise": "random"}, "'shared' or 'case'"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"max_references": 0}, "at least 1"),
        ({"info": {"nickname": "x"}}, "nickname"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(weights, options, said):
    with pytest.raises(ConfigError, match=said):
        RefLDMRestorer(weights, **options)


def test_missing_weights_are_named_before_any_work(tmp_path):
    with pytest.raises(WeightsError, match=r"no such weight file: .*refldm\.ckpt"):
        RefLDMRestorer(tmp_path / "refldm.ckpt", tmp_path / "vqgan.ckpt")


def test_released_files_come_from_the_weight_registry(tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"put refldm\.ckpt from"):
        RefLDMRestorer()


def test_weights_are_named_by_their_hash(weights):
    assert RefLDMRestorer(weights).weights_sha256 == {"refldm": sha256_file(weights)}


def test_pictures_of_another_side_are_resized_and_back(weights, faces):
    large = (faces(1, 2, 3, 96, 96) + 1) / 2
    references = [(faces(2 + i, 1, 3, 96, 96) + 1) / 2 for i in range(2)]
    restorer = RefLDMRestorer(weights, steps=4)
    made = restorer.restore(RestorationBatch(lq=large, references=references, seeds=[0, 1]))
    assert made.shape == large.shape

    def small(x, side=64):
        return torch.nn.functional.interpolate(x, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)

    at_64 = RestorationBatch(lq=small(large), references=[small(x) for x in references], seeds=[0, 1])
    torch.testing.assert_close(made, small(restorer.restore(at_64), 96), rtol=0, atol=1e-3)


@pytest.mark.parametrize("noise", ["shared", "case"])
def test_keeps_the_contract_of_the_zoo(weights, noise):
    assert check_restorer(RefLDMRestorer(weights, steps=2, noise=noise)) == []


def test_facts_can_be_changed_for_other_weights(weights):
    restorer = RefLDMRestorer(weights, info={"name": "refldm-tiny", "commercial_use": True})
    assert (restorer.info.name, restorer.info.commercial_use) == ("refldm-tiny", True)
