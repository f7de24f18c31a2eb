"""Banks that a graph stores in half the bytes, without loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from conftest import Exported
from pyimgano.detectors.nearest_neighbour import half_precision
from pyimgano_exporters.half_storage import LEAST_NUMBERS, use_half_storage
from pyimgano_runtime.bundle import open_bundle

SIDE = 64
assert SIDE * SIDE >= LEAST_NUMBERS


def product(constant: np.ndarray) -> Any:
    """Give a model that multiplies its input by a constant matrix."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "bank"], ["y"])],
        "product",
        [value("x", TensorProto.FLOAT, ["n", SIDE])],
        [value("y", TensorProto.FLOAT, ["n", SIDE])],
        [numpy_helper.from_array(constant.astype(np.float32), "bank")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def halves() -> np.ndarray:
    """Give a matrix of numbers that float16 holds."""
    random = np.random.default_rng(0)
    return random.normal(size=(SIDE, SIDE)).astype(np.float16).astype(np.float32)


def test_a_constant_of_halves_is_stored_in_half_the_bytes() -> None:
    model = product(halves())
    saved = use_half_storage(model.graph)
    (stored,) = model.graph.initializer
    assert stored.data_type == TensorProto.FLOAT16
    assert saved == len(stored.raw_data) == 2 * SIDE * SIDE
    assert [node.op_type for node in model.graph.node] == ["Cast", "MatMul"]
    onnx.checker.check_model(model, full_check=True)


def test_the_answers_are_equal_to_the_bit() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    x = np.random.default_rng(1).normal(size=(3, SIDE)).astype(np.float32)
    answers = []
    for shrink in (False, True):
        model = product(halves())
        if shrink:
            use_half_storage(model.graph)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        answers.append(session.run(None, {"x": x})[0].tobytes())
    assert answers[0] == answers[1]


@pytest.mark.parametrize("odd", [1 / 3, 1e5, 1e-9, np.inf * 0])
def test_a_constant_with_one_other_number_stays(odd: float) -> None:
    constant = halves()
    constant[5, 7] = odd
    model = product(constant)
    before = model.SerializeToString()
    assert use_half_storage(model.graph) == 0
    assert model.SerializeToString() == before


def test_rows_are_looked_up_among_the_halves() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    value = helper.make_tensor_value_info
    answers = []
    for shrink in (False, True):
        graph = helper.make_graph(
            [helper.make_node("Gather", ["bank", "rows"], ["y"], axis=0)],
            "rows",
            [value("rows", TensorProto.INT64, ["n"])],
            [value("y", TensorProto.FLOAT, ["n", SIDE])],
            [numpy_helper.from_array(halves(), "bank")],
        )
        if shrink:
            use_half_storage(graph)
            assert [node.op_type for node in graph.node] == ["Gather", "Cast"]
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        answers.append(session.run(None, {"rows": np.array([3, 0, 63])})[0])
    assert answers[0].tobytes() == answers[1].tobytes()


def test_a_small_constant_stays() -> None:
    value = helper.make_tensor_value_info
    small = numpy_helper.from_array(np.ones(LEAST_NUMBERS - 1, np.float32), "small")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "small"], ["y"])],
        "sum",
        [value("x", TensorProto.FLOAT, [LEAST_NUMBERS - 1])],
        [value("y", TensorProto.FLOAT, [LEAST_NUMBERS - 1])],
        [small],
    )
    assert use_half_storage(graph) == 0


def test_a_bank_is_rounded_by_no_more_than_float16_rounds() -> None:
    bank = torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
    rounded = half_precision(bank)
    assert torch.equal(rounded, rounded.half().float())
    assert not torch.equal(rounded, bank)
    assert float(((rounded - bank) / bank).abs().max()) <= 2**-11


@pytest.mark.parametrize("scale", [1e5, 1e-9])
def test_a_bank_that_float16_would_spoil_stays(scale: float) -> None:
    bank = scale * torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
    assert half_precision(bank) is bank


@pytest.mark.parametrize("shape", [(0, 32), (3, 4)])
def test_an_empty_bank_and_one_of_zeros_stay_what_they_are(
    shape: tuple[int, int],
) -> None:
    assert torch.equal(half_precision(torch.zeros(shape)), torch.zeros(shape))


def test_an_exported_bank_is_stored_as_halves(
    exported: Callable[[str], Exported],
) -> None:
    bundle = open_bundle(exported("patchcore").bundle)
    (spec,) = bundle.config.models.values()
    model = onnx.load_model_from_string(bundle.read(spec.file))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["detector.bank_half"] == TensorProto.FLOAT16
    assert "detector.bank" not in types
