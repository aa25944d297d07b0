"""Equality of `dmdnet` with the published code, landmarks given. All that varies is read from the golden folder."""

import hashlib
import re

import numpy as np
import pytest
import torch

from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.zoo.dmdnet.boxes import part_boxes
from ffhqref.zoo.dmdnet.config import DMDNetConfig
from ffhqref.zoo.dmdnet.network import DMDNet
from ffhqref.zoo.dmdnet.restorer import DMDNetRestorer
from ffhqref.zoo.shared.aligned import enlarged
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.spectral import fold

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

CASES = cases_of("dmdnet")

pytestmark = pytest.mark.golden


PARTS = [f"{part}_{scale}" for part in ("LE", "RE", "MO") for scale in (256, 128, 64)]


def digest(picture):
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()


def remembering(forward):
    """The generic and the specific pass encode the same image; once is enough for a test."""
    known = []

    def once(x):
        if not known or not torch.equal(known[0], x):
            known[:] = [x, forward(x)]
        return known[1]

    return once


@pytest.fixture(scope="module")
def network(golden):
    """The full-size network of the golden folder's rule; too large a file to be written for a test."""
    folder = folder_of(golden, "dmdnet")
    config = read_json(folder / "config.json")
    keys = read_json(folder / "keys_full.json")
    state = weights_from_rule(config["weights_rule"], "full", keys)
    with torch.device("meta"):
        built = DMDNet(read_architecture(DMDNetConfig, config["full"]))
    built.load_state_dict(state, strict=True, assign=True)
    fold(built)
    for part in (built.E_lq, built.MSDilate):
        part.forward = remembering(part.forward)
    return built.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=CASES, ids=case_id)
def run(request, golden, network, tmp_path_factory):
    """A case and, for each mode, the taps' layers, all layers' outputs and what the restorer makes of it."""
    case, folder = request.param, folder_of(golden, "dmdnet")
    stored = case_tensors(folder, case)
    lq = to_tensor([stored["lq_rgb_u8"].numpy()])
    references = torch.zeros(0, 3, 512, 512)
    if case["n_ref"]:
        halves = [stored[f"ref{index}_rgb_u8_half"].numpy() for index in range(case["n_ref"])]
        references = to_tensor([np.repeat(np.repeat(half, 2, axis=0), 2, axis=1) for half in halves])
    known = {digest(picture): stored[f"ref{index}_landmarks"] for index, picture in enumerate(to_uint8(references))}
    known[digest(to_uint8(enlarged(lq))[0])] = stored["lq_landmarks"]
    stand_in = tmp_path_factory.mktemp("dmdnet") / "stand_in.pth"
    stand_in.write_bytes(b"the network comes from the fixture")
    found = {}
    for mode in ("generic", "specific") if case["n_ref"] else ("generic",):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FFHQREF_WEIGHTS", str(stand_in.parent))
            restorer = DMDNetRestorer(
                stand_in, mode=mode, landmarks=lambda picture: known[digest(picture)].numpy(), device="cpu"
            )
        restorer.network = network
        # the published run made both results; taps of its second pass end in .1
        taps = {
            key: re.sub(r"^(\w\w_\d+_Q)$", r"E_lq.\1", key.removeprefix("tap.").removesuffix(".1"))
            for key in stored
            if key.startswith("tap.") and key.endswith(".1") == (mode == "specific")
        }
        queries, slots = ([pattern.format(name) for name in PARTS] for pattern in ("E_lq.{}_Q", "{}_KV"))
        inputs = {}
        handles = [
            network.get_submodule(name).register_forward_pre_hook(
                lambda _module, given, name=name, inputs=inputs: inputs.__setitem__(name, given[0])
            )
            for name in [*queries, *(f"{name}_Attention" for name in PARTS)]
        ]
        with recorded(network, {"", *taps.values(), *queries, *slots}) as outputs:
            made = restorer.restore_faces(lq, [references])
        for handle in handles:
            handle.remove()
        normed = {name: inputs[f"{name}_Attention"] + inputs[f"E_lq.{name}_Q"] for name in PARTS}
        found[mode] = (taps, outputs, normed, made)
    return stored, found


def test_layers(run):
    stored, found = run
    for taps, outputs, _, _ in found.values():
        assert taps
        for key, layer in taps.items():
            assert off(outputs[layer][0], stored[key]) < TOLERANCE, key


def test_reads_of_the_memories(run, network):
    stored, found = run
    for mode, (_, outputs, normed, _) in found.items():
        prefix = "gen." if mode == "generic" else "spe."
        for key in stored:
            if key.startswith(prefix) and key.endswith("Norm"):
                name = key.removeprefix(prefix).removesuffix("Norm")
                assert off(normed[f"{name[:2]}_{name[2:]}"], stored[key]) < TOLERANCE, key
        best = []
        for scale in (256, 128, 64):
            for part in ("LE", "RE", "MO"):
                query = outputs[f"E_lq.{part}_{scale}_Q"][0].flatten()
                keys = network.get_buffer(f"{part.lower()}_{scale}_mem_key").flatten(1)
                best.append(int((keys @ query).argmax()))
        assert best == stored[f"{prefix}max_index"].tolist()


def test_slots_of_the_references(run):
    stored, found = run
    for key in [key for key in stored if key.startswith("spec.")]:
        part, scale, kind = re.fullmatch(r"spec\.(..)(\d+)(Key|Value)", key).groups()
        slots = found["specific"][1][f"{part}_{scale}_KV"]
        ours = torch.cat([slot[("Key", "Value").index(kind)] for slot in slots])
        assert off(ours, stored[key]) < TOLERANCE, key


def test_output(run):
    stored, found = run
    for mode, (_, outputs, _, made) in found.items():
        assert off(outputs[""][0], stored_as(stored, f"{mode}_raw")) < TOLERANCE
        check_levels(to_uint8(made)[0], stored[f"{mode}_rgb_u8"])


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_boxes(golden, case):
    stored = case_tensors(folder_of(golden, "dmdnet"), case)
    for name in [key.removesuffix("_landmarks") for key in stored if key.endswith("_landmarks")]:
        boxes = part_boxes(stored[f"{name}_landmarks"].numpy())
        left, right, _, mouth = stored[f"{name}_locations"].tolist()
        assert [list(map(float, boxes[part])) for part in ("LE", "RE", "MO")] == [left, right, mouth]


def test_layout_of_the_file(golden):
    folder = folder_of(golden, "dmdnet")
    for given in (None, read_json(folder / "config.json")["full"]):
        with torch.device("meta"):
            built = DMDNet(read_architecture(DMDNetConfig, given))
        assert layout(built) == read_json(folder / "keys_full.json")
