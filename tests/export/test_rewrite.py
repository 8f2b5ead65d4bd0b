"""Rewritten graphs: the same numbers, and nothing left where nothing should be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from civae_core.export.rewrite import settled, simplify, spell_out_softmax, strip  # noqa: E402


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


def wordy_graph() -> Any:
    """y = silu(x), with a cast, a factor, a slice and a shape that say nothing."""
    from onnx import TensorProto, helper, numpy_helper

    ends = {"from": [0], "to": [2**63 - 1], "axis": [0], "step": [1], "first": [1], "second": [2]}
    constants = [
        numpy_helper.from_array(np.array(value, dtype=np.int64), name) for name, value in ends.items()
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "one"], ["same"]),
        helper.make_node("Slice", ["same", "from", "to", "axis", "step"], ["whole"]),
        helper.make_node("Sigmoid", ["whole"], ["gate"]),
        helper.make_node("Mul", ["whole", "gate"], ["silu"]),
        helper.make_node("Unsqueeze", ["silu", "first"], ["wider"]),
        helper.make_node("Unsqueeze", ["wider", "second"], ["y"]),
    ]
    one = numpy_helper.from_array(np.array(1, dtype=np.float32), "one")
    shapes = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, 1, 4]),
    ]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [*constants, one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_what_computes_nothing_is_removed_and_nothing_else() -> None:
    from onnxscript import ir

    x = np.random.default_rng(0).normal(0, 4, (3, 4)).astype(np.float32)
    wanted = run(wordy_graph(), x)
    model = ir.serde.deserialize_model(wordy_graph())
    simplify(model)
    simple = ir.serde.serialize_model(model)
    assert [n.op_type for n in simple.graph.node if n.op_type != "Constant"] == [
        "Sigmoid",
        "Mul",
        "Unsqueeze",
    ]
    np.testing.assert_array_equal(run(simple, x), wanted)
    done = settled(simple)
    assert [node.op_type for node in done.graph.node] == ["Sigmoid", "Mul", "Unsqueeze"]
    assert settled(done).graph.node == done.graph.node
    np.testing.assert_array_equal(run(done, x), wanted)


def test_exported_graphs_are_settled_and_of_the_standard_s_operators(exported: Path) -> None:
    for file in sorted((exported / "model-onnx").glob("*.onnx")):
        graph = onnx.load(file)
        assert {node.domain for node in graph.graph.node} == {""}, file.name
        idle = {"Constant", "CastLike", "Identity"} & {node.op_type for node in graph.graph.node}
        assert idle == set(), file.name
        assert len(settled(graph).graph.node) == len(graph.graph.node), file.name
