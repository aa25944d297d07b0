"""A convolutional network from an ONNX file as torch operations, so that gradients go through it.

The identity loss of ReF-LDM's training needs the derivative of an ArcFace network that its authors give as ONNX, which
onnxruntime only evaluates. ArcFace ResNets consist of a handful of operators; a file with others is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ffhqref.core.errors import DependencyError, WeightsError
from ffhqref.core.parsing import parsing
from ffhqref.faces.onnx_input import rule_of
from ffhqref.weights.tensors import read_bytes

if TYPE_CHECKING:
    from ffhqref.weights.files import Weights

Operator = Callable[[list[Tensor], dict[str, Any]], Tensor]


def _conv(x: list[Tensor], given: dict[str, Any]) -> Tensor:
    pads = given.get("pads", [0, 0, 0, 0])
    top, left, bottom, right = pads
    image = x[0]
    padding: tuple[int, int] = (top, left)
    if (top, left) != (bottom, right):
        image, padding = F.pad(image, (left, right, top, bottom)), (0, 0)
    bias = x[2] if len(x) > 2 else None
    return F.conv2d(
        image, x[1], bias, given.get("strides", [1, 1]), padding, given.get("dilations", [1, 1]), given.get("group", 1)
    )


def _norm(x: list[Tensor], given: dict[str, Any]) -> Tensor:
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], training=False, eps=given.get("epsilon", 1e-5))


def _gemm(x: list[Tensor], given: dict[str, Any]) -> Tensor:
    first = x[0].T if given.get("transA") else x[0]
    second = x[1].T if given.get("transB") else x[1]
    product = given.get("alpha", 1.0) * (first @ second)
    made: Tensor = product + given.get("beta", 1.0) * x[2] if len(x) > 2 else product
    return made


OPERATORS: dict[str, Operator] = {
    "Add": lambda x, _: x[0] + x[1],
    "BatchNormalization": _norm,
    "Conv": _conv,
    "Dropout": lambda x, _: x[0],
    "Flatten": lambda x, given: x[0].flatten(given.get("axis", 1)),
    "Gemm": _gemm,
    "Identity": lambda x, _: x[0],
    "Mul": lambda x, _: x[0] * x[1],
    # ONNX gives the slopes as [C, 1, 1], or as [C] behind a fully connected layer
    "PRelu": lambda x, _: torch.where(x[0] >= 0, x[0], x[0] * x[1]),
    "Relu": lambda x, _: F.relu(x[0]),
    "Sub": lambda x, _: x[0] - x[1],
}


class OnnxNetwork(torch.nn.Module):
    """The network of a file, frozen, with one input and one output; call it with float32 tensors.

    Args:
        path: an ONNX file, for instance ``insightface_webface_r50.onnx``. One that normalises its own input is given
            levels of 0 to 255 all the same.

    Raises:
        DependencyError: the package ``onnx`` is not installed.
        WeightsError: the file is missing or damaged, or has an operator that is not among `OPERATORS`.
    """

    def __init__(self, path: Weights | str | Path) -> None:
        super().__init__()
        try:
            import onnx
        except ImportError:
            raise DependencyError(
                "an identity loss from an ONNX file needs the package 'onnx': pip install onnx"
            ) from None
        if not Path(path).is_file():
            raise WeightsError(f"no such weight file: {path}")
        with parsing(path, WeightsError, "expected an ONNX network"):
            self._read(onnx.load_model_from_string(read_bytes(path)).graph, path)

    def _read(self, graph: Any, path: Weights | str | Path) -> None:
        from onnx import helper, numpy_helper

        self._rule = rule_of(graph)
        unknown = sorted({node.op_type for node in graph.node} - set(OPERATORS))
        if unknown:
            raise WeightsError(f"{path} has the operators {', '.join(unknown)}, which no gradient is known for here")
        self._slots: dict[str, str] = {}
        for number, item in enumerate(graph.initializer):
            self._slots[item.name] = f"constant{number}"
            self.register_buffer(f"constant{number}", torch.from_numpy(numpy_helper.to_array(item).copy()))
        self._nodes = [
            (
                OPERATORS[node.op_type],
                list(node.input),
                node.output[0],
                {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
            )
            for node in graph.node
        ]
        inputs = [item.name for item in graph.input if item.name not in self._slots]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise WeightsError(f"{path} has {len(inputs)} inputs and {len(graph.output)} outputs, expected one of each")
        self._input, self._output = inputs[0], graph.output[0].name

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for values of -1 to 1."""
        if self._rule.found:
            x = ((x + 1.0) / 2.0 - self._rule.mean) / self._rule.std
        values = {self._input: x}

        def value(name: str) -> Tensor:
            return values[name] if name in values else cast("Tensor", getattr(self, self._slots[name]))

        for operator, names, output, given in self._nodes:
            values[output] = operator([value(name) for name in names if name], given)
        return values[self._output]
