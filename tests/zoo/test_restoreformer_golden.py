"""RestoreFormer and RestoreFormer++ against the published code. All that varies is read from the golden folders."""

from importlib.util import find_spec

import pytest
import torch

from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.zoo.restoreformer.network import build_network, run_network
from ffhqref.zoo.restoreformer.restorer import RestoreFormer, RestoreFormerPP
from ffhqref.zoo.shared.aligned import resize_8bit
from ffhqref.zoo.shared.network import signed

from .golden_tools import TOLERANCE, close, layout, off, recorded, same_levels, stored_as

METHODS = {"restoreformer": RestoreFormer, "restoreformer_pp": RestoreFormerPP}
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not find_spec("spandrel"), reason="no spandrel here"),
    pytest.mark.parametrize("golden_set", METHODS, indirect=True),
]


def restorer(golden_set, case):
    kind = METHODS[golden_set.folder.name]
    return kind(golden_set.checkpoint(case), config=golden_set.config[case["config"]], device="cpu")


def check(golden_set, case):
    made, stored = restorer(golden_set, case), golden_set.tensors(case["file"])
    lq = to_tensor([golden_set.picture(case)])
    if "resized_rgb_u8" in stored:
        same_levels(stored, "resized_rgb_u8", to_uint8(resize_8bit(lq, made.side))[0])
    taps = {key: key.removeprefix("tap.") for key in stored if key.startswith("tap.")}
    names = {"quantize", "decoder", *taps.values()}
    with recorded(made.network, sorted(names)) as seen:
        picture = made.restore_faces(lq, [0])
    ((codes, _, (_, _, indices, distances)),) = seen["quantize"]
    for key, name in taps.items():
        close(stored, key, codes if name == "quantize" else seen[name][-1])
    assert torch.equal(indices.reshape(stored["code_indices"].shape), stored["code_indices"])
    name = next(key for key in stored if key.startswith("distances_t"))
    close(stored, name, distances[:: int(name.removeprefix("distances_t"))])
    # the set's README: ten times the published network's own distance to float64 is fair, whatever the processor
    wanted, raw = stored_as(stored, "raw_output"), seen["decoder"][-1]
    assert off(raw, wanted) * float(wanted.abs().max()) <= 10 * case["float32_vs_float64_max_abs"]
    same_levels(stored, "output_rgb_u8", to_uint8(picture)[0])
    return made, signed(resize_8bit(lq, made.side)), wanted


def test_cases_end_to_end(golden_set):
    for case in golden_set.cases:
        if case["checkpoint"]:
            made, faces, wanted = check(golden_set, case)
            # float64 leaves out how a processor orders float32 sums
            with torch.no_grad():
                assert off(run_network(made.network.double(), faces.double()), wanted) < TOLERANCE


@pytest.mark.slow
def test_full_size_end_to_end(golden_set):
    for case in golden_set.cases:
        if not case["checkpoint"]:
            check(golden_set, case)


@pytest.mark.parametrize("name", ["small", "full"])
def test_layout_is_the_official_one(golden_set, name):
    kind = METHODS[golden_set.folder.name]
    config = kind(golden_set.folder / "config.json", config=golden_set.config[name]).config
    with torch.device("meta"):
        network = build_network(config)
    assert layout(network) == golden_set.keys(name)


def test_default_architecture_is_the_released_one(golden_set):
    kind, path = METHODS[golden_set.folder.name], golden_set.folder / "config.json"
    assert kind(path).config == kind(path, config=golden_set.config["full"]).config
