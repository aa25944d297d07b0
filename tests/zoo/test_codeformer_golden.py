"""CodeFormer against outputs of the published code. Everything that varies is read from the golden folder."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.zoo.codeformer.network import CodeFormerNetwork
from ffhqref.zoo.codeformer.restorer import CodeFormer, grey_like, is_grey
from ffhqref.zoo.shared.aligned import resize_8bit
from ffhqref.zoo.shared.network import unsigned

from .golden_tools import close, layout, recorded, same_levels

METHOD = "codeformer"
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not find_spec("spandrel_extra_arches"), reason="no spandrel-extra-arches here"),
]


def restorer(golden_set, case):
    return CodeFormer(
        golden_set.checkpoint(case),
        config=golden_set.config[case["config"]],
        fidelity_weight=case["fidelity_weight"],
        adain=case["adain"],
        device="cpu",
    )


def module_of(tap, network):
    part, name = tap.removeprefix("tap.").split(".", 1) if "." in tap.removeprefix("tap.") else ("", tap)
    if part in ("enc", "gen"):
        blocks = "encoder.blocks" if part == "enc" else "generator.blocks"
        return f"{blocks}.{len(network.get_submodule(blocks)) - 1 if name == 'last' else name}"
    return f"fuse_convs_dict.{name}" if part == "fuse" else tap.removeprefix("tap.")


def check(golden_set, case):
    made, stored = restorer(golden_set, case), golden_set.tensors(case["file"])
    lq = to_tensor([golden_set.picture(case)])
    taps = {key: module_of(key, made.network) for key in stored if key.startswith("tap.")}
    with recorded(made.network, ["", *taps.values()]) as seen:
        picture = made.restore_faces(lq, [0])
    ((raw, logits),) = seen[""]
    for key, name in taps.items():
        ours = seen[name][-1]
        close(stored, key, ours[:: ours.shape[0] // stored[key].shape[0]] if ours.ndim == 3 else ours)
    for key in stored:
        if key.startswith("logits_t"):
            close(stored, key, logits[:, :: int(key.removeprefix("logits_t"))])
    if "code_indices" in stored:
        assert torch.equal(logits.argmax(2).reshape(stored["code_indices"].shape), stored["code_indices"])
    close(stored, "raw_output", raw)
    face = to_uint8(resize_8bit(lq, made.side))[0]
    assert is_grey(face) == case.get("gray", False)
    if is_grey(face):
        before = to_uint8(unsigned(raw))[0]
        same_levels(stored, "before_gray_rgb_u8", before)
        ours, golden = grey_like(before, face), stored["gray_float_s4"].numpy()
        step = ours.shape[0] // golden.shape[0]
        # a level more or less before is this much after
        assert np.abs(ours[::step, ::step] - golden).max() < 1
    same_levels(stored, "output_rgb_u8", to_uint8(picture)[0])


def test_first_case_end_to_end(golden_set):
    check(golden_set, golden_set.cases[0])


@pytest.mark.slow
def test_other_cases_end_to_end(golden_set):
    for case in golden_set.cases[1:]:
        check(golden_set, case)


def test_layout_is_the_official_one(golden_set):
    config = CodeFormer(golden_set.folder / "config.json", config=golden_set.config["full"]).config
    with torch.device("meta"):
        network = CodeFormerNetwork(config)
    assert layout(network) == golden_set.keys("full")


def test_defaults_are_the_published_ones(golden_set):
    path = golden_set.folder / "config.json"
    made, published = CodeFormer(path), golden_set.config["inference"]
    assert made.config == CodeFormer(path, config=golden_set.config["full"]).config
    assert (made.fidelity_weight, made.adain) == (published["w_default"], published["adain"])
