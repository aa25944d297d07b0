"""Networks in ONNX files whose output is known beforehand."""

import numpy as np


def genderage(path, row=48, column=48):
    """Write a network of genderage's form: its third number is one pixel's red value of the 96 px input."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def whole(name, *values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["data", "from", "to", "axes"], ["pixel"]),
            helper.make_node("Flatten", ["pixel"], ["flat"]),
            helper.make_node("Pad", ["flat", "pads"], ["fc1"]),
        ],
        "genderage",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, 96, 96])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, ["n", 3])],
        [
            whole("from", 0, row, column),
            whole("to", 1, row + 1, column + 1),
            whole("axes", 1, 2, 3),
            whole("pads", 0, 2, 0, 0),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def mean_colours(path, size=112):
    """Write a recogniser that takes the mean colours of 28 px fields of a face, red before green before blue."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("AveragePool", ["input"], ["fields"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["fields"], ["output"]),
    ]
    dim = 3 * (size // 28) ** 2
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", dim])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
