"""A network from an ONNX file: its values are onnxruntime's, its gradients are those of finite differences."""

import numpy as np
import pytest
import torch

from ffhqref.core.errors import WeightsError
from ffhqref.training.onnx_network import OnnxNetwork


@pytest.fixture
def small_arcface(tmp_path):
    """An ArcFace-like residual network as insightface exports one, written with onnx's own helpers."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    constants = []

    def constant(name, *shape, low=-0.4, high=0.4):
        constants.append(numpy_helper.from_array(rng.uniform(low, high, shape).astype(np.float32), name))
        return name

    def norm(name, source, channels):
        names = [constant(f"{name}.{part}", channels) for part in ("scale", "shift", "mean")]
        names.append(constant(f"{name}.var", channels, low=0.5, high=2))
        return helper.make_node("BatchNormalization", [source, *names], [name], epsilon=2e-5)

    pads = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Conv", ["input", constant("w0", 8, 3, 3, 3), constant("b0", 8)], ["c0"], **pads),
        helper.make_node("PRelu", ["c0", constant("s0", 8, 1, 1)], ["p0"]),
        norm("n1", "p0", 8),
        helper.make_node("Conv", ["n1", constant("w1", 8, 4, 3, 3)], ["c1"], strides=[2, 2], group=2, **pads),
        helper.make_node("Conv", ["p0", constant("w2", 8, 8, 1, 1)], ["d1"], strides=[2, 2], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["c1", constant("w3", 8, 8, 2, 2)], ["c3"], pads=[0, 1, 1, 0], kernel_shape=[2, 2]),
        helper.make_node("Add", ["c3", "d1"], ["a1"]),
        helper.make_node("Flatten", ["a1"], ["f1"]),
        helper.make_node(
            "Gemm", ["f1", constant("w4", 16, 8 * 6 * 6), constant("b4", 16)], ["g1"], transB=1, alpha=0.5
        ),
        norm("output", "g1", 16),
    ]
    graph = helper.make_graph(
        nodes, "arcface",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 16])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 7
    onnx.checker.check_model(model)
    path = tmp_path / "arcface.onnx"
    onnx.save(model, str(path))
    return path


def test_values_are_those_of_onnxruntime(small_arcface):
    onnxruntime = pytest.importorskip("onnxruntime")
    faces = np.random.default_rng(1).uniform(-1, 1, (3, 3, 12, 12)).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(small_arcface)).run(None, {"input": faces})[0]
    found = OnnxNetwork(small_arcface)(torch.from_numpy(faces)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences(small_arcface):
    network = OnnxNetwork(small_arcface).double()
    faces = torch.rand(1, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.autograd.gradcheck(network, faces.requires_grad_(), eps=1e-6, atol=1e-6)


def test_what_cannot_be_read_is_one_line(small_arcface, tmp_path, shared):
    with pytest.raises(WeightsError, match="no such weight file"):
        OnnxNetwork(tmp_path / "absent.onnx")
    (tmp_path / "cut.onnx").write_bytes(small_arcface.read_bytes()[:400])
    with pytest.raises(WeightsError, match="cannot be read"):
        OnnxNetwork(tmp_path / "cut.onnx")
    with pytest.raises(WeightsError, match="has the operators"):
        OnnxNetwork(shared / "models" / "edgeface_xs.onnx")
