"""Constants that float16 holds without loss take half the bytes of a graph.

A detector's bank is rounded to such numbers when it is fitted (`pyimgano.detectors.
nearest_neighbour.half_precision`). The graph stores them as float16 and casts them back
to the very same float32 numbers, so that no score changes a bit. onnxruntime does that
cast once, when it opens the model.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

LEAST_NUMBERS: Final = 4096  # below it, the cast's own bytes and start are not worth it


def use_half_storage(graph: Any) -> int:
    """Store each large float32 constant that float16 holds exactly so, behind a Cast.

    Gives the number of bytes that were saved.
    """
    casts, saved = [], 0
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
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
        casts.append(
            onnx.helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT)
        )
        saved += values.nbytes - halves.nbytes
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return saved
