"""Equality of `vqfr` and `vqfr_v1` with the published code. All that varies is read from the golden folders."""

import re

import pytest
import torch

from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.vqfr.config import VQFRConfig, VQFRv1Config
from ffhqref.zoo.vqfr.network import VQFRv2
from ffhqref.zoo.vqfr.network_v1 import VQFRv1
from ffhqref.zoo.vqfr.restorer import VQFR, VQFRVersion1

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
    share_over_edges,
    stored_as,
)

CASES = [(method, case) for method in ("vqfr", "vqfr_v1") for case in cases_of(method)]
KINDS = {"vqfr": (VQFR, VQFRv2, VQFRConfig), "vqfr_v1": (VQFRVersion1, VQFRv1, VQFRv1Config)}

pytestmark = pytest.mark.golden


def layer_of(method, tap):
    """Return the module whose output a tap is."""
    main = "main_branch" if method == "vqfr" else "main_decoder"
    level = re.fullmatch(r"L(\d+)\.(\w+)", tap)
    if level:
        align = f"{main}.align_func_dict.Level_{level[1]}"
        return {
            "offset_feat": f"{align}.offset_conv2",
            "conv_offset": f"{align}.dcn.conv_offset",
            "warp": f"{align}.dcn",
            "main": f"{main}.decoder_dict.Level_{level[1]}",
        }[level[2]]
    decoder = re.fullmatch(r"dec\.(?:block(\d+)|L(\d+))", tap)
    if decoder:
        return f"decoder.blocks.{decoder[1]}" if decoder[1] else f"decoder.decoder_dict.Level_{decoder[2]}"
    names = {"enc": "encoder", "enc_out": "encoder", "inpfeat": "inpfeat_extraction", "logits": "feat2index"}
    names |= {"quant_out": "quantizer", "quant_conv": "quantizer.quantize_dict.Level_32.quant_conv"}
    return names[tap]


@pytest.fixture(scope="module", params=CASES, ids=lambda item: f"{item[0]}-{case_id(item[1])}")
def run(request, golden, tmp_path_factory):
    """A case, the outputs of its layers, and what the restorer makes of its image."""
    method, case = request.param
    folder = folder_of(golden, method)
    config, stored = read_json(folder / "config.json"), case_tensors(folder, case)
    options = {"fidelity_ratio": case["fidelity_ratio"]} if method == "vqfr" else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFHQREF_WEIGHTS", str(tmp_path_factory.mktemp("weights")))
        path = folder / case["checkpoint"]
        restorer = KINDS[method][0](path, config=config[case["config"]], device="cpu", **options)
    layers = {key: layer_of(method, key.removeprefix("tap.")) for key in stored if key.startswith("tap.")}
    names = {"", "encoder", "decoder", *layers.values(), *({"feat2index"} if method == "vqfr" else ())}
    with recorded(restorer.network, names) as outputs:
        made = restorer.restore_faces(to_tensor([stored["input_rgb_u8"].numpy()]), [0])
    return method, stored, layers, {name: found[0] for name, found in outputs.items() if found}, made, restorer


def test_codes(run):
    method, stored, _, outputs, _, restorer = run
    if method == "vqfr":
        codes = outputs["feat2index"].argmax(dim=2).view(stored["code_indices"].shape)
    else:
        (quantizer,) = restorer.network.quantizer.quantize_dict.values()
        codes = quantizer.code_indices(outputs["encoder"])[0]
    assert torch.equal(codes, stored["code_indices"])


def test_layers(run):
    _, stored, layers, outputs, _, restorer = run
    for key, layer in layers.items():
        assert off(outputs[layer], stored[key]) < TOLERANCE, key
    with torch.no_grad():
        picture = restorer.network.decoder.conv_out(outputs["decoder"][-1])
    assert off(picture, stored_as(stored, "texture_dec")) < TOLERANCE


def test_output(run):
    _, stored, _, outputs, made, _ = run
    assert off(outputs[""], stored_as(stored, "raw_output")) < TOLERANCE
    share = share_over_edges(outputs[""], stored_as(stored, "raw_output"))
    check_levels(to_uint8(made)[0], stored_as(stored, "output_rgb_u8"), share)


@pytest.mark.parametrize("method", KINDS)
def test_layout_of_the_files(golden, method):
    folder = folder_of(golden, method)
    _, network, kind = KINDS[method]
    config = read_json(folder / "config.json")
    for keys, given in (("full", None), ("full", config["full"]), ("small", config["small"])):
        with torch.device("meta"):
            built = network(read_architecture(kind, given))
        assert layout(built) == read_json(folder / f"keys_{keys}.json")
