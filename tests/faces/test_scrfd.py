"""insightface's reading of an SCRFD network.

The real files are not here; a network that sees the same face in every image stands in for them.
"""

import numpy as np
import pytest

from ffhqref.core.errors import WeightsError
from ffhqref.faces.detect import make_detector

SIDE = 64
BOX = (10.0, 12.0, 50.0, 60.0)
POINTS = np.array([[22, 28], [42, 27], [33, 38], [24, 48], [41, 49]], np.float64)


def one_face(path):
    """Write a network of SCRFD's nine outputs for images of `SIDE`, all empty but one anchor at (32, 32)."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    x = helper.make_tensor_value_info("input", kind, [1, 3, "?", "?"])
    nodes, outputs, constants = [], [], []
    for channels in (1, 4, 10):
        for stride in (8, 16, 32):
            values = np.zeros((2 * (SIDE // stride) ** 2, channels), np.float32)
            if stride == 32:
                centre = 2 * (1 * 2 + 1)  # first of two anchors in row 1, column 1
                away = (32 - BOX[0], 32 - BOX[1], BOX[2] - 32, BOX[3] - 32)
                values[centre] = {1: [0.9], 4: np.array(away) / 32, 10: (POINTS - 32).ravel() / 32}[channels]
            name = f"{channels}at{stride}"
            constants.append(onnx.numpy_helper.from_array(values, f"{name}c"))
            nodes.append(helper.make_node("Identity", [f"{name}c"], [name]))
            outputs.append(helper.make_tensor_value_info(name, kind, ["n", channels]))
    graph = helper.make_graph(nodes, "scrfd", [x], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_a_face_is_found_where_the_network_says(tmp_path):
    pytest.importorskip("insightface")
    detector = make_detector("insightface", path=one_face(tmp_path / "det_10g.onnx"), longest=SIDE)
    (face,) = detector(np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8))
    assert face.score == pytest.approx(0.9)
    assert face.box == pytest.approx([2 * value for value in BOX], abs=1e-3)
    assert face.points == pytest.approx(2 * POINTS, abs=1e-3)


def test_another_network_is_one_line(tmp_path):
    pytest.importorskip("insightface")
    (tmp_path / "det_10g.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"det_10g.onnx.*detector 'insightface'") as caught:
        make_detector("insightface", path=tmp_path / "det_10g.onnx")
    assert "\n" not in str(caught.value)
