"""The published YAML form, and the time steps of DDIM."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import yaml

from ffhqref.core.errors import ConfigError
from ffhqref.zoo.refldm.config import RefLDMConfig
from ffhqref.zoo.refldm.schedule import alphas_cumprod, ddim_timesteps


def test_released_model_is_the_default():
    config = RefLDMConfig.load(None)
    assert (config.picture_size, config.first_stage.downscale, config.image_size) == (512, 8, 64)
    assert config.unet.heads(320) == 10


def test_tree_round_trip(small_config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small_config.to_tree()))
    assert RefLDMConfig.load(path) == small_config
    assert RefLDMConfig.load(str(path)) == small_config
    assert RefLDMConfig.load(small_config) is small_config


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("unet_config", "params", "model_chanels"), 32, "Did you mean 'model_channels'"),
        (("unet_config", "params", "use_spatial_transformer"), True, "another network"),
        (("unet_config", "params", "num_res_blocks"), "two", "should be int"),
        (("unet_config", "params", "in_channels"), 9, "in_channels must be 8"),
        (("unet_config", "params", "num_head_channels"), 64, "do not divide"),
        (("first_stage_config", "params", "ddconfig", "double_z"), True, "another network"),
        (("first_stage_config", "params", "embed_dim"), 3, "must be equal"),
        (("parameterization",), "v", "another network"),
        (("image_size",), 32, "must be its resolution"),
        (("unet_config",), None, "no mapping 'unet_config'"),
        (("cond_stage_config",), [{"conditioning_key": "crossattn"}], "crossattn"),
    ],
)
def test_other_networks_are_refused(small_config, tmp_path, where, value, said):
    tree = small_config.to_tree()
    node = tree["model"]["params"]
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=said) as refused:
        RefLDMConfig.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_files_that_are_no_config(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        RefLDMConfig.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_absent_config(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file: .*none\.yaml; expected the ReF-LDM config"):
        RefLDMConfig.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("timesteps", [1000, 37])
def test_timesteps_follow_the_rule(timesteps):
    """ldm/models/diffusion/ddim.py, by brute force over every number of steps."""
    refused = []
    for steps in range(1, timesteps + 1):
        stride = timesteps // steps
        trailing = [t for t in range(timesteps) if (timesteps - 1 - t) % stride == 0]
        assert list(ddim_timesteps(steps, "uniform_trailing", timesteps)) == trailing[::-1]
        assert len(trailing) == math.ceil(timesteps / stride)
        wanted = [1 + k * stride for k in range(timesteps) if k * stride < timesteps]
        if timesteps in wanted:
            refused.append(steps)
            with pytest.raises(ConfigError, match=f"{steps} DDIM steps"):
                ddim_timesteps(steps, "uniform", timesteps)
        else:
            assert list(ddim_timesteps(steps, "uniform", timesteps)) == wanted[::-1]
    if timesteps == 1000:
        assert len(refused) == 599
        assert {3, 9, 27, 36, 37, *range(101, 112)} <= set(refused)


@pytest.mark.parametrize("steps", [3, 101, 501, 1000])
def test_refusal_names_numbers_that_work(steps):
    with pytest.raises(ConfigError) as refused:
        ddim_timesteps(steps, "uniform")
    offered = str(refused.value).split("take ")[1].split(", or")[0].split(", ")
    assert offered
    for number in offered:
        assert ddim_timesteps(int(number), "uniform").max() < 1000


@pytest.mark.parametrize(("steps", "spacing"), [(0, "uniform"), (1001, "uniform"), (2.5, "uniform"), (10, "linear")])
def test_settings_that_make_no_sense(steps, spacing):
    with pytest.raises(ConfigError):
        ddim_timesteps(steps, spacing)


def test_against_the_scheduler_of_diffusers():
    """An independent DDIM: same time steps and ᾱ for step counts that divide 1000."""
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        1000, 0.0015, 0.0155, "scaled_linear", set_alpha_to_one=False, steps_offset=1, clip_sample=False
    )
    assert abs(scheduler.alphas_cumprod.numpy() - alphas_cumprod(1000, 0.0015, 0.0155)).max() < 1e-6
    scheduler.set_timesteps(100)
    assert list(ddim_timesteps(100, "uniform")) == scheduler.timesteps.tolist()


def test_import_needs_no_torch():
    code = "import sys, ffhqref.zoo.refldm, ffhqref.zoo.refldm.schedule; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
