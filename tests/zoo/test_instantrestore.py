"""InstantRestore's files: what is held once, what is refused, and where the parts are looked for."""

import logging
from pathlib import Path

import pytest
import torch

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.instantrestore.loading import build, split
from ffhqref.zoo.instantrestore.lora import LoRALayer

from .conftest import tiny

NAME = "instantrestore"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return tiny(NAME).options(tmp_path_factory.mktemp(NAME))


@pytest.fixture(scope="module")
def restorer(options):
    return make_restorer(NAME, device="cpu", **options)


@pytest.fixture(scope="module")
def content(options):
    return torch.load(options["path"], weights_only=True)


def changed(options, folder, change):
    """Return the options with another checkpoint."""
    content = torch.load(options["path"], weights_only=True)
    change(content)
    torch.save(content, folder / "other.pt")
    return {**options, "path": folder / "other.pt"}


def made_of(content):
    settings, parts = split(content, "FILE")
    configs = tiny(NAME).CONFIG
    return build(parts, settings, configs["unet"], configs["vae"], Path("FILE"))


def storages(*networks):
    return {value.untyped_storage().data_ptr(): value.nbytes for net in networks for value in net.parameters()}


def test_equal_weights_of_two_networks_are_one_storage(restorer):
    model = restorer.model
    for adapted, original in ((model.unet, model.original_unet), (model.vae, model.original_vae)):
        own = dict(adapted.named_parameters())
        for name, value in original.named_parameters():
            stem, _, kind = name.rpartition(".")
            twin = own.get(f"{stem}.base_layer.{kind}", own.get(name))
            assert (twin.data_ptr() == value.data_ptr()) == (name != "conv_in.weight"), name
    everything = storages(model.unet, model.vae, model.original_unet, model.original_vae)
    own = storages(model.unet, model.vae)
    assert sum(everything.values()) - sum(own.values()) == model.original_unet.conv_in.weight.nbytes


def test_different_weights_stay_apart(options, restorer, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ffhqref")
    key = "net.original_unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k.weight"
    other = changed(options, tmp_path, lambda content: content["state_dict"][key].add_(1.0))
    model = make_restorer(NAME, device="cpu", **other).model
    layer = model.unet.up_blocks[1].attentions[0].transformer_blocks[0].attn1.to_k.base_layer
    original = model.original_unet.up_blocks[1].attentions[0].transformer_blocks[0].attn1.to_k
    assert torch.equal(original.weight, layer.weight + 1.0)
    assert "what two networks have in common once" in caplog.text
    assert torch.equal(layer.weight, restorer.model.unet.get_submodule(key[18:-11] + "to_k.base_layer").weight)


def test_files_saved_from_several_gpus_are_read(content):
    named = {key.replace("net.", "net.module.", 1): value for key, value in content["state_dict"].items()}
    expected, found = split(content, "FILE"), split({**content, "state_dict": named}, "FILE")
    assert found[0] == expected[0]
    assert {part: list(tensors) for part, tensors in found[1].items()} == {
        part: list(tensors) for part, tensors in expected[1].items()
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state, _: state.pop("net.unet.conv_out.lora_A.default.weight"), "1 missing"),
        (lambda state, _: state.update({"net.vae.more": torch.zeros(1)}), "1 unknown"),
        (lambda state, _: state.update({"net.unet.conv_in.bias": torch.zeros(1)}), "1 of another shape"),
        (lambda state, _: state.update({"net.extra.weight": torch.zeros(1)}), "unknown tensor"),
        (lambda state, _: state.update({"net.unet.conv_in.bias": 1}), "no state_dict of tensors"),
        (lambda _, model: model.update(use_shortcuts=True), "use_shortcuts=True is not built"),
        (lambda _, model: model.update(lora_rank_unet=0), "lora_rank_unet is 0"),
        (lambda _, model: model.pop("use_adain"), "use_adain is None"),
        (lambda _, model: model.clear(), "lora_rank_unet is None"),
    ],
)
def test_a_foreign_checkpoint_is_refused_in_one_line(content, change, words):
    state, model = dict(content["state_dict"]), dict(content["cfg"]["model"])
    change(state, model)
    with pytest.raises(WeightsError, match=words) as caught:
        made_of({"state_dict": state, "cfg": {"model": model}})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("FILE")


def test_a_checkpoint_without_settings_is_refused(content):
    for broken in ({"state_dict": content["state_dict"]}, content["state_dict"], None):
        with pytest.raises(WeightsError, match="no checkpoint of InstantRestore"):
            split(broken, "FILE")


def test_a_damaged_file_is_refused_in_one_line(options, tmp_path):
    (tmp_path / "cut.pt").write_bytes(options["path"].read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="not whole"):
        make_restorer(NAME, device="cpu", **{**options, "path": tmp_path / "cut.pt"})
    torch.save({"state_dict": Path}, tmp_path / "code.pt")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        assert make_restorer(NAME, device="cpu", **{**options, "path": tmp_path / "code.pt"}).model


def test_another_text_encoder_in_the_checkpoint_is_told_and_not_used(options, restorer, tmp_path, caplog):
    key = "net.text_encoder.text_model.final_layer_norm.bias"
    other = changed(options, tmp_path, lambda content: content["state_dict"][key].add_(1.0))
    model = make_restorer(NAME, device="cpu", **other).model
    assert "another text encoder" in caplog.text
    assert torch.equal(model.states, restorer.model.states)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("variant", "finale"),
        ("dtype", "int8"),
        ("size", 100),
        ("max_references", 0),
        ("freeu", {"s1": 1.0}),
    ],
)
def test_wrong_options_are_refused_at_once(options, option, value):
    with pytest.raises(ConfigError, match=option):
        make_restorer(NAME, device="cpu", **{**options, option: value})


def test_the_weights_folder_is_enough(options, tmp_path, monkeypatch, restorer):
    (tmp_path / "w").symlink_to(options["path"].parent)
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "w"))
    found = make_restorer(NAME, device="cpu", size=64)
    assert found.weights_sha256 == restorer.weights_sha256
    with pytest.raises(WeightsError, match=r"adain_ablation_ckpt\.pt"):
        make_restorer(NAME, device="cpu", size=64, variant="adain")


def test_only_the_first_four_references_count(restorer):
    generator = torch.Generator().manual_seed(0)
    lq, references = torch.rand(1, 3, 64, 64, generator=generator), torch.rand(6, 3, 64, 64, generator=generator)
    four, six, three = (restorer.restore(RestorationBatch(lq, [references[:count]], [1])) for count in (4, 6, 3))
    assert torch.equal(four, six)
    assert not torch.equal(four, three)


@pytest.mark.parametrize("side", [2, 8])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_an_adapter_is_half_of_its_product(kind, side):
    """Few and many positions take two ways."""
    torch.manual_seed(0)
    base = torch.nn.Linear(3, 16) if kind == "linear" else torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
    x = torch.randn(1, side * side, 3) if kind == "linear" else torch.randn(1, 3, side, side)
    layer = LoRALayer(base, 2, "default")
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    plain = base(x)
    with torch.no_grad():
        base.weight += 0.5 * torch.einsum("or,r...->o...", up.reshape(16, 2), down)
        expected = base(x)
        base.weight -= 0.5 * torch.einsum("or,r...->o...", up.reshape(16, 2), down)
    assert not torch.allclose(expected, plain, atol=1e-3)
    torch.testing.assert_close(layer(x), expected)
