"""GFPGAN, RestoreFormer (++), CodeFormer and DAEFR on random weights: files, options, sizes, noise, grey faces."""

import importlib.util
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from ffhqref.core.errors import ConfigError, DependencyError, WeightsError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers import RestorationBatch, make_restorer

from .conftest import tiny

NAMES = ["codeformer", "daefr", "gfpgan", "restoreformer", "restoreformer_pp"]
PACKAGES = dict.fromkeys(("codeformer", "daefr"), ("spandrel_extra_arches", "zoo-nc"))

pytestmark = pytest.mark.skipif(
    not find_spec("spandrel") or not find_spec("spandrel_extra_arches"), reason="needs spandrel-extra-arches"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Constructor options of small random weights, by restorer."""
    return {name: tiny(name).options(tmp_path_factory.mktemp(name)) for name in NAMES}


def made(small, name, **options):
    return make_restorer(name, **{"device": "cpu", **small[name], **options})


def batch(height=64, width=64, seeds=(1,)):
    generator = torch.Generator().manual_seed(5)
    lq = (torch.rand(len(seeds), 3, height, width, generator=generator) * 255).round() / 255
    return RestorationBatch(lq=lq, references=[torch.zeros(0, 3, 8, 8)] * len(seeds), seeds=list(seeds))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_foreign_and_missing_files_are_refused_in_one_line(small, name, tmp_path):
    whole = Path(small[name]["path"])
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    foreign = tmp_path / "foreign.pth"
    torch.save({"params_ema": {"conv.weight": torch.zeros(3)}}, foreign)
    other = small["gfpgan" if name != "gfpgan" else "codeformer"]["path"]
    for path in (cut, foreign, other):
        with pytest.raises(WeightsError) as refusal:
            made(small, name, path=path).restore(batch())
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    with pytest.raises(WeightsError, match="no such file"):
        made(small, name, path=tmp_path / "absent.pth")


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_other_widths_are_refused(small, name):
    with pytest.raises(WeightsError, match="does not fit"):
        made(small, name, config=None).network  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_missing_package_is_named_with_the_extra_that_brings_it(small, name, monkeypatch):
    package, extra = PACKAGES.get(name, ("spandrel", "zoo"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == package else object())
    with pytest.raises(DependencyError, match=rf"{package.replace('_', '-')}.*ffhqref\[{extra}\]"):
        made(small, name)


@pytest.mark.parametrize("name", NAMES)
def test_architecture_comes_from_a_mapping_or_a_file(small, name, tmp_path):
    config = small[name]["config"]
    (tmp_path / "a.json").write_text(json.dumps(config))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    expected = made(small, name).config
    assert made(small, name, config=tmp_path / "a.json").config == expected
    assert made(small, name, config=str(tmp_path / "a.yaml")).config == expected
    assert made(small, name, config=expected).config == expected
    key = next(iter(config))
    for wrong, words in (
        ({**config, f"{key}s": 1}, f"unknown entry '{key}s'. Did you mean '{key}'"),
        ({**config, key: "wide"}, f"{key}='wide' should be int"),
        ({**config, key: True}, f"{key}=True should be int"),
        (tmp_path / "none.yaml", "no such file"),
    ):
        with pytest.raises(ConfigError, match=words):
            made(small, name, config=wrong)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gfpgan", {"out_size": 96}, "power of two"),
        ("gfpgan", {"different_w": False}, "different_w=False is not built"),
        ("restoreformer", {"resolution": 63}, "not halved 2 times"),
        ("restoreformer", {"head_size": 7}, "head_size=7"),
        ("restoreformer", {"ch": 48}, "ch=48"),
        ("restoreformer", {"attn_resolutions": []}, "empty"),
        ("restoreformer", {"double_z": True}, "double_z=True is not built"),
        ("daefr", {"resolution": 63}, "not halved 2 times"),
        ("daefr", {"cross_heads": 5}, "cross_heads=5"),
        ("daefr", {"head_size": 3}, "head_size=3"),
        ("codeformer", {"latent_size": 100}, "should be 256"),
        ("codeformer", {"connect_list": ["16"]}, "should be of 64, 32"),
        ("codeformer", {"attn_resolutions": [32]}, r"\[16\]"),
        ("codeformer", {"n_head": 5}, "multiple of n_head=5"),
        ("codeformer", {"img_size": 63}, "not halved"),
    ],
)
def test_impossible_widths_are_refused(small, name, change, words):
    with pytest.raises(ConfigError, match=words):
        made(small, name, config={**small[name]["config"], **change})


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("gfpgan", {"release": "1.5"}, "1.2, 1.3, 1.4"),
        ("gfpgan", {"noise": "none"}, "case, stored"),
        ("codeformer", {"fidelity_weight": 1.5}, "0..1"),
    ],
)
def test_wrong_options_are_refused(small, name, option, words):
    with pytest.raises(ConfigError, match=words):
        made(small, name, **option)


@pytest.mark.parametrize("name", NAMES)
def test_other_sizes_come_back_as_they_were(small, name):
    given = batch(48, 80)
    result = made(small, name).restore(given)
    assert result.shape == given.lq.shape
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize(("release", "filename"), [(1.2, "GFPGANCleanv1-NoCE-C2"), ("1.3", "v1.3"), ("1.4", "v1.4")])
def test_gfpgan_release_chooses_the_file(tmp_path, monkeypatch, release, filename):
    for variable in ("FFHQREF_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(WeightsError, match=rf"'gfpgan-{release}'.*{filename}.pth"):
        make_restorer("gfpgan", release=release)


def test_restoreformer_takes_either_published_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="'restoreformer' are not on this machine"):
        make_restorer("restoreformer")
    (tmp_path / "RestoreFormer.ckpt").write_bytes(b"another file")
    with pytest.raises(WeightsError, match=r"'restoreformer-ckpt'.*RestoreFormer\.ckpt is not whole"):
        make_restorer("restoreformer")


@pytest.mark.parametrize("name", ["restoreformer", "restoreformer_pp"])
def test_both_published_layouts_of_restoreformer_give_the_same(small, name, tmp_path):
    state = torch.load(small[name]["path"], weights_only=True)["state_dict"]
    bare = {key.removeprefix("vqvae."): value for key, value in state.items()}
    expected = made(small, name).restore(batch())
    for index, layout in enumerate(
        ({"params_ema": bare}, {"params": bare}, {"state_dict": {**state, "loss.a.weight": torch.ones(2)}, "epoch": 3})
    ):
        torch.save(layout, tmp_path / f"{index}.pth")
        assert torch.equal(made(small, name, path=tmp_path / f"{index}.pth").restore(batch()), expected)


def test_gfpgan_noise_is_the_cases_own(small):
    restorer = made(small, "gfpgan")
    restorer.network  # noqa: B018 - building it draws random weights, which the file's replace
    state = torch.get_rng_state()
    first = restorer.restore(batch(seeds=(7,)))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    torch.manual_seed(99)
    assert torch.equal(restorer.restore(batch(seeds=(7,))), first)
    assert not torch.equal(restorer.restore(batch(seeds=(8,))), first)
    # what the published network gives when its own draws follow torch.manual_seed
    torch.manual_seed(7)
    with torch.no_grad():
        raw, _ = restorer.network(batch().lq * 2 - 1, return_rgb=False, randomize_noise=True)
    assert torch.equal(((raw + 1) / 2).clamp(0, 1), first)


def test_gfpgan_with_stored_noise_knows_no_seed(small):
    restorer = made(small, "gfpgan", noise="stored")
    assert not restorer.info.uses_seed
    result = restorer.restore(batch(seeds=(7,)))
    assert torch.equal(result, restorer.restore(batch(seeds=(8,))))
    with torch.no_grad():
        raw, _ = restorer.network(batch().lq * 2 - 1, return_rgb=False, randomize_noise=False)
    assert torch.equal(((raw + 1) / 2).clamp(0, 1), result)


def test_codeformer_fidelity_and_colour_options_change_the_result(small):
    results = [
        made(small, "codeformer", **options).restore(batch())
        for options in ({}, {"fidelity_weight": 0}, {"fidelity_weight": 1.0}, {"adain": False})
    ]
    assert all(not torch.equal(results[0], other) for other in results[1:])


def test_codeformer_makes_a_grey_face_grey_with_the_contrast_of_the_input(small):
    grey = batch().lq[:, :1].repeat(1, 3, 1, 1) * 0.2 + 0.4
    tinted = (grey + torch.tensor([0.02, 0.0, -0.02])[:, None, None]) * 255
    lq = tinted.round() / 255
    restorer = made(small, "codeformer")
    result = to_uint8(restorer.restore_faces(lq, [0]))[0].astype(float)
    face = to_uint8(lq)[0].astype(float)
    for channel in range(3):
        assert result[..., channel].mean() == pytest.approx(face[..., channel].mean(), abs=0.5)
        assert result[..., channel].std() == pytest.approx(face[..., channel].std(), abs=0.5)
    # one shade a pixel: the channels differ by their means alone
    assert (result[..., 0] - result[..., 2]).std() < 1
    coloured = to_uint8(restorer.restore_faces(to_tensor([to_uint8(batch().lq)[0]]), [0]))[0].astype(float)
    assert (coloured[..., 0] - coloured[..., 2]).std() > 1
