"""What a graph computes of constants alone is computed when it is exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from pyimgano_exporters.constant_folding import fold_constants

ROWS, WIDTH = 50, 60
BANK = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


def model(nodes: Sequence[Any], *, columns: int = WIDTH) -> onnx.ModelProto:
    """Give a model of x (n, WIDTH) and the constants `bank` and `two`."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "constants",
        [value("x", TensorProto.FLOAT, ["n", WIDTH])],
        [value("y", TensorProto.FLOAT, ["n", columns])],
        [
            numpy_helper.from_array(BANK, "bank"),
            numpy_helper.from_array(np.array(2.0, np.float32), "two"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    made.ir_version = 10
    return made


def answer(made: onnx.ModelProto) -> npt.NDArray[np.float32]:
    x = np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def operators(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in made.graph.node]


def test_the_squares_of_a_bank_become_a_constant() -> None:
    node = helper.make_node
    made = model(
        [
            node("Pow", ["bank", "two"], ["squares"]),
            node("ReduceSum", ["squares", "axis"], ["lengths"], keepdims=0),
            node("Gemm", ["x", "bank", "lengths"], ["y"], transB=1),
        ],
        columns=ROWS,
    )
    before = answer(made)
    assert fold_constants(made) == 1
    assert operators(made) == ["Gemm"]
    stored = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    assert set(stored) == {"bank", "lengths"}
    np.testing.assert_allclose(stored["lengths"], np.square(BANK).sum(1), rtol=1e-6)
    onnx.checker.check_model(made, full_check=True)
    assert np.array_equal(answer(made), before)


def test_a_transpose_that_takes_the_place_of_its_source_is_folded() -> None:
    node = helper.make_node
    made = model(
        [
            node("Transpose", ["bank"], ["columns"], perm=[1, 0]),
            node("MatMul", ["x", "columns"], ["y"]),
        ],
        columns=ROWS,
    )
    before = answer(made)
    assert fold_constants(made) == 1
    assert operators(made) == ["MatMul"]
    assert [t.name for t in made.graph.initializer] == ["columns"]
    assert np.array_equal(answer(made), before)


def test_nothing_is_stored_a_second_time_in_another_form() -> None:
    node = helper.make_node
    made = model(
        [
            node("Transpose", ["bank"], ["columns"], perm=[1, 0]),
            node("MatMul", ["x", "columns"], ["near"]),
            node("ArgMax", ["near"], ["row"], axis=1, keepdims=0),
            node("Gather", ["bank", "row"], ["y"]),
        ]
    )
    before = answer(made)
    assert fold_constants(made) == 0
    assert operators(made) == ["Transpose", "MatMul", "ArgMax", "Gather"]
    assert np.array_equal(answer(made), before)


def test_a_part_is_folded_where_the_whole_would_be_too_large() -> None:
    """A bank beside its squares is larger than the file may grow; they are not."""
    node = helper.make_node
    made = model(
        [
            node("Transpose", ["bank"], ["columns"], perm=[1, 0]),
            node("Pow", ["bank", "two"], ["squares"]),
            node("ReduceSum", ["squares", "axis"], ["lengths"], keepdims=1),
            node("Concat", ["bank", "lengths"], ["wide"], axis=1),
            node("MatMul", ["x", "columns"], ["near"]),
            node("MatMul", ["near", "wide"], ["y"]),
        ],
        columns=WIDTH + 1,
    )
    before = answer(made)
    assert fold_constants(made) == 1
    assert operators(made) == ["Transpose", "Concat", "MatMul", "MatMul"]
    assert {tensor.name for tensor in made.graph.initializer} == {"bank", "lengths"}
    assert np.array_equal(answer(made), before)


def test_what_is_drawn_anew_at_every_run_stays_in_the_graph() -> None:
    node = helper.make_node
    made = model(
        [
            node("RandomNormalLike", ["bank"], ["noise"]),
            node("ReduceMax", ["noise"], ["most"], keepdims=0),
            node("Add", ["x", "most"], ["y"]),
        ]
    )
    assert fold_constants(made) == 0
    assert operators(made) == ["RandomNormalLike", "ReduceMax", "Add"]


def test_an_output_that_depends_on_nothing_is_a_constant() -> None:
    node = helper.make_node
    made = model([node("Mul", ["bank", "two"], ["y"])])
    assert fold_constants(made) == 1
    assert operators(made) == []
    assert np.array_equal(answer(made), BANK * 2)
