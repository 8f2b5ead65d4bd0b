"""Rewritten graphs: the same numbers, and nothing left where nothing should be."""

from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from civae_core.export.rewrite import spell_out_softmax, strip  # noqa: E402


def softmax_graph(axis: int | None, rank: int) -> Any:
    from onnx import TensorProto, helper

    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *[None] * (rank - 1)])
        for name in "xy"
    ]
    attributes = {} if axis is None else {"axis": axis}
    node = helper.make_node("Softmax", ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", shapes[:1], shapes[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["y"], {"x": x})[0]
    return found


@pytest.mark.parametrize("axis", [0, 1, -2, 2])
def test_softmax_in_parts_is_torch_s_softmax(axis: int) -> None:
    model = softmax_graph(axis, rank=4)
    spell_out_softmax(model)
    assert "Softmax" not in [node.op_type for node in model.graph.node]
    x = np.random.default_rng(0).normal(0, 40, (2, 5, 3, 4)).astype(np.float32)
    wanted = torch.from_numpy(x).softmax(dim=axis).numpy()
    np.testing.assert_allclose(run(model, x), wanted, atol=1e-6)


@pytest.mark.parametrize("axis", [3, -1, None])
def test_a_softmax_over_the_last_dimension_stays(axis: int | None) -> None:
    model = softmax_graph(axis, rank=4)
    spell_out_softmax(model)
    assert [node.op_type for node in model.graph.node] == ["Softmax"]


def test_notes_of_the_exporter_are_removed() -> None:
    model = softmax_graph(1, rank=3)
    for part in (model, model.graph, *model.graph.node, *model.graph.input):
        part.metadata_props.add(key="stack_trace", value="/home/somebody/secret.py")
        part.doc_string = "/home/somebody"
    strip(model)
    assert b"somebody" not in model.SerializeToString()
