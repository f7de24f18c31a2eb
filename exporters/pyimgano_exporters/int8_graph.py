"""A detector's graph in 8 bits, and the features that it computes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from pyimgano_runtime.engine import OnnxEngine
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
    # its way to the score; None: the detector scores no features.
    features: Callable[[Image], npt.NDArray[np.float32]] | None


def quantize_detector(
    detector: ExportableDetector, whole: Model, images: Iterable[Image]
) -> Int8Graph:
    """Give a detector's graph in 8 bits.

    Args:
        whole: its graph in float32.
        images: (H, W, 3) uint8 normals as the graph sees them; they set the ranges.

    Raises:
        ExportError: see `quantize_graph`.
    """
    spec = replace(whole.spec, precision=INT8)
    if not hasattr(detector, "score_features"):
        data = quantize_graph(whole.data, images)
        model = Model(data, spec)
        return Int8Graph(model, OnnxEngine(data, spec, spec.file), None)
    with_features = export_graph(detector, features=True)
    quantized = onnx.load_model_from_string(quantize_graph(with_features, images))
    features = _only_features(quantized)
    del quantized.graph.output[-1]
    model = Model(quantized.SerializeToString(deterministic=True), spec)
    return Int8Graph(model, OnnxEngine(model.data, spec, spec.file), features)


def _only_features(
    model: onnx.ModelProto,
) -> Callable[[Image], npt.NDArray[np.float32]]:
    """Give what computes the features alone; onnxruntime drops the rest."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.append(model.graph.output[-1])
    assert part.graph.output[0].name == FEATURES
    session: Any = load_onnxruntime().InferenceSession(
        part.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def compute(images_u8: Image) -> npt.NDArray[np.float32]:
        (values,) = session.run([FEATURES], {INPUT: images_u8})
        found: npt.NDArray[np.float32] = values
        return found

    return compute
