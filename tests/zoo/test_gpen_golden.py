"""Equality of `gpen` with the published code. Everything that varies is read from the golden folder."""

import re

import pytest
import torch

from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.zoo.gpen.config import GPENConfig
from ffhqref.zoo.gpen.network import FullGenerator
from ffhqref.zoo.gpen.restorer import GPEN
from ffhqref.zoo.shared.architecture import read_architecture

from .golden_tools import (
    TOLERANCE,
    case_id,
    case_tensors,
    cases_of,
    check_levels,
    folder_of,
    layout,
    off,
    read_json,
    recorded,
    stored_as,
    weights_from_rule,
)

CASES = cases_of("gpen")

pytestmark = pytest.mark.golden


def layer_of(tap):
    """Return the module whose output a tap is: ``convs0.conv`` is ``generator.convs.0.conv``."""
    if re.match(r"ecd\d|final_linear", tap):
        return tap
    return "generator." + re.sub(r"^(convs|to_rgbs)(\d+)", r"\1.\2", tap)


@pytest.fixture(scope="module", params=CASES, ids=case_id)
def run(request, golden, tmp_path_factory):
    """A case, the outputs of its layers, and what the restorer makes of its image."""
    folder, case = folder_of(golden, "gpen"), request.param
    temporary = tmp_path_factory.mktemp("gpen")
    config, stored = read_json(folder / "config.json"), case_tensors(folder, case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFHQREF_WEIGHTS", str(temporary))
        if case["checkpoint"] and (folder / case["checkpoint"]).is_file():
            path = folder / case["checkpoint"]
        else:
            path = temporary / "rule.pth"
            keys = read_json(folder / f"keys_{case['config']}.json")
            kept = FullGenerator(read_architecture(GPENConfig, config[case["config"]])).state_dict()
            state = weights_from_rule(config["weights_rule"], case["config"], keys, kept)
            torch.save(state, path)
        restorer = GPEN(path, config=config[case["config"]], device="cpu")
    layers = {key: layer_of(key.removeprefix("tap.")) for key in stored if key.startswith("tap.")}
    seen = []
    restorer.network.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    with recorded(restorer.network, ["", *layers.values()]) as outputs:
        made = restorer.restore_faces(to_tensor([stored["input_rgb_u8"].numpy()]), [0])
    return stored, {key: outputs[layer][0] for key, layer in layers.items()}, seen[0], outputs[""][0], made, restorer


def test_what_the_network_is_fed(run):
    stored, _, seen, _, _, _ = run
    if "network_input_s8" in stored:
        assert off(seen, stored["network_input_s8"]) < 1e-6


def test_layers(run):
    stored, layers, _, _, _, _ = run
    for key, ours in layers.items():
        assert off(ours, stored[key]) < TOLERANCE, key


def test_output(run):
    stored, _, _, raw, made, restorer = run
    assert off(raw, stored_as(stored, "raw_output")) < TOLERANCE
    check_levels(to_uint8(made, restorer.quantization)[0], stored_as(stored, "output_rgb_u8"))


def test_layout_of_the_files(golden):
    folder = folder_of(golden, "gpen")
    config = read_json(folder / "config.json")
    for keys, given in (("full", None), ("full", config["full"]), ("small", config["small"])):
        with torch.device("meta"):
            network = FullGenerator(read_architecture(GPENConfig, given))
        assert layout(network) == read_json(folder / f"keys_{keys}.json")
