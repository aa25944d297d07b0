"""What is read of published checkpoints, and what is refused."""

from __future__ import annotations

import pickle

import pytest
import torch

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.zoo.refldm import RefLDM
from ffhqref.zoo.refldm import checkpoint as ckpt
from ffhqref.zoo.refldm import converted as conv
from ffhqref.zoo.refldm.config import RefLDMConfig


@pytest.fixture
def state(small_config, small_modules):
    """A state dict in the published layout whose EMA weights differ from the raw ones."""
    unet, first_stage = small_modules
    raw = {name: value + 1 for name, value in unet.state_dict().items()}
    return ckpt.published_state(small_config, raw, unet.state_dict(), first_stage.state_dict(), decay=0.9999, updates=7)


@pytest.fixture
def files(tmp_path, state, small_modules):
    main, vqgan = tmp_path / "refldm.ckpt", tmp_path / "vqgan.ckpt"
    torch.save(state, main)
    torch.save({"state_dict": small_modules[1].state_dict()}, vqgan)
    return main, vqgan


def same(module, expected) -> bool:
    return all(torch.equal(value, expected.state_dict()[name]) for name, value in module.state_dict().items())


def test_ema_weights_are_used(files, small_config, small_modules):
    model = RefLDM.from_checkpoint(*files, small_config)
    assert same(model.unet, small_modules[0])
    assert same(model.first_stage, small_modules[1])


def test_wrapped_main_file_with_training_leftovers(files, state, small_config, small_modules):
    main, vqgan = files
    extra = {"loss.discriminator.main.0.weight": torch.zeros(3), "perceptual_loss_fn.net.conv1": torch.zeros(2)}
    torch.save({"state_dict": {**state, **extra}, "epoch": 3, "global_step": 10}, main)
    stage = {**small_modules[1].state_dict(), "loss.perceptual_loss.lin0": torch.zeros(1)}
    torch.save({"state_dict": stage, "optimizer_states": [{"lr": 0.1}]}, vqgan)
    model = RefLDM.from_checkpoint(main, vqgan, small_config)
    assert same(model.unet, small_modules[0])
    assert same(model.first_stage, small_modules[1])


def test_first_stage_of_the_main_file_wins(files, state, small_config):
    main, vqgan = files
    for key in state:
        if key.endswith("quant_conv.bias") and "post" not in key:
            state[key] = torch.full_like(state[key], 5.0)
    torch.save(state, main)
    model = RefLDM.from_checkpoint(main, vqgan, small_config)
    assert (model.first_stage.quant_conv.bias == 5).all()


def test_aliases_alone_override_too(files, state, small_config):
    main, vqgan = files
    kept = {key: value for key, value in state.items() if not key.startswith("first_stage_model.")}
    kept["cond_stage_model.ref_image.quant_conv.bias"] = torch.full((4,), 6.0)
    torch.save(kept, main)
    assert (RefLDM.from_checkpoint(main, vqgan, small_config).first_stage.quant_conv.bias == 6).all()


def test_main_file_without_vqgan(files, small_config, small_modules):
    assert same(RefLDM.from_checkpoint(files[0], None, small_config).first_stage, small_modules[1])


@pytest.mark.parametrize(
    ("remove", "add", "said"),
    [
        (("model_ema.",), {}, "no EMA weights"),
        (("model_ema.diffusion_modelout2bias",), {}, "1 keys missing (model_ema.diffusion_modelout2bias)"),
        (("model.diffusion_model.out.2.bias",), {}, "1 keys missing (model.diffusion_model.out.2.bias)"),
        ((), {"model.diffusion_model.extra.weight": 1}, "1 foreign keys (model.diffusion_model.extra.weight)"),
        ((), {"model_ema.diffusion_modelextra": 1}, "1 foreign keys (model_ema.diffusion_modelextra)"),
        ((), {"someone_elses": 1, "b": 1, "c": 1, "d": 1}, "4 foreign keys (someone_elses, b, c, …)"),
        ((), {"first_stage_model.encoder.extra": 1}, "1 foreign keys (first_stage_model.encoder.extra)"),
        (("first_stage_model.quant_conv.bias",), {}, "1 keys missing (first_stage_model.quant_conv.bias)"),
        (("first_stage_model.", "cond_stage_model."), {}, "keys missing (first_stage_model.encoder.conv_in.weight"),
        (("betas",), {"alphas_cumprod": 1}, "another noise schedule"),
    ],
)
def test_incomplete_and_foreign_files_are_refused(files, state, small_config, remove, add, said):
    main, _ = files
    kept = {key: value for key, value in state.items() if not key.startswith(remove)} if remove else dict(state)
    torch.save(kept | {key: torch.zeros(size) for key, size in add.items()}, main)
    with pytest.raises(WeightsError) as refused:
        RefLDM.from_checkpoint(main, None, small_config)
    assert said in str(refused.value)
    assert str(main) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_vqgan_that_lacks_keys(files, small_config, small_modules):
    stage = small_modules[1].state_dict()
    del stage["encoder.conv_in.weight"]
    torch.save({"state_dict": stage}, files[1])
    with pytest.raises(WeightsError, match=r"vqgan.ckpt .* 1 keys missing \(encoder.conv_in.weight\)"):
        RefLDM.from_checkpoint(*files, small_config)


