"""GFPGAN against outputs of the published code. Everything that varies is read from the golden folder."""

import hashlib
import re
from importlib.util import find_spec

import pytest
import torch

from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers import RestorationBatch
from ffhqref.zoo.gfpgan.network import build_network
from ffhqref.zoo.gfpgan.restorer import GFPGAN
from ffhqref.zoo.shared.aligned import resize_8bit

from .golden_tools import close, layout, recorded, same_levels

METHOD = "gfpgan"
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not find_spec("spandrel"), reason="no spandrel here")]

TAPS = {
    "down": "conv_body_down",
    "up": "conv_body_up",
    "scale": "condition_scale",
    "shift": "condition_shift",
    "style_convs": "stylegan_decoder.style_convs",
    "to_rgbs": "stylegan_decoder.to_rgbs",
    "style_conv1": "stylegan_decoder.style_conv1",
    "to_rgb1": "stylegan_decoder.to_rgb1",
    "final_conv_preact": "final_conv",
}
"""The golden set's names of layers, without the number of the level."""


def module_of(tap, network):
    name = tap.removeprefix("tap.")
    plain, number = re.fullmatch(r"(.*?)(\d+|_last)?", name).groups()
    if name in TAPS or plain not in TAPS:
        return TAPS.get(name, name)
    last = len(network.get_submodule(TAPS[plain])) - 1
    return f"{TAPS[plain]}.{last if number == '_last' else number}"


def restorer(golden_set, case):
    return GFPGAN(
        golden_set.checkpoint(case),
        config=golden_set.config[case["config"]],
        noise="case" if case["randomize_noise"] else "stored",
        device="cpu",
    )


def check(golden_set, case):
    made, stored = restorer(golden_set, case), golden_set.tensors(case["file"])
    lq, seeds = to_tensor([golden_set.picture(case)]), [case.get("torch_seed", 0)]
    if "resized_rgb_u8" in stored:
        same_levels(stored, "resized_rgb_u8", to_uint8(resize_8bit(lq, made.side))[0])
    taps = {key: module_of(key, made.network) for key in stored if key.startswith("tap.")}
    with recorded(made.network, ["", *taps.values()]) as seen:
        picture = made.restore_faces(lq, seeds)
    for key, name in taps.items():
        close(stored, key, seen[name][-1])
    ((raw, _),) = seen[""]
    close(stored, "raw_output", raw)
    same_levels(stored, "output_rgb_u8", to_uint8(picture)[0])


def test_cases_end_to_end(golden_set):
    for case in golden_set.cases:
        if case["checkpoint"]:
            check(golden_set, case)


@pytest.mark.slow
def test_full_size_end_to_end(golden_set):
    for case in golden_set.cases:
        if not case["checkpoint"]:
            check(golden_set, case)


def test_noise_is_what_the_official_network_draws(golden_set):
    drawn = [case for case in golden_set.cases if case["randomize_noise"]]
    if not drawn:
        pytest.skip("no case with fresh noise")
    for case in drawn:
        maps = restorer(golden_set, case).noise_maps(case["torch_seed"])
        digest = hashlib.sha256(b"".join(noise.numpy().tobytes() for noise in maps.values()))
        assert digest.hexdigest() == case["noise_sha256"]
        stored = golden_set.tensors(case["file"])
        for index, noise in enumerate(maps.values()):
            close(stored, f"noise{index:02d}", noise, tolerance=1e-7)


def test_a_square_of_the_right_side_is_restored_as_it_is(golden_set):
    case = golden_set.cases[0]
    made, picture = restorer(golden_set, case), to_tensor([golden_set.picture(case)])
    lq = resize_8bit(picture, made.side)
    batch = RestorationBatch(lq=lq, references=[torch.zeros(0, 3, 8, 8)], seeds=[case.get("torch_seed", 0)])
    assert torch.equal(made.restore(batch), made.restore_faces(picture, batch.seeds))


@pytest.mark.parametrize("name", ["small", "full"])
def test_layout_is_the_official_one(golden_set, name):
    config = GFPGAN(golden_set.folder / "config.json", config=golden_set.config[name]).config
    with torch.device("meta"):
        network = build_network(config)
    assert layout(network) == golden_set.keys(name)


def test_default_architecture_is_the_released_one(golden_set):
    path = golden_set.folder / "config.json"
    assert GFPGAN(path).config == GFPGAN(path, config=golden_set.config["full"]).config
