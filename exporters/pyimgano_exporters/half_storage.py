"""Constants that float16 holds without loss take half the bytes of a graph.

A detector's bank is rounded to such numbers when it is fitted (`pyimgano.detectors.
nearest_neighbour.half_precision`). The graph stores them as float16 and casts them back
to the very same float32 numbers, so that no score changes a bit. onnxruntime does that
cast once, when it opens the model; rows that are looked up are cast after the look-up,
so that no second copy of the bank stays in memory for them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

LEAST_NUMBERS: Final = 4096  # below it, the cast's own bytes and start are not worth it

_LOOK_UPS: Final = ("Gather", "GatherND")


def use_half_storage(graph: Any) -> int:
    """Store each large float32 constant that float16 holds exactly so, behind a Cast.

    Gives the number of bytes that were saved.
    """
    casts, stored, saved = [], dict[str, str](), 0
    # The quantizer looks for these where they are.
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in kernels:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < LEAST_NUMBERS:
            continue
        with np.errstate(over="ignore"):  # a number that is too large becomes infinite
            halves = values.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}_half"))
        casts.append(_cast(tensor.name, name))
        stored[name] = tensor.name
        saved += values.nbytes - halves.nbytes
    nodes = [
        *casts,
        *(part for node in graph.node for part in _looked_up(node, stored)),
    ]
    read = {name for node in nodes for name in node.input}
    read.update(value.name for value in graph.output)
    del graph.node[:]
    graph.node.extend(node for node in nodes if read.intersection(node.output))
    return saved


def _looked_up(node: Any, stored: dict[str, str]) -> list[Any]:
    """Give a node; one that takes rows of a stored constant, and the cast of these."""
    half = stored.get(node.input[0]) if node.op_type in _LOOK_UPS else None
    if half is None:
        return [node]
    rows = node.output[0]
    node.input[0] = half
    node.output[0] = f"{rows}_half"
    return [node, _cast(node.output[0], rows)]


def _cast(source: str, target: str) -> Any:
    return onnx.helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT)
