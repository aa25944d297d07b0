"""Equality of `dmdnet` with the published code, landmarks given. All that varies is read from the golden folder."""

import hashlib
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from ffhqref.images import to_tensor, to_uint8
from ffhqref.restorers.architecture import read_architecture
from ffhqref.restorers.dmdnet.blocks import fold
from ffhqref.restorers.dmdnet.boxes import part_boxes
from ffhqref.restorers.dmdnet.config import DMDNetConfig
from ffhqref.restorers.dmdnet.network import DMDNet
from ffhqref.restorers.dmdnet.restorer import DMDNetRestorer, _fitted

tools = runpy.run_path(str(Path(__file__).with_name("golden_tools.py")))
off, read_json = tools["off"], tools["read_json"]
ROOT = Path(os.environ.get("FFHQREF_GOLDEN", Path(__file__).parents[3] / "shared/golden"))
CASES = tools["cases_of"](ROOT, "dmdnet")

pytestmark = pytest.mark.golden


def quick(case):
    """The cheapest case with references is for every run; the network has 600 MB, and the others take their time."""
    return case is None or case["n_ref"] == min((each["n_ref"] for each in CASES if each["n_ref"]), default=0)


def parameters():
    modes = {"generic": lambda case: True, "specific": lambda case: case is None or case["n_ref"] > 0}
    for case in CASES:
        for mode, has in modes.items():
            if has(case):
                marks = [] if quick(case) else [pytest.mark.slow]
                yield pytest.param((case, mode), marks=marks, id=f"{tools['case_id'](case)}-{mode}")


@pytest.fixture(scope="module")
def network(golden):
    """The full-size network of the golden folder's rule; too large a file to be written for a test."""
    folder = tools["folder_of"](golden, "dmdnet")
    config = read_json(folder / "config.json")
    keys = read_json(folder / "keys_full.json")
    state = tools["weights_from_rule"](config["weights_rule"], "full", keys)
    with torch.device("meta"):
        built = DMDNet(read_architecture(DMDNetConfig, config["full"]))
    built.load_state_dict(state, strict=True, assign=True)
    fold(built)
    return built.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=parameters())
def run(request, golden, network, tmp_path_factory):
    """A case, the outputs of its layers, and what the restorer makes of its pictures."""
    case, mode = request.param
    folder = tools["folder_of"](golden, "dmdnet")
    stored = tools["case_tensors"](folder, case)
    lq = to_tensor([stored["lq_rgb_u8"].numpy()])
    references = torch.zeros(0, 3, 512, 512)
    if case["n_ref"]:
        halves = [stored[f"ref{index}_rgb_u8_half"].numpy() for index in range(case["n_ref"])]
        references = to_tensor([np.repeat(np.repeat(half, 2, axis=0), 2, axis=1) for half in halves])
    known = {digest(picture): stored[f"ref{index}_landmarks"] for index, picture in enumerate(to_uint8(references))}
    known[digest(to_uint8(_fitted(lq))[0])] = stored["lq_landmarks"]
    stand_in = tmp_path_factory.mktemp("dmdnet") / "stand_in.pth"
    stand_in.write_bytes(b"the network comes from the fixture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFHQREF_WEIGHTS", str(stand_in.parent))
        restorer = DMDNetRestorer(
            stand_in, mode=mode, landmarks=lambda picture: known[digest(picture)].numpy(), device="cpu"
        )
    restorer.network = network
    suffix = ".1" if mode == "specific" and any(key.endswith(".1") for key in stored) else ""
    taps = {
        key: key.removeprefix("tap.").removesuffix(".1")
        for key in stored
        if key.startswith("tap.") and (key.endswith(".1") if suffix else not key.endswith(".1"))
    }
    taps = {key: name if "_Q" not in name else f"E_lq.{name}" for key, name in taps.items()}
    parts = [f"{part}_{scale}" for part in ("LE", "RE", "MO") for scale in (256, 128, 64)]
    memories = [f"E_lq.{name}_Q" for name in parts]
    given = {}
    handles = [
        network.get_submodule(f"{name}_Attention").register_forward_pre_hook(
            lambda _module, args, name=name: given.__setitem__(name, args[0])
        )
        for name in parts
    ] + [
        network.get_submodule(f"E_lq.{name}_Q").register_forward_pre_hook(
            lambda _module, args, name=name: given.__setitem__(f"own.{name}", args[0])
        )
        for name in parts
    ]
    with tools["recorded"](network, {"", *taps.values(), *memories}) as outputs:
        made = restorer.restore_faces(lq, [references])
    for handle in handles:
        handle.remove()
    normed = {name: given[name] + given[f"own.{name}"] for name in parts}
    return case, mode, stored, taps, {name: found[0] for name, found in outputs.items()}, normed, references, made


