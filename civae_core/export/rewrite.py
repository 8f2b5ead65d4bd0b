"""Changes to an ONNX graph between tracing and writing it: the same numbers, by faster or fewer words."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto


def strip(graph: "ModelProto") -> None:
    """Removes what the exporter notes on every node: where in whose folders the code stands that made it."""
    values = [*graph.graph.input, *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer]
    for part in (graph, graph.graph, *graph.graph.node, *values):
        del part.metadata_props[:]
        part.doc_string = ""


def spell_out_softmax(graph: "ModelProto") -> None:
    """Writes a softmax over another dimension than the last as what it is, exp(x − max) / Σ exp(x − max).

    ONNX Runtime transposes the whole tensor there and back for it, which took a sixth of a layered decoder's time
    for its masks; in parts, all runs along the pixels.
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
