"""What a graph computes of its constants alone is computed when it is exported.

A device otherwise computes it each time that it opens the model: onnxruntime does, with
copies of whole banks, and that was most of the time to open a category. Nothing is
folded that would make the file much larger, such as the transpose of a bank that is
also read as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime

MOST_GROWTH: Final = 0.02  # of the constants' bytes, for one result


def fold_constants(model: onnx.ModelProto) -> int:
    """Put the results of constant nodes in their place; give how many were put there.

    onnxruntime computes them, as it would when it opens the model.
    """
    graph = model.graph
    initializers = list(graph.initializer)
    constants = {tensor.name for tensor in initializers}
    nodes = []  # of constants alone, in their order
    for node in graph.node:
        if _is_pure(node) and all(name in constants for name in node.input if name):
            constants.update(node.output)
            nodes.append(node)
    made_by = {name: node for node in nodes for name in node.output}
    wanted = set(_read_elsewhere(graph, nodes)) & made_by.keys()
    n_folded = 0
    while wanted:
        names = sorted(wanted)
        results = _results(model, nodes, initializers, names)
        values = dict(zip(names, results, strict=True))
        # The small ones first: they free what a large one may then stand for.
        names.sort(key=lambda name: values[name].nbytes)
        refused = [name for name in names if not _put(graph, name, values[name])]
        n_folded += len(names) - len(refused)
        # What is too large as a whole may hold a part that is not.
        inner = {part for name in refused for part in made_by[name].input}
        wanted = inner & made_by.keys()
    return n_folded


def _is_pure(node: Any) -> bool:
    """Tell if a node's result depends on its inputs alone."""
    return (
        bool(node.input)  # a Constant is as good as an initializer
        and not node.op_type.startswith("Random")
        and node.domain in ("", "ai.onnx")
        and all(attribute.type != attribute.GRAPH for attribute in node.attribute)
    )


def _read_elsewhere(graph: Any, constant: list[Any]) -> Iterator[str]:
    """Give what nodes that are not constant, and the graph's outputs, read."""
    own = {node.output[0] for node in constant}
    for node in graph.node:
        if node.output[0] not in own:
            yield from node.input
    yield from (value.name for value in graph.output)


def _results(
    model: onnx.ModelProto, nodes: list[Any], initializers: list[Any], wanted: list[str]
) -> list[npt.NDArray[Any]]:
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in wanted]
    part = onnx.helper.make_graph(nodes, "constants", [], outputs, initializers)
    data = onnx.helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version
    ).SerializeToString()
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # initializers that only the rest of the graph reads
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    results: list[npt.NDArray[Any]] = session.run(wanted, {})
    return results


def _put(graph: Any, name: str, value: npt.NDArray[Any]) -> bool:
    """Make a constant of a result, unless the file grows too much; tell if it did."""
    nodes = _needed(graph, [node for node in graph.node if name not in node.output])
    read = {each for node in nodes for each in node.input}
    read.update(output.name for output in graph.output)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    left = sum(_nbytes(tensor) for tensor in kept) + value.nbytes
    before = sum(_nbytes(tensor) for tensor in graph.initializer)
    if left > (1 + MOST_GROWTH) * before:
        return False
    kept.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return True


def _needed(graph: Any, nodes: list[Any]) -> list[Any]:
    """Give the nodes that the graph's outputs still depend on, in their order."""
    made_by = {name: node for node in nodes for name in node.output if name}
    waiting = [value.name for value in graph.output]
    seen = set[str]()
    while waiting:
        name = waiting.pop()
        node = made_by.get(name)
        if node is not None and node.output[0] not in seen:
            seen.add(node.output[0])
            waiting.extend(node.input)
    return [node for node in nodes if node.output[0] in seen]


def _nbytes(tensor: Any) -> int:
    count = int(np.prod(tensor.dims, dtype=np.int64))
    return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
