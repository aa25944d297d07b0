"""DR2 and SPARNetHD against the published code. Everything that varies is read from the golden folder."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ffhqref.core.errors import WeightsError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.dr2.config import DR2Config
from ffhqref.zoo.dr2.network import SPARNetHD, folded
from ffhqref.zoo.shared.guided_diffusion.draws import StoredDraws
from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

from .golden_diffusion import file_with, recorded_chain
from .golden_tools import TOLERANCE, folder_of, layout, read_json, relative

pytestmark = pytest.mark.golden
ENHANCED_TOLERANCE = 1e-3
"""The enhancer's random weights enlarge rounding; its values reach ±10 (README of the golden folder)."""


@pytest.fixture(scope="module")
def folder(golden):
    return folder_of(golden, "dr2")


def files(folder):
    return {
        "path": file_with(folder, "input_blocks.0.0.weight")[0],
        "sparnet_path": file_with(folder, "out_conv.conv2d.bias")[0],
        "config": folder / "config.json",
    }


@pytest.fixture(scope="module")
def cases(folder):
    """Each case, its tensors, its batch, the restorer under its settings, and what that makes of the stored draws."""
    made, shared = [], {}
    for case in read_json(folder / "cases.json"):
        restorer = make_restorer("dr2", device="cpu", N=case["N"], tau=case["tau"], **files(folder))
        restorer.__dict__.update(shared)
        shared = {"unet": restorer.unet, "sparnet": restorer.sparnet}
        stored = load_file(folder / case["file"])
        batch = RestorationBatch(to_tensor([stored["lq_u8"].numpy()]), [torch.zeros(0, 3, 8, 8)], [0])
        draws = StoredDraws(stored["draws"])
        made.append((case, stored, batch, restorer, recorded_chain(restorer, batch, draws)))
        assert draws.used == len(stored["draws"]), case
    return made


def test_restorer_gives_the_published_pictures(cases):
    for case, stored, batch, restorer, (made, picture, steps) in cases:
        removed = steps[-1].x0
        assert relative(removed, stored["dr2_out"]) < TOLERANCE, case
        for ours, theirs in (((removed + 1) / 2, "dr2_u8"), (made, "image_u8")):
            levels = to_uint8(ours, restorer.quantization)[0].astype(int) - stored[theirs].numpy()
            assert np.abs(levels).max() <= 1, (case, theirs)
        if "image" in stored:
            assert relative(made, stored["image"]) < ENHANCED_TOLERANCE
        assert picture.shape == batch.lq.shape


def test_chain(cases):
    for case, stored, batch, restorer, (_, _, steps) in cases:
        assert restorer.omega == case["omega"]
        assert relative(restorer.prepared(batch.lq), stored["ref_img"]) < 1e-6
        assert [step.time for step in steps] == stored["timesteps"].tolist(), case
        with torch.no_grad():
            assert (
                relative(restorer.sparnet(restorer.enlarged(stored["dr2_out"])), stored["sr_out"]) < ENHANCED_TOLERANCE
            )


def test_first_steps(cases):
    checked = 0
    for _, stored, _, restorer, (_, _, steps) in cases:
        if "unet_first_out" not in stored:
            continue
        checked += 1
        assert steps[0].time == int(stored["unet_first_t"][0])
        assert relative(steps[0].entered, stored["unet_first_x"]) < TOLERANCE
        assert relative(steps[0].output, stored["unet_first_out"]) < TOLERANCE
        assert relative(steps[0].state, stored["p_sample_first"]) < TOLERANCE
        assert relative(steps[1].entered, stored["state_after_first"]) < TOLERANCE
        assert relative(restorer.enlarged(stored["dr2_out"]), stored["sr_in"]) < 1e-6
    assert checked


def test_full_size_layout(folder):
    official = read_json(folder / "config.json")["official_defaults"]
    sizes = {name: official[name] for name in ("dr2_size", "sr_size")}
    full = DR2Config.load({"unet": official["unet"], "spar": official["spar"], "inference": sizes})
    assert full == DR2Config()
    with torch.device("meta"):
        unet, sparnet = GuidedUNet(full.unet), SPARNetHD(full.sparnet)
        _, full_layout = file_with(folder, "out_conv.conv2d.bias")
        # with the spectral norms folded in, as the loader does
        theirs = folded({name: torch.empty(shape) for name, shape in full_layout.items()}, "full size")
    assert layout(unet) == file_with(folder, "input_blocks.0.0.weight")[1]
    assert {name: value.shape for name, value in sparnet.state_dict().items()} == {
        name: value.shape for name, value in theirs.items()
    }


class Trap:
    """Touches a file when unpickled by code that lets pickles run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


@pytest.mark.parametrize(("which", "network"), [("path", "unet"), ("sparnet_path", "sparnet")])
def test_wrong_files_are_refused(folder, which, network, tmp_path):
    given = files(folder)
    whole = given[which].read_bytes()
    (tmp_path / "short.pkl").write_bytes(whole[: len(whole) // 2])
    torch.save({"time_embed.0.weight": torch.zeros(2), "more": Trap(tmp_path / "sprung")}, tmp_path / "foreign.pkl")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    tensors = torch.load(given[which], weights_only=True)
    torch.save({name: value for name, value in tensors.items() if not name.endswith("weight_u")}, tmp_path / "cut.pkl")
    wrong = [tmp_path / "short.pkl", tmp_path / "foreign.pkl", tmp_path / "plain.pkl"]
    wrong.append(given["path"] if which == "sparnet_path" else given["sparnet_path"])
    if which == "sparnet_path":
        wrong.append(tmp_path / "cut.pkl")
    for path in wrong:
        with pytest.raises(WeightsError) as told:
            getattr(make_restorer("dr2", device="cpu", **{**given, which: path}), network)
        assert str(path) in str(told.value)
        assert "\n" not in str(told.value)
    assert not (tmp_path / "sprung").exists()
