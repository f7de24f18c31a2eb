"""Checks of an exported graph that need no reference: all findings at once."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from pyimgano_runtime.engine import OnnxSession
from pyimgano_runtime.errors import BundleError, ExportError, ImageError
from pyimgano_runtime.infer_config import ModelSpec, TensorSpec
from pyimgano_runtime.onnx_rules import check_graph

# Other batches and sizes than the export's example, batch 1 included.
SHAPES: Final = ((1, 37, 53, 3), (1, 256, 256, 3), (3, 64, 48, 3), (5, 131, 200, 3))
TYPES: Final = {
    "uint8": onnx.TensorProto.UINT8,
    "float32": onnx.TensorProto.FLOAT,
}

PLURALS: Final = {"features": "features", "score": "scores", "anomaly_map": "maps"}


def check_exported(data: bytes, spec: ModelSpec, where: str) -> None:
    """Refuse a graph that breaks the contract.

    Names, types, opset, domains, the runtime's operator rule, no source paths; then
    the graph is run at four shapes, batch 1 included.

    Raises:
        ExportError: every rule that is broken.
    """
    findings: list[str] = []
    try:
        facts = check_graph(data, where)
    except BundleError as error:
        raise ExportError(str(error)) from error
    if facts.has_metadata:
        findings.append("carries doc strings or metadata, which hold source paths")
    if facts.opset != spec.opset:
        findings.append(f"has opset {facts.opset}, expected {spec.opset}")
    findings += _judged_by_onnx(data, spec)
    if not findings:
        findings += _run_shapes(data, spec, where)
    if findings:
        raise ExportError(f"{where}: the exported graph " + "; it ".join(findings))


def _judged_by_onnx(data: bytes, spec: ModelSpec) -> list[str]:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:  # our own walker skips the fields that it needs not
        return [f"cannot be parsed by onnx ({error})"]
    findings = []
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        findings.append(f"onnx finds it invalid ({str(error).splitlines()[0]})")
    for values, tensors in (
        (model.graph.input, spec.inputs),
        (model.graph.output, spec.outputs),
    ):
        found = [(v.name, v.type.tensor_type.elem_type) for v in values]
        wanted = [(t.name, TYPES[t.dtype]) for t in tensors]
        if found != wanted:
            findings.append(f"has {found}, expected {wanted}")
    return findings


def _run_shapes(data: bytes, spec: ModelSpec, where: str) -> list[str]:
    try:
        session = OnnxSession(data, spec, where)
    except BundleError as error:
        return [f"is refused by the runtime ({error})"]
    random = np.random.default_rng(0)
    names = [output.name for output in spec.outputs]
    findings = []
    for shape in SHAPES:
        feeds = {i.name: _noise(i, shape, random) for i in spec.inputs}
        shown = " and ".join(str(feed.shape) for feed in feeds.values())
        try:
            values = session.run(names, feeds, shape)
        except ImageError as error:
            findings.append(f"fails for {shown} ({error})")
            continue
        for output, value in zip(spec.outputs, values, strict=True):
            name = PLURALS[output.kind]
            if value.shape != (shape[0], *output.shape[1:]):
                findings.append(
                    f"gives {name} of shape {value.shape} for {shown}, expected "
                    f"{list(output.shape)}"
                )
            if value.dtype != np.float32:
                findings.append(f"gives {name} of type {value.dtype} for {shown}")
            if not np.isfinite(value).all():
                findings.append(f"gives {name} that are not finite for {shown}")
    return findings


def _noise(
    tensor: TensorSpec, shape: tuple[int, ...], random: np.random.Generator
) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Give pictures of a shape, or features of as many pictures."""
    if tensor.kind == "image":
        return random.integers(0, 256, shape, dtype=np.uint8)
    sides = [side for side in tensor.shape[1:] if isinstance(side, int)]
    return random.standard_normal((shape[0], *sides), dtype=np.float32)