def test_other_width_is_refused(files):
    with pytest.raises(WeightsError, match=r"keys missing"):
        RefLDM.from_checkpoint(*files)


@pytest.mark.parametrize("keep", [0, 10, 5000, -300])
def test_truncated_file_gives_one_line(files, small_config, keep):
    main, vqgan = files
    data = main.read_bytes()
    main.write_bytes(data[: keep if keep >= 0 else len(data) + keep])
    with pytest.raises(WeightsError, match="damaged") as refused:
        RefLDM.from_checkpoint(main, vqgan, small_config)
    assert "\n" not in str(refused.value)


def test_absent_file(files, small_config, tmp_path):
    with pytest.raises(WeightsError, match="no such weight file"):
        RefLDM.from_checkpoint(tmp_path / "none.ckpt", files[1], small_config)


class Trap:
    def __reduce__(self):
        return (open, ("trap_was_sprung", "w"))


def test_pickled_code_never_runs(files, state, small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main, vqgan = files
    for write in (lambda: torch.save({"state_dict": state, "x": Trap()}, main), lambda: _pickle(main, Trap())):
        write()
        with pytest.raises(WeightsError):
            RefLDM.from_checkpoint(main, vqgan, small_config)
        assert not (tmp_path / "trap_was_sprung").exists()


def _pickle(path, value) -> None:
    with path.open("wb") as stream:
        pickle.dump(value, stream)


def test_objects_of_the_training_framework_are_tolerated(files, state, small_config, small_modules, monkeypatch):
    """Lightning keys its callbacks by class; that must not keep the tensors beside them from being read."""
    import sys
    import types

    module = types.ModuleType("pytorch_lightning.callbacks")
    kind = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = kind
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    instance = kind()
    instance.best = 0.5
    torch.save({"state_dict": state, "callbacks": {kind: {"best": 1.0}}, "x": instance}, files[0])
    monkeypatch.undo()
    assert same(RefLDM.from_checkpoint(*files, small_config).unet, small_modules[0])


def test_converted_once_then_read_from_there(files, small_config, small_modules, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = RefLDM.from_checkpoint(*files, small_config, cache_dir=cache)
    (converted,) = cache.glob("*.safetensors")
    noted = (cache / f"{converted.name}.sha256").read_text().split()
    from ffhqref.core.hashing import sha256_file

    assert noted == [sha256_file(converted), converted.name]
    monkeypatch.setattr(conv, "load_published", lambda *_: pytest.fail("converted again"))
    second = RefLDM.from_checkpoint(*files, small_config, cache_dir=cache)
    alone = RefLDM.from_checkpoint(converted)
    for model in (first, second, alone):
        assert same(model.unet, small_modules[0])
        assert same(model.first_stage, small_modules[1])
    assert alone.config == small_config


def test_changed_converted_file_is_refused(files, small_config, tmp_path):
    path = conv.convert(*files, tmp_path / "c.safetensors", small_config)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="sha256"):
        RefLDM.from_checkpoint(path)


def test_foreign_safetensors_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="no converted ReF-LDM"):
        RefLDM.from_checkpoint(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        RefLDM.from_checkpoint(tmp_path / "b.safetensors")


def test_half_precision_file_loads(small_config, small_modules, tmp_path):
    weights = ckpt.RefLDMWeights(*(module.state_dict() for module in small_modules))
    conv.save_converted(tmp_path / "half.safetensors", weights, small_config, dtype=torch.float16)
    model = RefLDM.from_checkpoint(tmp_path / "half.safetensors")
    assert model.unet.dtype == torch.float32
    torch.testing.assert_close(model.unet.state_dict(), dict(small_modules[0].state_dict()), rtol=1e-3, atol=1e-4)


def test_loading_leaves_the_random_state_alone(files, small_config):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    RefLDM.from_checkpoint(*files, small_config)
    assert torch.equal(torch.get_rng_state(), before)


def test_config_and_converted_file_must_agree(small_config, small_modules, tmp_path):
    weights = ckpt.RefLDMWeights(*(module.state_dict() for module in small_modules))
    conv.save_converted(tmp_path / "c.safetensors", weights, small_config)
    with pytest.raises(ConfigError, match="another architecture"):
        RefLDM.from_checkpoint(tmp_path / "c.safetensors", config=RefLDMConfig())
