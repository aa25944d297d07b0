"""Restorers of small random weights, and golden sets: the official code's inputs and results."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .golden_tools import folder_of, read_json, weights_from_rule


def tiny(name):
    """Return the module ``tiny/<name>.py``.

    Its ``options(folder)`` writes random weights of a small architecture there, and returns the options that make the
    restorer of them.
    """
    return importlib.import_module(f".tiny.{name}", __package__)


class GoldenSet:
    """One method's folder; all that varies (sizes, widths, seeds, settings, file names) comes from its files."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.folder = folder
        self.made = made
        self.cases = read_json(folder / "cases.json")
        self.config = read_json(folder / "config.json")

    def tensors(self, file):
        return load_file(self.folder / file)

    def picture(self, case):
        """Return the input, uint8 RGB [H, W, 3]; a case may use another one's."""
        own = self.tensors(case["file"])
        if "input_rgb_u8" not in own:
            own = self.tensors(case.get("input_from", "case0.safetensors"))
        return own["input_rgb_u8"].numpy()

    def keys(self, name):
        """Return the shape of every tensor of the network with keys of that name, as `layout` does."""
        return read_json(self.folder / f"keys_{name}.json")

    def checkpoint(self, case):
        """Return the case's weight file: the stored one, or one in the official layout made by the rule."""
        if case["checkpoint"] and (self.folder / case["checkpoint"]).is_file():
            return self.folder / case["checkpoint"]
        path = self.made / f"{case['config']}.pth"
        if not path.is_file():
            wrapper = self.config.get("inference", {}).get("wrapper", "params_ema")
            torch.save({wrapper: self.rule(case["config"])}, path)
        return path

    def rule(self, name):
        """Return the tensors that the written rule gives, checked against its hash."""
        return weights_from_rule(self.config["weights_rule"], name, self.keys(self.laid_out.get(name, name)))

    @property
    def laid_out(self) -> dict[str, str]:
        """Names of the sizes with weights of their own, each with that of its `keys`."""
        rule = self.config["weights_rule"]
        return {name: entry["keys"] for name, entry in rule.items() if isinstance(entry, dict) and "keys" in entry}


@pytest.fixture(scope="module")
def golden_set(golden, request, tmp_path_factory):
    """The golden set of a test module that names its method in ``METHOD``, or as the parameter of this fixture."""
    method = getattr(request, "param", None) or request.module.METHOD
    return GoldenSet(folder_of(golden, method), tmp_path_factory.mktemp(method))
