"""What values a face-recognition network in an ONNX file takes: read from its first nodes.

Networks exported from MXNet subtract 127.5 and scale by 1/127.5 or 1/128 themselves, so they take levels of 0 to 255.
Given values of -1 to 1, as networks from PyTorch take, such a network returns vectors that mean little.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import DependencyError, WeightsError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.core.parsing import parsing
from ffhqref.weights.tensors import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from ffhqref.weights.files import Weights

_log = logging.getLogger(__name__)

FIRST_NODES = 8
"""How far a network's own normalisation is looked for, as insightface does."""


@dataclass(frozen=True)
class InputRule:
    """How levels of 0 to 255 become the input of a network: (level / 255 - mean) / std."""

    mean: float = 0.5
    std: float = 0.5
    found: str = ""
    """What the network does to its input itself; empty: nothing."""


SIGNED = InputRule()
"""Values of -1 to 1: what a network without a normalisation of its own takes."""


def input_rule(
    path: Weights | str | Path, mean: float | None = None, std: float | None = None, content: bytes | None = None
) -> InputRule:
    """Return the rule for a network, told in a warning where it is not the usual one.

    Args:
        path: the ONNX file.
        mean: overrules what the file says.
        std: likewise.
        content: of the file, where it has been read.

    Raises:
        DependencyError: the package ``onnx`` is not installed.
        WeightsError: the file cannot be read as ONNX.
    """
    if mean is not None and std is not None:
        return InputRule(mean, std)
    data = read_bytes(path) if content is None else content
    key = (Path(path), sha256_bytes(data))
    if key not in _known:
        _known[key] = _read(key[0], data)
    rule = _known[key]
    return InputRule(rule.mean if mean is None else mean, rule.std if std is None else std, rule.found)


_known: dict[tuple[Path, str], InputRule] = {}
"""Rules by path and hash of the file, so that the warning comes once."""


def _read(path: Path, data: bytes) -> InputRule:
    try:
        import onnx
    except ImportError:
        raise DependencyError(
            "an ONNX embedder needs the package onnx, to see whether the network normalises its own input: "
            "pip install 'ffhqref[faces]', or give mean and std"
        ) from None
    with parsing(path, WeightsError, "embedder: expected an ONNX network"):
        rule = rule_of(onnx.load_model_from_string(data).graph)
    if rule.found:
        _log.warning(
            "%s normalises its own input (%s): it is given levels of 0 to %g; the options mean and std overrule that",
            path.name, rule.found, 1.0 / rule.std,
        )  # fmt: skip
    return rule


def rule_of(graph: Any) -> InputRule:
    """Return the rule that the first nodes of an ONNX graph imply.

    The chain of additions, multiplications and batch normalisations by constants behind the input is multiplied out
    to ``scale * (input - centre)``. A centre near 127.5 is that of levels of 0 to 255, one near 0.5 of 0 to 1. A
    subtraction and a multiplication by what cannot be read mean levels, as they do to insightface.
    """
    constants = _constants(graph)
    scale, shift, steps = np.ones(1), np.zeros(1), 0
    unread: set[str] = set()
    for node, value in _chain(graph):
        step, kind = _affine(node, value, constants), _kind(node)
        if step is not None:
            scale, shift = scale * step[0], shift * step[0] + step[1]
            steps += node.op_type not in _SAME
        elif kind:
            unread.add(kind)
        else:
            break
    if unread == {"sub", "mul"}:
        return InputRule(0.0, 1.0 / 255.0, "Sub and Mul as its first nodes")
    if not steps or not np.all(scale):
        return SIGNED
    centre, gain = float(np.mean(-shift / scale)), float(np.mean(scale))
    words = f"(x - {centre:.4g}) * {gain:.4g}"
    # x / 255 alone: what follows is learnt
    if (64.0 <= centre <= 192.0 and abs(gain) < 0.25) or (centre == 0.0 and 0.002 <= gain <= 0.02):
        return InputRule(0.0, 1.0 / 255.0, words)
    if 0.25 <= centre <= 0.75 and abs(gain) >= 1.0:
        return InputRule(0.0, 1.0, words)
    return SIGNED


_SAME = ("Identity", "Cast", "Transpose", "Dropout")


def _chain(graph: Any) -> Iterator[tuple[Any, str]]:
    """Yield the first nodes that follow each other from the input, with the name of the value that each takes."""
    held = {item.name for item in graph.initializer}
    value = next((item.name for item in graph.input if item.name not in held), "")
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    for node in nodes[:FIRST_NODES]:
        if value not in node.input:
            return
        yield node, value
        value = node.output[0]


def _kind(node: Any) -> str:
    """Return ``sub`` or ``mul`` of a node, by its operator or by the name that MXNet gives it, else nothing."""
    name = f"{node.op_type} {node.name.lstrip('_')}".lower()
    if name.startswith("sub") or " minus" in name or " sub" in name:
        return "sub"
    return "mul" if name.startswith("mul") or " mul" in name else ""


def _affine(
    node: Any, value: str, constants: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return (scale, shift) of a node that maps each value to scale * value + shift, else None."""
    if node.op_type in _SAME:
        return np.ones(1), np.zeros(1)
    if node.op_type == "BatchNormalization":
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        given = [constants.get(name) for name in node.input[1:5]]
        if any(item is None for item in given):
            return None
        gain, bias, mean, variance = (np.asarray(item, np.float64).ravel() for item in given)
        scale = gain / np.sqrt(variance + epsilon)
        return scale, bias - scale * mean
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    other = [name for name in node.input if name != value]
    if len(other) != 1 or other[0] not in constants:
        return None
    constant = np.asarray(constants[other[0]], np.float64).ravel()
    first = node.input[0] == value
    if node.op_type == "Add":
        return np.ones(1), constant
    if node.op_type == "Sub":
        return (np.ones(1), -constant) if first else (-np.ones(1), constant)
    if node.op_type == "Mul":
        return constant, np.zeros(1)
    return (1.0 / constant, np.zeros(1)) if first and np.all(constant != 0) else None


def _constants(graph: Any) -> dict[str, NDArray[Any]]:
    """Return the small constants of a graph by name."""
    from onnx import numpy_helper

    few = [item for item in graph.initializer if np.prod(item.dims or [1]) <= 64 and not item.external_data]
    found = {item.name: numpy_helper.to_array(item) for item in few}
    for node in graph.node:
        for item in node.attribute if node.op_type == "Constant" else ():
            if item.name == "value":
                found[node.output[0]] = numpy_helper.to_array(item.t)
            elif item.name == "value_float":
                found[node.output[0]] = np.asarray(item.f)
    return found
