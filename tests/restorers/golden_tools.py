"""What the golden tests of GPEN, VQFR and DMDNet share: weights from a rule, layer outputs, strided comparison.

Loaded with ``runpy.run_path``, since test files are no package.
"""

import contextlib
import hashlib
import json
import math
import re
import zlib

import numpy as np
import torch
from safetensors.torch import load_file

TOLERANCE = 1e-4
"""Largest difference, relative to the largest golden value."""


def folder_of(golden, method):
    """Return the golden folder of a method, or skip."""
    import pytest

    if not (golden / method / "cases.json").is_file():
        pytest.skip(f"no golden set in {golden / method}; set FFHQREF_GOLDEN")
    return golden / method


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def cases_of(golden_root, method):
    """Return the cases for parametrising; one None, which `folder_of` then skips, where there are none."""
    path = golden_root / method / "cases.json"
    return read_json(path) if path.is_file() else [None]


def case_id(case):
    return case["file"].removesuffix(".safetensors") if case else "absent"


def case_tensors(folder, case):
    """Return a case's tensors, with the input of the case it borrows one from."""
    stored = load_file(folder / case["file"])
    if "input_from" in case:
        stored["input_rgb_u8"] = load_file(folder / case["input_from"])["input_rgb_u8"]
    return stored


def layout(network):
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def weights_from_rule(rule, name, keys, kept=None):
    """Return the state dict that a ``weights_rule`` describes for the keys (name to shape).

    Entries of kind ``keep`` come from ``kept``, a freshly built network's.
    """
    state = {}
    for key, shape in keys.items():
        _, kind, *numbers = next(entry for entry in rule["rules"] if re.search(entry[0], key))
        if kind == "spectral":
            continue
        if kind == "keep":
            state[key] = kept[key].clone()
            continue
        if kind == "range":
            low, high = numbers
        else:
            dims = shape[1:] if len(shape) == 5 and shape[0] == 1 else shape
            high = numbers[0] * math.sqrt(3 / math.prod(dims[1:]))
            low = -high
        generator = torch.Generator().manual_seed(rule[name]["seed"] * 1000003 + zlib.crc32(key.encode()))
        state[key] = torch.rand(shape, generator=generator).mul_(high - low).add_(low)
    for key in keys:
        if key.endswith("weight_u"):
            stem = key.removesuffix("_u")
            weight = state[f"{stem}_orig"].flatten(1).double().numpy()
            u = np.full(len(weight), len(weight) ** -0.5)
            for _ in range(20):
                v = weight.T @ u
                v /= np.linalg.norm(v)
                u = weight @ v
                u /= np.linalg.norm(u)
            gain = next(number for pattern, number in rule["gains"] if re.search(pattern, f"{stem}_v"))
            state[key], state[f"{stem}_v"] = torch.from_numpy(u).float(), torch.from_numpy(v / gain).float()
    check_hash(state, rule[name])
    return state


def check_hash(state, expected):
    """Compare with the rule's hash; the vectors of spectral norms, made in double, may differ in their last bit."""
    name = "sha256_without_uv" if "sha256_without_uv" in expected else "sha256"
    digest = hashlib.sha256()
    for key in sorted(state):
        if name == "sha256" or not key.endswith(("weight_u", "weight_v")):
            value = state[key]
            digest.update(key.encode() + str(value.dtype).encode() + str(tuple(value.shape)).encode())
            digest.update(value.contiguous().numpy())
    assert digest.hexdigest() == expected[name], "the rule gives other weights here than in the golden set"


@contextlib.contextmanager
def recorded(network, names):
    """Yield a dict that fills with the outputs of the named layers, a list each."""
    outputs = {name: [] for name in names}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _given, made, name=name: outputs[name].append(made)
        )
        for name in names
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def off(ours, stored):
    """Return the largest difference relative to the largest golden value; ``stored`` may be strided in space."""
    if ours.dim() == 4 and ours.shape != stored.shape:
        step = math.ceil(ours.shape[-1] / stored.shape[-1])
        ours = ours[..., ::step, ::step]
    assert ours.shape == stored.shape
    return float((ours - stored).abs().max() / stored.abs().max())


def check_levels(ours, stored, share=1e-3):
    """Compare 8-bit pictures [H, W, 3]: rounding may turn a share of the values by one level."""
    step = math.ceil(ours.shape[0] / stored.shape[0])
    difference = np.abs(ours[::step, ::step].astype(int) - stored.numpy().astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < share


def share_over_edges(ours, stored):
    """Return the share of values in -1..1 that a difference as found moves over an 8-bit rounding edge, and half more.

    A value moved by d of 255 levels crosses an edge with probability 255 d / 2, whatever the picture.
    """
    step = math.ceil(ours.shape[-1] / stored.shape[-1])
    moved = (ours[..., ::step, ::step] - stored).abs().mean()
    return 1.5 * 255 / 2 * float(moved) + 1e-5


def stored_as(stored, name):
    """Return the tensor of that name, whole or strided (``name_sN``)."""
    found = [value for key, value in stored.items() if re.fullmatch(rf"{name}(_s\d+)?", key)]
    assert len(found) == 1, name
    return found[0]
