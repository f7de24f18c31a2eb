"""What a bundle's graph may contain, and that onnxruntime sees nothing else."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import (
    FLOAT,
    SCORE_INFO,
    attribute,
    field,
    graph,
    grey,
    int64s,
    model,
    model_spec,
    node,
    tensor_info,
    varint,
)

from pyimgano_runtime import BundleError
from pyimgano_runtime.engine import OnnxEngine
from pyimgano_runtime.onnx_rules import MAX_FILLED, REFUSED, check_graph

V1 = attribute("value_ints", [1])


def refusal(data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        check_graph(data, "m.onnx")
    return str(caught.value)


def session_refusal(data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        OnnxEngine(data, model_spec(), "m.onnx")
    return str(caught.value)


def test_the_facts_of_a_plain_graph_are_found() -> None:
    facts = check_graph(model(graph()), "m.onnx")
    assert (facts.opset, facts.n_nodes) == (20, 7)
    assert (facts.inputs, facts.outputs) == (["image"], ["score", "anomaly_map"])
    assert facts.operators >= {"Cast", "Resize", "ReduceMax"}
    assert not facts.has_metadata


@pytest.mark.parametrize("operator", sorted(REFUSED))
def test_a_refused_operator_is_named(operator: str) -> None:
    nodes = node(operator, ["grey"], ["z"])
    assert f"uses the operators ['{operator}']" in refusal(
        model(graph(extra_nodes=nodes))
    )


def test_foreign_domains_are_refused_in_imports_and_nodes() -> None:
    nodes = node("Add", ["grey"], ["z"], field(7, "com.evil"))
    assert "com.evil" in refusal(model(graph(extra_nodes=nodes)))
    imports = field(8, field(1, "ai.onnx.ml") + field(2, 3))
    assert "ai.onnx.ml" in refusal(model(graph(), extra=imports))


def test_functions_subgraphs_and_training_graphs_are_refused() -> None:
    assert "functions" in refusal(model(graph(), extra=field(25, field(1, "f"))))
    assert "graphs inside" in refusal(model(graph(), extra=field(20, b"")))
    body = field(5, field(1, "body") + field(6, b"") + field(20, 5))
    nodes = node("Identity", ["grey"], ["z"], body)
    assert "graphs inside" in refusal(model(graph(extra_nodes=nodes)))


def external(name: str, file: str) -> bytes:
    where = field(13, field(1, "location") + field(2, file))
    return field(1, 4) + field(2, FLOAT) + field(8, name) + where + field(14, 1)


@pytest.mark.parametrize(
    "tensor",
    [
        external("w", "w.bin"),
        field(8, "w") + field(14, 1),
        field(8, "w") + field(14, (1 << 32) + 1),  # a parser keeps the lower 32 bits
    ],
)
def test_external_data_is_refused(tensor: bytes) -> None:
    assert "outside of the file" in refusal(model(graph(extra=field(5, tensor))))
    constant = node("Constant", [], ["w"], attribute("value", tensor))
    assert "outside of the file" in refusal(model(graph(extra_nodes=constant)))


def test_sparse_tensors_are_refused() -> None:
    assert "sparse" in refusal(model(graph(extra=field(15, b""))))
    value = field(5, field(1, "sparse_value") + field(22, b""))
    constant = node("Constant", [], ["w"], value)
    assert "sparse" in refusal(model(graph(extra_nodes=constant)))


def test_external_data_is_not_looked_for_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Were the rule passed by, the session itself would find no folder to look in.
    monkeypatch.chdir(tmp_path)
    Path("w.bin").write_bytes(bytes(16))
    facts = check_graph(model(graph()), "m.onnx")
    monkeypatch.setattr("pyimgano_runtime.engine.check_graph", lambda *_: facts)
    extra = field(5, external("w", "w.bin")) + node("Identity", ["w"], ["z"])
    assert "refuses the model" in session_refusal(model(graph(extra=extra)))


def test_a_session_needs_no_writable_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "mkdir", refuse)
    engine = OnnxEngine(model(graph()), model_spec(), "m.onnx")
    assert engine.run(grey(7)[None], with_map=False)[0] == [np.float32(7)]


def test_settings_for_the_session_in_the_file_are_refused() -> None:
    setting = field(14, field(1, "ort_config") + field(2, '{"session_options": {}}'))
    assert "ort_config" in refusal(model(graph(), extra=setting))


def test_source_paths_are_noted() -> None:
    assert check_graph(model(graph(), extra=field(6, "/home/me")), "m").has_metadata
    assert check_graph(model(graph(extra=field(10, "doc"))), "m").has_metadata


def filled(shape: bytes, nodes: bytes = b"") -> bytes:
    made = node("ConstantOfShape", ["shape"], ["zeros"])
    return model(graph(extra_nodes=nodes + made, extra=shape))


def test_constant_of_shape_is_taken_up_to_its_cap() -> None:
    check_graph(filled(field(5, int64s("shape", [MAX_FILLED]))), "m.onnx")
    message = refusal(filled(field(5, int64s("shape", [MAX_FILLED, 2]))))
    assert "expected at most 16,777,216 numbers" in message


@pytest.mark.parametrize(
    "value",
    [
        attribute("value", int64s("", [10_000, 1_000_000])),
        attribute("value_ints", [10_000, 1_000_000]),
        field(5, field(1, "value_ints") + field(8, varint(10**6) + varint(10**4))),
    ],
)
def test_constant_of_shape_is_capped_for_shapes_from_a_constant(value: bytes) -> None:
    constant = node("Constant", [], ["shape"], value)
    assert "[10" in refusal(filled(b"", constant))


def test_constant_of_shape_is_capped_for_typed_data() -> None:
    packed = varint(10**6) + varint(10**6)
    tensor = field(1, 2) + field(2, 7) + field(8, "shape") + field(7, packed)
    assert "expected at most" in refusal(filled(field(5, tensor)))


def test_constant_of_shape_with_a_computed_shape_is_refused() -> None:
    computed = node("Shape", ["image"], ["shape"])
    assert "shape is computed" in refusal(filled(b"", computed))


def floats(name: str, values: Sequence[float]) -> bytes:
    raw = struct.pack(f"<{len(values)}f", *values)
    return field(1, len(values)) + field(2, FLOAT) + field(8, name) + field(9, raw)


def sized(operator: str, place: int, size: bytes) -> bytes:
    """Give a model with one operator whose input at `place` is the tensor "size"."""
    nodes = node(operator, ["grey", *[""] * (place - 1), "size"], ["z"])
    return model(graph(extra_nodes=nodes, extra=size))


HUGE = {
    "Expand": (1, int64s("size", [100_000, 100_000])),
    "Tile": (1, int64s("size", [1, 100_000, 100_000, 1])),
    "Pad": (1, int64s("size", [0, 10**5, 0, 0, 0, 10**5, 10**5, 0])),
    "Resize": (3, int64s("size", [100_000, 100_000])),
    "CenterCropPad": (1, int64s("size", [100_000, 100_000])),
    "OneHot": (1, int64s("size", [10**10])),
}


@pytest.mark.parametrize("operator", HUGE)
def test_an_operator_that_a_constant_makes_huge_is_refused(operator: str) -> None:
    place, tensor = HUGE[operator]
    message = refusal(sized(operator, place, field(5, tensor)))
    assert f"has the operator {operator} with the size [" in message
    assert "expected at most 16,777,216 numbers" in message


@pytest.mark.parametrize(
    ("told", "is_fine"),
    [
        ((0, 100, 3), True),
        ((0, 10**9, 3), False),
        ((0, 10**9, 1000), True),
        ((9, 0, 0), False),
    ],
)
def test_a_range_of_constants_is_capped(told: tuple[int, ...], is_fine: bool) -> None:
    tensors = b"".join(
        field(5, field(2, 7) + field(8, name) + field(9, struct.pack("<q", number)))
        for name, number in zip("abc", told, strict=True)
    )
    data = model(graph(extra_nodes=node("Range", [*"abc"], ["z"]), extra=tensors))
    if is_fine:
        check_graph(data, "m.onnx")
    else:
        assert f"has a Range of {list(told)}" in refusal(data)


@pytest.mark.parametrize(
    ("equation", "is_fine"),
    [
        *(("ij,jk->ik", True), ("bhwc, nc -> bnhw", True), ("...ij->...", True)),
        *(("i", True), ("....", False), ("i.j", False), ("i->j->k", False)),
        *(("i1", False), ("......", False), ("i;j", False)),
    ],
)
def test_an_einsum_has_a_plain_equation(equation: str, is_fine: bool) -> None:
    # Seen with onnxruntime 1.32: "...." makes a session that never comes to an end.
    nodes = node("Einsum", ["grey"], ["z"], attribute("equation", equation))
    data = model(graph(extra_nodes=nodes))
    if is_fine:
        check_graph(data, "m.onnx")
    else:
        assert "Einsum: its equation is damaged" in refusal(data)


@pytest.mark.parametrize("operator", ["Concat", "Max", "Sum", "Einsum"])
def test_an_operator_of_many_inputs_names_them_all(operator: str) -> None:
    # Seen with onnxruntime 1.32: a segmentation fault for a Sum of "a", "", "b".
    given = attribute("equation", "ij,jk,kl->il")
    nodes = node(operator, ["grey", "", "grey"], ["z"], given)
    expected = f"{operator}: an input has no name"
    assert expected in refusal(model(graph(extra_nodes=nodes)))


def test_every_output_has_a_name() -> None:
    # Seen with onnxruntime 1.32: a segmentation fault for a Split into "" and "a".
    nodes = node("Split", ["grey"], ["", "a"], attribute("num_outputs", 2))
    assert "Split: an output has no name" in refusal(model(graph(extra_nodes=nodes)))


def test_a_split_says_how_many_outputs_it_has() -> None:
    # Seen with onnxruntime 1.32: with num_outputs 1 and two names the process aborts.
    two = node("Split", ["grey"], ["a", "b"], attribute("num_outputs", 2))
    check_graph(model(graph(extra_nodes=two)), "m.onnx")
    one = node("Split", ["grey"], ["a", "b"], attribute("num_outputs", 1))
    assert "Split: its num_outputs" in refusal(model(graph(extra_nodes=one)))


@pytest.mark.parametrize("scale", [1e5, math.inf, math.nan, -1e5])
def test_resize_is_capped_by_its_scales_too(scale: float) -> None:
    tensor = field(5, floats("size", [1, scale, scale, 1]))
    assert "has the operator Resize with the size [1.0, " in refusal(
        sized("Resize", 2, tensor)
    )


@pytest.mark.parametrize(
    "value",
    [
        attribute("value", int64s("", [10**5, 10**6])),
        attribute("value_ints", [10**5, 10**6]),
        attribute("value_int", 10**11),
        field(5, field(1, "value_ints") + field(8, varint(10**6) + varint(10**5))),
        field(5, field(1, "value_floats") + field(7, struct.pack("<2f", 1e5, 1e6))),
        field(5, field(1, "value_float") + varint(2 << 3 | 5) + struct.pack("<f", 1e9)),
    ],
)
def test_a_size_may_hide_in_any_form_of_constant(value: bytes) -> None:
    # The attribute stands before the output's name: the order of fields is free.
    constant = field(1, value + field(2, "size") + field(4, "Constant"))
    nodes = constant + node("Resize", ["grey", "", "size"], ["z"])
    assert "has the operator Resize with the size [" in refusal(
        model(graph(extra_nodes=nodes))
    )


def test_a_computed_size_is_left_to_the_memory_limit() -> None:
    nodes = node("Shape", ["image"], ["size"])
    for operator in ("Expand", "Tile", "Pad"):
        again = nodes + node(operator, ["grey", "size"], ["z"])
        check_graph(model(graph(extra_nodes=again)), "m.onnx")


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (field(1, 10**5) + field(1, 10**5), "has 0 numbers of data, its dims"),
        (field(1, 3) + field(9, bytes(8)), "has 8 bytes of data, its dims [3] say 12"),
        (field(1, 1) + field(9, bytes(4)) + field(4, bytes(4)), "has its data twice"),
        (field(1, (1 << 64) - 1), "has the dims [-1]"),
        (field(1, 1) * 65 + field(9, bytes(4)), "has the dims [1, 1"),
    ],
)
def test_a_tensor_holds_what_its_dims_say(tensor: bytes, expected: str) -> None:
    extra = field(5, field(2, FLOAT) + field(8, "w") + tensor)
    assert expected in refusal(model(graph(extra=extra)))


@pytest.mark.parametrize(
    "extra",
    [
        # onnx reads no number where a walker could read a 0.
        node("A", [], ["x"], field(5, field(1, "axes") + field(8, b""))),
        node("A", [], ["x"], field(5, field(1, "values") + field(7, b""))),
        field(5, field(1, b"") + field(2, FLOAT) + field(9, bytes(4))),
        field(5, field(1, 1) + field(2, 7) + field(7, b"")),
        field(5, field(1, 0) + field(2, FLOAT) + field(4, b"")),
        field(5, field(1, 0) + field(2, 11) + field(10, b"")),
    ],
)
def test_a_packed_field_without_numbers_is_refused(extra: bytes) -> None:
    assert "is packed and empty" in refusal(model(graph(extra=extra)))


@pytest.mark.parametrize("dtype", [0, 8, 14, 22, (1 << 32) + 1])
def test_a_tensor_of_an_unused_type_is_refused(dtype: int) -> None:
    extra = field(5, field(2, dtype) + field(8, "w"))
    assert f"is of type {dtype}" in refusal(model(graph(extra=extra)))


def test_two_opsets_are_refused() -> None:
    again = field(8, field(1, "ai.onnx") + field(2, 99))
    assert "several opsets" in refusal(model(graph(), extra=again))


@pytest.mark.parametrize(
    "data",
    [
        graph(extra=field(11, field(1, b"\xff"))),
        graph(extra=field(13, tensor_info("x", 1, ("y",)).replace(b"y", b"\xff"))),
        graph(extra_nodes=node("Cast", [], [], field(5, field(4, b"\xff")))),
        graph(extra_nodes=field(1, field(1, b"\xff"))),
    ],
)
def test_a_text_that_is_not_utf_8_is_refused(data: bytes) -> None:
    assert "'utf-8' codec can't decode" in refusal(model(data))


@pytest.mark.parametrize("kind", [4, 5, 7, 8, 9])
def test_a_type_that_is_not_a_tensors_is_refused(kind: int) -> None:
    info = field(1, "x") + field(2, field(kind, b""))
    assert "is unknown" in refusal(model(graph(extra=field(13, info))))


def test_onnxruntime_says_nothing_on_stdout_when_it_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Seen with onnxruntime 1.32: on a ValueError it tells of a second try on stdout,
    # which belongs to the rows.
    facts = check_graph(model(graph()), "m.onnx")
    monkeypatch.setattr("pyimgano_runtime.engine.check_graph", lambda *_: facts)
    odd = node("Nope", ["grey"], ["z"]).replace(b"Nope", b"\xff\xfe\xff\xfe")
    assert "refuses the model" in session_refusal(model(graph(extra_nodes=odd)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"not a model",
        b"\xff" * 50,
        b"\x08",
        model(graph())[:-40],
        field(7, b"\x0a\xff\xff\xff\xff\x0f"),
        field(8, field(2, 20)),
    ],
)
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    assert "m.onnx: " in refusal(data)


def test_every_truncation_of_a_model_is_an_error_of_ours_or_harmless() -> None:
    data = model(graph())
    for end in range(len(data)):
        try:
            check_graph(data[:end], "m.onnx")
        except BundleError:
            continue
        pytest.fail(f"{end} of {len(data)} bytes were taken for a whole model")


def test_a_field_number_that_wraps_around_is_refused() -> None:
    # Seen with onnxruntime 1.32: it reads this tag as field 4, the operator's name.
    hidden = varint((4 << 3 | 2) + (1 << 32)) + field(0, "RandomNormal")[1:]
    nodes = field(1, field(1, "grey") + field(2, "z") + hidden)
    assert "field number is out of range" in refusal(model(graph(extra_nodes=nodes)))


def test_bytes_like_onnxruntimes_own_format_are_read_as_onnx() -> None:
    # "ORTM" at byte 4 makes onnxruntime read its own format, which we do not walk.
    data = field(1, 9) + field(2, "ORTM" + "." * 36) + model(graph())[2:]
    assert data[4:8] == b"ORTM"
    engine = OnnxEngine(data, model_spec(), "m.onnx")
    assert engine.run(grey(7)[None], with_map=False)[0] == [np.float32(7)]


def test_a_graph_with_other_names_or_opset_than_the_document_is_refused() -> None:
    assert "opset is 21" in session_refusal(model(graph(), opset=21))
    other = model(graph(with_map=False))
    assert "infer_config.json says" in session_refusal(other)


def test_a_field_that_stands_twice_is_refused() -> None:
    # A parser takes the last of two texts and merges two messages.
    twice = field(1, "score") + SCORE_INFO.replace(b"score", b"grey1")
    assert "stands twice" in refusal(model(graph(score_info=twice)))
    assert "stands twice" in refusal(model(graph()) + field(7, b""))


@pytest.mark.parametrize(
    "extra", [field(99, b""), field(7, 1), b"\x0b\x0c", field(0, b"")]
)
def test_a_field_that_no_model_has_is_refused(extra: bytes) -> None:
    assert "is unknown" in refusal(model(graph(), extra=extra))


def test_a_tensor_of_two_makers_is_refused() -> None:
    both = field(5, int64s("n", [1])) + node("Constant", [], ["n"], V1)
    assert "makes the tensors ['n'] twice" in refusal(model(graph(extra=both)))
    twice = field(5, int64s("axis_1", [2]))
    assert "['axis_1'] twice" in refusal(model(graph(extra=twice)))
    assert "['image'] twice" in refusal(
        model(graph(extra=field(5, int64s("image", []))))
    )


def test_a_constant_with_two_values_or_attributes_is_refused() -> None:
    both = node("Constant", [], ["n"], V1, attribute("value_int", 1))
    assert "no or several values" in refusal(model(graph(extra_nodes=both)))
    mixed = field(5, field(1, "value") + field(3, 1) + field(8, 2) + field(20, 2))
    constant = node("Constant", [], ["n"], mixed)
    assert "has several values" in refusal(model(graph(extra_nodes=constant)))
    twice = node("Cast", ["grey"], ["n"], attribute("to", 1), attribute("to", 7))
    assert "has an attribute twice" in refusal(model(graph(extra_nodes=twice)))


@pytest.mark.parametrize(
    "data",
    [
        graph(image_info=tensor_info("image", 2, (2, "height", "width", 3))),
        graph(image_info=tensor_info("image", 2, ("batch", "height", "width", 1))),
        graph(image_info=tensor_info("image", 3, ("batch", "height", "width", 3))),
    ],
)
def test_a_graph_with_other_types_or_fixed_sizes_than_the_document_is_refused(
    data: bytes,
) -> None:
    assert "image is tensor(" in session_refusal(model(data))


def test_a_model_that_onnxruntime_refuses_is_a_bundle_refused(
    capfd: pytest.CaptureFixture[str],
) -> None:
    nodes = node("NoSuchOperator", ["grey"], ["z"])
    assert "refuses the model" in session_refusal(model(graph(extra_nodes=nodes)))
    assert capfd.readouterr().err == "", "onnxruntime's own log says it a second time"
