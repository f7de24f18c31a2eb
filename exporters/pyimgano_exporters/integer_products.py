"""Products of 8-bit numbers: float32 in torch, MatMulInteger in the graph.

Torch has no batched product of uint8 tensors that exports, so a module writes
`a.to(float32) @ b.to(float32)`. Every sum is a whole number, and below 2^24 float32
holds it exactly, in whatever order it is taken: MatMulInteger gives the same numbers
to the last bit. It reads a quarter of the bytes: the resize of a 1000 x 1000 picture,
most of it one such product, takes half the time.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto


def use_integer_products(graph: Any) -> int:
    """Turn each MatMul of two tensors cast from uint8 into MatMulInteger and a Cast.

    The casts stay where something else reads them. Gives the number of products.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    types = _types(graph)
    readers = _readers(graph)
    nodes, n_found = [], 0
    for node in graph.node:
        casts = [made_by.get(name) for name in node.input]
        if node.op_type == "MatMul" and all(_from_uint8(cast, types) for cast in casts):
            sources = [cast.input[0] for cast in casts if cast is not None]
            sums = f"{node.output[0]}_integer"
            nodes.append(onnx.helper.make_node("MatMulInteger", sources, [sums]))
            nodes.append(
                onnx.helper.make_node("Cast", [sums], node.output, to=TensorProto.FLOAT)
            )
            for name in node.input:
                readers[name] -= 1
            n_found += 1
        else:
            nodes.append(node)
    kept = [
        node
        for node in nodes
        if node.op_type != "Cast" or readers.get(node.output[0], 0) > 0
    ]
    del graph.node[:]
    graph.node.extend(kept)
    return n_found


def _from_uint8(cast: Any, types: dict[str, int]) -> bool:
    return (
        cast is not None
        and cast.op_type == "Cast"
        and cast.attribute[0].i == TensorProto.FLOAT
        and types.get(cast.input[0]) == TensorProto.UINT8
    )


def _types(graph: Any) -> dict[str, int]:
    """Give the element type of each tensor that the exporter noted."""
    values = [*graph.value_info, *graph.input]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _readers(graph: Any) -> dict[str, int]:
    """Give how many nodes and outputs read each tensor."""
    counts: dict[str, int] = {}
    names = [name for node in graph.node for name in node.input]
    for name in [*names, *(value.name for value in graph.output)]:
        counts[name] = counts.get(name, 0) + 1
    return counts
