"""DifFace against the published code. Everything that varies is read from the golden folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ffhqref.core.errors import WeightsError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.difface.config import DifFaceConfig
from ffhqref.zoo.shared.guided_diffusion.draws import StoredDraws
from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet
from ffhqref.zoo.shared.swinir import build_swinir

from .golden_diffusion import recorded_steps
from .golden_tools import TOLERANCE, folder_of, layout, read_json, relative

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def folder(golden):
    return folder_of(golden, "difface")


@pytest.fixture(scope="module")
def config(folder):
    return read_json(folder / "config.json")


@pytest.fixture(scope="module")
def cases(folder):
    """Each case, its tensors, the restorer under its settings, and what that makes of the stored draws."""
    config = read_json(folder / "config.json")
    made, shared = [], {}
    for case in read_json(folder / "cases.json"):
        restorer = make_restorer("difface", device="cpu", **settings(folder, config, case))
        restorer.__dict__.update(shared)
        shared = {"unet": restorer.unet}
        if restorer.need_restoration:
            shared["swinir"] = restorer.swinir
        stored = load_file(folder / case["file"])
        batch = RestorationBatch(to_tensor([stored["lq_u8"].numpy()]), [torch.zeros(0, 3, 8, 8)], [case["seed"]])
        draws = StoredDraws(stored["draws"])
        steps = recorded_steps(restorer)
        made.append((case, stored, restorer, restorer.restore(batch, draws), steps))
        assert draws.used == len(stored["draws"]), case
    return made


def settings(folder, config, case):
    return {
        "path": folder / config["model"]["ckpt_path"],
        "swinir_path": folder / config["model_ir"]["ckpt_path"],
        "config": folder / "config.json",
        **{name: case[name] for name in ("respacing", "start", "eta", "need_restoration")},
    }


def test_restorer_gives_the_published_picture(cases):
    for case, stored, restorer, picture, _ in cases:
        assert relative(picture, stored["image"]) < TOLERANCE, case
        levels = to_uint8(picture, restorer.quantization)[0].astype(int) - stored["image_u8"].numpy()
        assert np.abs(levels).max() <= 1, case


def test_intermediates(cases):
    checked = 0
    for case, stored, restorer, _, steps in cases:
        assert [step.time for step in steps] == stored["timesteps"].tolist(), case
        if "x_start_noised" not in stored:
            continue
        checked += 1
        lq = to_tensor([stored["lq_u8"].numpy()])
        if lq.shape == stored["im_hq"].shape:
            with torch.no_grad():
                assert relative(restorer.estimate(lq), stored["im_hq"]) < TOLERANCE
        assert steps[0].time == int(stored["unet_first_t"][0])
        assert relative(steps[0].entered, stored["x_start_noised"]) < TOLERANCE
        assert relative(steps[0].output, stored["unet_first_out"]) < TOLERANCE
        assert relative(steps[0].state, stored["state_first"]) < TOLERANCE
        assert relative(steps[-1].state, stored["state_last"]) < TOLERANCE
    assert checked


def test_full_size_layout(folder, config):
    keys = read_json(folder / "keys_full.json")
    full = DifFaceConfig()
    with torch.device("meta"):
        unet = GuidedUNet(full.unet)
    swinir = build_swinir(full.swinir)
    for network, name, rename in ((unet, "model", {}), (swinir, "model_ir", {"conv_first.": "conv_first.1."})):
        ours = layout(network)
        for old, new in rename.items():
            ours = {key.replace(old, new): shape for key, shape in ours.items()}
        assert ours == keys[config[name]["ckpt_path"]]


@pytest.mark.parametrize("which", ["path", "swinir_path"])
def test_wrong_files_are_refused(folder, config, which, tmp_path):
    case = read_json(folder / "cases.json")[0]
    given = settings(folder, config, {**case, "need_restoration": True})
    whole = given[which].read_bytes()
    (tmp_path / "short.pth").write_bytes(whole[: len(whole) // 2])
    network = "unet" if which == "path" else "swinir"
    other = given["swinir_path" if which == "path" else "path"]
    for path in (tmp_path / "short.pth", other):
        with pytest.raises(WeightsError) as told:  # a cut file when it is found, a foreign one when it is loaded
            _ = getattr(make_restorer("difface", device="cpu", **{**given, which: path}), network)
        assert str(path) in str(told.value)
        assert "\n" not in str(told.value)
