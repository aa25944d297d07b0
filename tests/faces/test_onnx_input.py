"""Networks that normalise their own input give the vectors of those that do not."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ffhqref.faces import make_embedder
from ffhqref.faces.onnx_input import SIGNED, input_rule

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LEVELS = {
    "mxnet": [("Sub", 127.5, "_minusscalar0"), ("Mul", 0.0078125, "_mulscalar0")],
    "exact": [("Sub", 127.5, ""), ("Mul", 1 / 127.5, "")],
    "division": [("Sub", 127.5, ""), ("Div", 127.5, "")],
    "addition": [("Add", -127.5, ""), ("Mul", 1 / 128, "")],
    "unit first": [("Div", 255.0, ""), ("Sub", 0.5, ""), ("Mul", 2.0, "")],
    "cast before": [("Cast", None, ""), ("Sub", 127.5, ""), ("Mul", 1 / 127.5, "")],
    "batch norm": [("BatchNormalization", 127.5, "")],
}
UNIT = {
    "unit": [("Sub", 0.5, ""), ("Div", 0.5, "")],
    "unit, one step": [("Mul", 2.0, ""), ("Sub", 1.0, "")],
}


def network(path, steps=(), constant_nodes=False, size=112):
    """Pooling and one matrix behind the given steps; without steps it takes values of -1 to 1."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(3).normal(size=(3 * 16, 8)).astype(np.float32)
    nodes, constants, value = [], [numpy_helper.from_array(weights, "weights")], "x"
    for number, (kind, amount, name) in enumerate(steps):
        inputs, options = [value], {}
        if kind == "Cast":
            options = {"to": TensorProto.FLOAT}
        elif kind == "BatchNormalization":
            for part, level in (("scale", 1.0), ("bias", 0.0), ("mean", amount), ("var", amount**2)):
                constants.append(numpy_helper.from_array(np.full(3, level, np.float32), part))
                inputs.append(part)
        else:
            tensor = numpy_helper.from_array(np.asarray(amount, np.float32), f"c{number}")
            inputs.append(f"c{number}")
            if constant_nodes:
                nodes.append(helper.make_node("Constant", [], [f"c{number}"], value=tensor))
            else:
                constants.append(tensor)
        nodes.append(helper.make_node(kind, inputs, [f"v{number}"], name=name, **options))
        value = f"v{number}"
    nodes += [
        helper.make_node("AveragePool", [value], ["pooled"], kernel_shape=[size // 4] * 2, strides=[size // 4] * 2),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["vectors"]),
    ]
    graph = helper.make_graph(
        nodes,
        "recogniser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", 8])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def wanted(faces, tmp_path_factory):
    return make_embedder("onnx", path=network(tmp_path_factory.mktemp("plain") / "plain.onnx"))(faces)


@pytest.mark.parametrize("constant_nodes", [False, True])
@pytest.mark.parametrize("kind", [*LEVELS, *UNIT])
@pytest.mark.parametrize("embedder", ["onnx", "insightface"])
def test_the_vectors_are_those_without_a_normalisation_of_its_own(
    tmp_path, faces, wanted, embedder, kind, constant_nodes
):
    path = network(tmp_path / "own.onnx", {**LEVELS, **UNIT}[kind], constant_nodes)
    made = make_embedder(embedder, path=path)
    cosine = (made(faces) * wanted).sum(axis=1)
    assert cosine.min() > 0.9999
    rule = input_rule(path)
    assert rule.std == (1.0 if kind in UNIT else 1 / 255)
    assert f"x=(0,{rule.std:g})" in made.signature


def test_means_of_channels_are_a_normalisation_too(tmp_path):
    means = np.array([123.7, 116.3, 103.5]).reshape(1, 3, 1, 1)
    rule = input_rule(network(tmp_path / "own.onnx", [("Sub", means, ""), ("Div", 58.4, "")]))
    assert (rule.mean, rule.std) == (0.0, 1 / 255)


def test_a_network_without_one_keeps_its_signature(tmp_path, shared):
    assert "x=(0.5,0.5)" in make_embedder("onnx", path=network(tmp_path / "plain.onnx")).signature
    for name in ("edgeface_xs", "edgeface_xxs"):  # layer normalisations: Sub, Div and Mul among the first nodes
        assert input_rule(shared / "models" / f"{name}.onnx") == SIGNED


@pytest.mark.parametrize("steps", [[("Mul", 0.9, "")], [("Add", 0.1, ""), ("Mul", 1.1, "")], [("Sub", 0.1, "")]])
def test_learnt_scales_are_no_normalisation(tmp_path, steps):
    assert input_rule(network(tmp_path / "learnt.onnx", steps)) == SIGNED


def test_what_was_found_is_told_once_and_options_overrule(tmp_path, faces, wanted, caplog):
    path = network(tmp_path / "own.onnx", LEVELS["mxnet"])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            make_embedder("onnx", path=path)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("own.onnx normalises its own input ((x - 127.5) * 0.007812): it is given levels of 0 to 255")
    overruled = make_embedder("onnx", path=path, mean=0.5, std=0.5)
    assert "x=(0.5,0.5)" in overruled.signature
    assert (overruled(faces) * wanted).sum(axis=1).max() < 0.9


def test_identity_metrics_follow(tmp_path):
    torch = pytest.importorskip("torch")
    from ffhqref.metrics.identity import CroppedEmbedder, RefldmEmbedder

    image = torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(1))
    paths = [network(tmp_path / "plain.onnx"), network(tmp_path / "own.onnx", LEVELS["mxnet"])]
    for make in (RefldmEmbedder, lambda path: CroppedEmbedder("onnx", {"path": path}, "refldm_center")):
        plain, own = (make(path) for path in paths)
        assert float(plain(image) @ own(image)) > 0.9999
        assert plain.signature != own.signature


def test_the_identity_loss_follows(tmp_path):
    torch = pytest.importorskip("torch")
    from ffhqref.training.onnx_network import OPERATORS, OnnxNetwork

    supported = {"AveragePool": lambda x, given: torch.nn.functional.avg_pool2d(x[0], given["kernel_shape"])}
    supported["MatMul"] = lambda x, _: x[0] @ x[1]
    OPERATORS.update(supported)
    try:
        plain = OnnxNetwork(network(tmp_path / "plain.onnx"))
        own = OnnxNetwork(network(tmp_path / "own.onnx", LEVELS["mxnet"]))
    finally:
        for name in supported:
            del OPERATORS[name]
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert torch.cosine_similarity(plain(faces), own(faces)).min() > 0.9999
