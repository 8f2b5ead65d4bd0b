"""Rewrite an ONNX graph between tracing and writing: the same numbers from fewer or faster operations."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxscript.ir import Model


def simplify(model: "Model") -> None:
    """Remove nodes that compute nothing, such as casts from float to float: a quarter of those traced.

    Loading a graph takes many passes over it, so ONNX Runtime's start-up time grows with the number of nodes.
    """
    from onnxscript import optimizer
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules import common

    # Not all available rules: those for minima and maxima give the bounds of two clamps the same name
    # (onnxscript 0.7), and such a graph is rejected.
    rules = [
        common.no_op_cast_rule,
        common.mul_by_1_rule,
        common.collapse_slice_rule,
        common.collapse_slice2_rule,
        common.materialize_reshape_shape_rule,
        common.unsqueeze_unsqueeze_rule,
    ]
    optimizer.inline(model)
    optimizer.fold_constants_ir(model, onnx_shape_inference=True)
    rewrite(model, rules)
    optimizer.fold_constants_ir(model, onnx_shape_inference=True)  # again, with the shapes that are known now
    rewrite(model, rules)
    optimizer.remove_unused_nodes(model)


def strip(graph: "ModelProto") -> None:
    """Remove the exporter's notes on every node, which give the path of the code that made it."""
    values = [*graph.graph.input, *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer]
    for part in (graph, graph.graph, *graph.graph.node, *values):
        del part.metadata_props[:]
        part.doc_string = ""


def settled(graph: "ModelProto") -> "ModelProto":
    """The graph after the optimisations with which ONNX Runtime begins every start, in standard operators.

    ONNX Runtime searches the whole graph again after each change. A graph in which it finds nothing more to change
    loads in seven tenths of the time, and its answers are the same to the last bit.
    """
    import onnx
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

    with tempfile.TemporaryDirectory() as folder:
        options = SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "graph.onnx")
        InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def spell_out_softmax(graph: "ModelProto") -> None:
    """Replace every softmax over a dimension other than the last by its definition, exp(x − max) / Σ exp(x − max).

    For such a softmax, ONNX Runtime transposes the whole tensor there and back, which took a sixth of a layered
    decoder's time for its masks. The separate operations all run along the pixels.
    """
    from onnx import helper, numpy_helper

    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output)
    }
    nodes = []
    for node in graph.graph.node:
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), -1)
        rank = ranks.get(node.input[0]) if node.op_type == "Softmax" else None
        if rank is None or axis % rank == rank - 1:
            nodes.append(node)
            continue
        (x,), (y,) = node.input, node.output
        axes, largest, below, powers, total = (
            f"{y}_{part}" for part in ("axes", "max", "below", "exp", "sum")
        )
        graph.graph.initializer.append(numpy_helper.from_array(np.array([axis], dtype=np.int64), axes))
        nodes += [
            helper.make_node("ReduceMax", [x, axes], [largest], keepdims=1),
            helper.make_node("Sub", [x, largest], [below]),
            helper.make_node("Exp", [below], [powers]),
            helper.make_node("ReduceSum", [powers, axes], [total], keepdims=1),
            helper.make_node("Div", [powers, total], [y]),
        ]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