def digest(picture):
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()


def test_layers(run):
    _, _, stored, taps, outputs, _, _, _ = run
    assert taps
    for key, layer in taps.items():
        assert off(outputs[layer], stored[key]) < tools["TOLERANCE"], key


def test_reads_of_the_memories(run, network):
    _, mode, stored, _, outputs, normed, _, _ = run
    prefix = "gen." if mode == "generic" else "spe."
    for key in stored:
        if key.startswith(prefix) and key.endswith("Norm"):
            name = key.removeprefix(prefix).removesuffix("Norm")
            assert off(normed[f"{name[:2]}_{name[2:]}"], stored[key]) < tools["TOLERANCE"], key
    best = []
    for scale in (256, 128, 64):
        for part in ("LE", "RE", "MO"):
            query = outputs[f"E_lq.{part}_{scale}_Q"].flatten()
            keys = network.get_buffer(f"{part.lower()}_{scale}_mem_key").flatten(1)
            best.append(int((keys @ query).argmax()))
    assert best == stored[f"{prefix}max_index"].tolist()


def test_slots_of_the_references(run, network):
    case, mode, stored, _, _, _, references, _ = run
    if mode == "generic":
        return
    boxes = [part_boxes(stored[f"ref{index}_landmarks"].numpy()) for index in range(case["n_ref"])]
    with torch.no_grad():
        slots = network.specific_memory(list(zip((references * 2 - 1).split(1), boxes, strict=True)))
    keys = [key for key in stored if key.startswith("spec.")]
    assert keys
    for key in keys:
        name = key.removeprefix("spec.")
        stem, kind = (name[:-3], 0) if name.endswith("Key") else (name[:-5], 1)
        assert off(slots[f"{stem[:2]}_{stem[2:]}"][kind], stored[key]) < tools["TOLERANCE"], key


def test_output(run):
    _, mode, stored, _, outputs, _, _, made = run
    assert off(outputs[""], tools["stored_as"](stored, f"{mode}_raw")) < tools["TOLERANCE"]
    tools["check_levels"](to_uint8(made)[0], stored[f"{mode}_rgb_u8"])


@pytest.mark.parametrize("case", CASES, ids=tools["case_id"])
def test_boxes(golden, case):
    stored = tools["case_tensors"](tools["folder_of"](golden, "dmdnet"), case)
    for name in [key.removesuffix("_landmarks") for key in stored if key.endswith("_landmarks")]:
        boxes = part_boxes(stored[f"{name}_landmarks"].numpy())
        left, right, _, mouth = stored[f"{name}_locations"].tolist()
        assert [list(map(float, boxes[part])) for part in ("LE", "RE", "MO")] == [left, right, mouth]


def test_layout_of_the_file(golden):
    folder = tools["folder_of"](golden, "dmdnet")
    for given in (None, read_json(folder / "config.json")["full"]):
        with torch.device("meta"):
            built = DMDNet(read_architecture(DMDNetConfig, given))
        assert tools["layout"](built) == read_json(folder / "keys_full.json")
