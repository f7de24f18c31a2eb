"""A detector's graph in 8 bits, and the features that it computes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.engine import FATAL, OnnxEngine
from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime

from .detector_protocol import ExportableDetector
from .graph_split import FEATURES
from .onnx_graph import INPUT, export_graph
from .quantize import quantize_graph
from .shared_backbone import Model

Image = npt.NDArray[np.uint8]
INT8: Final = "int8"


@dataclass(frozen=True, slots=True)
class Int8Graph:
    """A graph whose convolutions compute in 8 bits."""

    model: Model
    engine: OnnxEngine
    # (N, H, W, 3) uint8 -> (N, C, h, w) float32, as the graph itself computes them on
    # its way to the score; None: nobody asked for them.
    features: Callable[[Image], npt.NDArray[np.float32]] | None


def quantize_detector(
    detector: ExportableDetector,
    whole: Model,
    images: Iterable[Image],
    *,
    features: bool,
) -> Int8Graph:
    """Give a detector's graph in 8 bits.

    Args:
        whole: its graph in float32.
        images: (H, W, 3) uint8 normals as the graph sees them; they set the ranges.
        features: also give what the detector's `features` gives, in 8 bits.

    Raises:
        ExportError: see `quantize_graph`.
    """
    spec = replace(whole.spec, precision=INT8)
    if not features:
        data = quantize_graph(whole.data, images)
        model = Model(data, spec)
        return Int8Graph(model, OnnxEngine(data, spec, spec.file), None)
    with_features = export_graph(detector, features=True)
    quantized = onnx.load_model_from_string(quantize_graph(with_features, images))
    compute = _only_features(quantized)
    del quantized.graph.output[-1]
    model = Model(quantized.SerializeToString(deterministic=True), spec)
    return Int8Graph(model, OnnxEngine(model.data, spec, spec.file), compute)


def _only_features(
    model: onnx.ModelProto,
) -> Callable[[Image], npt.NDArray[np.float32]]:
    """Give what computes the features alone."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.append(model.graph.output[-1])
    assert part.graph.output[0].name == FEATURES
    needed, nodes = {FEATURES}, []
    for node in reversed(part.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    del part.graph.node[:]
    part.graph.node.extend(reversed(nodes))
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = FATAL  # it would tell of constants that nothing reads
    session: Any = onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def compute(images_u8: Image) -> npt.NDArray[np.float32]:
        (values,) = session.run([FEATURES], {INPUT: images_u8})
        found: npt.NDArray[np.float32] = values
        return found

    return compute
