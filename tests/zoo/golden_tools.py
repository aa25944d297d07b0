"""What golden tests of restorers share: folders and cases, weights from a rule, layer outputs, comparison."""

import contextlib
import hashlib
import json
import math
import re
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ..conftest import GOLDEN

TOLERANCE = 1e-4
"""Largest difference, relative to the largest golden value."""


def folder_of(golden, method):
    """Return the golden folder of a method, or skip. A set without a case fails: nothing would be compared."""
    if not (golden / method / "cases.json").is_file():
        pytest.skip(f"no golden set in {golden / method}; set FFHQREF_GOLDEN")
    found = read_json(golden / method / "cases.json")
    assert found.get("cases", found) if isinstance(found, dict) else found, f"{golden / method}: no case"
    return golden / method


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def cases_of(method):
    """Return the cases for parametrising; one None, for which `folder_of` skips or fails, where there are none."""
    path = GOLDEN / method / "cases.json"
    return (read_json(path) if path.is_file() else None) or [None]


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
            assert kind == "fan", kind
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

    def keep(name):
        def hook(_module, _given, made):
            # a copy, because activations that follow work in place
            outputs[name].append(made.clone() if torch.is_tensor(made) else made)

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in outputs]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def relative(ours, stored):
    """Return the largest difference relative to the largest golden value, of tensors of one shape."""
    assert ours.shape == stored.shape
    return float((ours - stored).abs().max() / stored.abs().max())


def every(ours, stored, axis):
    """Return every N-th entry of an axis, as many as were stored."""
    step = math.ceil(ours.shape[axis] / stored.shape[axis])
    return ours[(slice(None),) * axis + (slice(None, None, step),)]


def off(ours, stored):
    """Return the largest difference as `relative` does; ``stored`` may be strided in space."""
    if ours.dim() == 4 and ours.shape != stored.shape:
        step = math.ceil(ours.shape[-1] / stored.shape[-1])
        ours = ours[..., ::step, ::step]
    return relative(ours, stored)


def check_levels(ours, stored, share=1e-3):
    """Compare 8-bit images [H, W, 3]: rounding may turn a share of the values by one level."""
    step = math.ceil(ours.shape[0] / stored.shape[0])
    difference = np.abs(ours[::step, ::step].astype(int) - stored.numpy().astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < share


def share_over_edges(ours, stored):
    """Return the share of values in -1..1 that a difference as found moves over an 8-bit rounding edge, and half more.

    A value moved by d of 255 levels crosses an edge with probability 255 d / 2, whatever the image.
    """
    step = math.ceil(ours.shape[-1] / stored.shape[-1])
    moved = (ours[..., ::step, ::step] - stored).abs().mean()
    return 1.5 * 255 / 2 * float(moved) + 1e-5


def stored_as(stored, name):
    """Return the tensor of that name, whole or strided (``name_sN``)."""
    found = [value for key, value in stored.items() if re.fullmatch(rf"{re.escape(name)}(_s\d+)?", key)]
    assert len(found) == 1, name
    return found[0]


def close(stored, name, ours, tolerance=TOLERANCE):
    """Assert that a tensor equals the stored one of that name, whole or strided."""
    assert off(ours, stored_as(stored, name)) < tolerance, name


def same_levels(stored, name, ours):
    """Assert that an 8-bit image equals the stored one of that name as `check_levels` does."""
    check_levels(ours, stored_as(stored, name))
