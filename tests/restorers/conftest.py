"""Golden sets of restorers: the official code's inputs and results under seeded random weights."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch


class GoldenSet:
    """One method's folder; all that varies (sizes, widths, seeds, settings, file names) comes from its files."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.folder = folder
        self.made = made
        self.cases = json.loads((folder / "cases.json").read_text())
        self.config = json.loads((folder / "config.json").read_text())

    def tensors(self, file):
        from safetensors.torch import load_file

        return load_file(self.folder / file)

    def picture(self, case):
        """Return the input, uint8 RGB [H, W, 3]; a case may use another one's."""
        own = self.tensors(case["file"])
        if "input_rgb_u8" not in own:
            own = self.tensors(case.get("input_from", "case0.safetensors"))
        return own["input_rgb_u8"].numpy()

    def keys(self, name):
        """Return the shape of every tensor of the network of that name."""
        stored = json.loads((self.folder / f"keys_{name}.json").read_text())
        return {key: tuple(shape) for key, shape in stored.items()}

    def checkpoint(self, case):
        """Return the case's weight file: the stored one, or one in the official layout made by the rule."""
        if case["checkpoint"]:
            return self.folder / case["checkpoint"]
        path = self.made / f"{case['config']}.pth"
        if not path.is_file():
            torch.save({"params_ema": self.rule(case["config"])}, path)
        return path

    def rule(self, name):
        """Return the tensors that the written rule gives, checked against its hash."""
        rule = self.config["weights_rule"]
        digest = hashlib.sha256()
        tensors = {}
        for key, shape in sorted(self.keys(name).items()):
            kind, *numbers = next(entry[1:] for entry in rule["rules"] if re.search(entry[0], key))
            if kind == "fan":
                sides = shape[1:] if len(shape) == 5 and shape[0] == 1 else shape
                high = numbers[0] * math.sqrt(3 / math.prod(sides[1:]))
                low = -high
            else:
                assert kind == "range", kind
                low, high = numbers
            generator = torch.Generator().manual_seed(rule[name]["seed"] * 1000003 + zlib.crc32(key.encode()))
            tensors[key] = torch.rand(shape, generator=generator).mul(high - low).add(low)
            digest.update(key.encode() + b"torch.float32" + str(tuple(shape)).encode() + tensors[key].numpy().tobytes())
        assert digest.hexdigest() == rule[name]["sha256"], "the rule gives other weights here than in the golden set"
        return tensors


@pytest.fixture(scope="module")
def golden_set(golden, request, tmp_path_factory):
    """The golden set of a test module that names its method in ``METHOD``, or as the parameter of this fixture."""
    method = getattr(request, "param", None) or request.module.METHOD
    if not (golden / method / "cases.json").is_file():
        pytest.skip(f"no golden set of {method} in {golden}; set FFHQREF_GOLDEN")
    return GoldenSet(golden / method, tmp_path_factory.mktemp(method))


def relative(ours, golden):
    """Return the largest difference relative to the golden tensor's largest value."""
    ours, golden = torch.as_tensor(ours).float(), torch.as_tensor(golden).float()
    assert ours.shape == golden.shape
    return float((ours - golden).abs().max() / golden.abs().max())


def stored_part(stored, name, ours, axes):
    """Return a stored tensor and the same part of ours; ``name_s4`` holds every fourth row and column.

    Args:
        stored: tensors of the case file.
        name: without the stride's suffix.
        ours: the whole tensor or array.
        axes: the two axes of rows and columns.
    """
    key = next(key for key in stored if re.fullmatch(rf"{re.escape(name)}(_s\d+)?", key))
    part = [slice(None)] * np.ndim(ours)
    for axis in axes:
        part[axis] = slice(None, None, ours.shape[axis] // stored[key].shape[axis])
    return stored[key], ours[tuple(part)]


@pytest.fixture(scope="session")
def close():
    """Assert that our float tensor [B, C, H, W] equals the stored one within 1e-4 relative."""

    def check(stored, name, ours, tolerance=1e-4):
        golden, part = stored_part(stored, name, ours, (2, 3)) if np.ndim(ours) == 4 else (stored[name], ours)
        assert relative(part, golden) < tolerance, name

    return check


@pytest.fixture(scope="session")
def same_levels():
    """Assert that 8-bit pictures [H, W, 3] agree: one level off where the float lies on the edge, hardly anywhere."""

    def check(stored, name, ours):
        golden, part = stored_part(stored, name, ours, (0, 1))
        difference = np.abs(np.asarray(part, dtype=int) - golden.numpy().astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3, name

    return check


@pytest.fixture
def recorded():
    """Call a function and return its result and what modules of a network gave meanwhile, by name."""

    def run(network, names, function):
        seen = {}

        def keep(name):
            def hook(_module, _inputs, output):
                # a copy, because activations that follow work in place
                seen.setdefault(name, output.clone() if torch.is_tensor(output) else output)

            return hook

        modules = dict(network.named_modules())
        handles = [modules[name].register_forward_hook(keep(name)) for name in names]
        try:
            return function(), seen
        finally:
            for handle in handles:
                handle.remove()

    return run
