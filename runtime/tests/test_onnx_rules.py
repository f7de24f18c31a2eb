"""What a bundle's graph may contain, and that onnxruntime sees nothing else."""

from __future__ import annotations

import os
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
    data = field(1, 9) + field(2, "ORTM" + "." * 36) + model(graph())
    assert data[4:8] == b"ORTM"
    engine = OnnxEngine(data, model_spec(), "m.onnx")
    assert engine.run(grey(7)[None], with_map=False)[0] == [np.float32(7)]


def test_a_graph_with_other_names_or_opset_than_the_document_is_refused() -> None:
    assert "opset is 21" in session_refusal(model(graph(), opset=21))
    other = model(graph(with_map=False))
    assert "infer_config.json says" in session_refusal(other)


def test_the_last_of_two_names_counts_as_for_every_parser() -> None:
    twice = field(1, "score") + SCORE_INFO.replace(b"score", b"grey1")
    assert "grey1" in session_refusal(model(graph(score_info=twice)))


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
