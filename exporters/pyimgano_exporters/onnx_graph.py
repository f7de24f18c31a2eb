"""Turns a fitted detector into the bytes of one ONNX graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import onnx
import torch

from pyimgano_runtime.errors import ExportError
from pyimgano_runtime.garbage import no_collection
from pyimgano_runtime.infer_config import ModelSpec, TensorSpec

from .detector_protocol import ExportableDetector
from .graph_split import FEATURES
from .half_storage import use_half_storage
from .integer_products import use_integer_products

OPSET: Final = 20
INPUT: Final = "image"
SCORE: Final = "score"
MAP: Final = "anomaly_map"
MAX_BYTES: Final = 1_800_000_000  # above it protobuf needs external data

# A batch of two: an example of one would be baked into the graph as a constant.
EXAMPLE_SHAPE: Final = (2, 96, 128, 3)


def export_graph(detector: ExportableDetector, *, features: bool = False) -> bytes:
    """Give the ONNX bytes of a detector: dynamic batch, height and width.

    Doc strings and metadata are removed (they carry paths of this machine), and the
    bytes are the same for the same detector.

    Args:
        features: the graph also gives what the detector's `features` gives, as its last
            output.

    Raises:
        ExportError: torch cannot export the detector, or the file would be too large.
    """
    detector.eval()
    outputs = [SCORE, MAP] if detector.has_map else [SCORE]
    if features:
        outputs.append(FEATURES)
    dimension = torch.export.Dim
    shapes = {
        "images_u8": {
            0: dimension("batch", min=1, max=1024),
            1: dimension("height", min=2, max=65536),
            2: dimension("width", min=2, max=65536),
        }
    }
    example = torch.randint(0, 256, EXAMPLE_SHAPE, dtype=torch.uint8)
    try:
        with _quiet_exporter(), no_collection(), torch.no_grad():
            program = torch.onnx.export(
                _WithFeatures(detector) if features else _OutputsOnly(detector),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
    except (
        torch.onnx.errors.OnnxExporterError,
        torch._dynamo.exc.TorchDynamoException,
    ) as cause:
        raise ExportError(
            f"{detector.name}: torch cannot export its forward "
            f"({str(cause).splitlines()[0]})"
        ) from cause
    assert program is not None
    model = program.model_proto
    use_integer_products(model.graph)  # before the types of its tensors are removed
    use_half_storage(model.graph)
    strip(model)
    data: bytes = model.SerializeToString(deterministic=True)
    if len(data) > MAX_BYTES:
        raise ExportError(
            f"{detector.name}: the graph takes {len(data)} bytes, expected at most "
            f"{MAX_BYTES}; use a smaller bank, fewer taps or a smaller model size"
        )
    return data


class _OutputsOnly(torch.nn.Module):
    """The detector's forward without the None of a missing map."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images_u8: torch.Tensor) -> Any:
        score, anomaly_map = self.detector(images_u8)
        return (score,) if anomaly_map is None else (score, anomaly_map)


class _WithFeatures(torch.nn.Module):
    """The halves of a detector's forward, and what passes between them."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images_u8: torch.Tensor) -> Any:
        features = self.detector.features(images_u8)
        score, anomaly_map = self.detector.score_features(features)
        given = (score,) if anomaly_map is None else (score, anomaly_map)
        return (*given, features)


def strip(model: onnx.ModelProto) -> None:
    """Remove all that names the machine, its paths or its tool versions."""
    model.doc_string = ""
    model.producer_name = "pyimgano"
    model.producer_version = ""
    model.domain = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.name = "detector"
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for number, node in enumerate(graph.node):
        node.doc_string = ""
        del node.metadata_props[:]
        node.name = f"n{number}"
    for value in [*graph.input, *graph.output]:
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def model_spec(file: str, detector: ExportableDetector) -> ModelSpec:
    """Give the entry of infer_config.json that describes the graph."""
    outputs = [TensorSpec(SCORE, "score", "float32", ("batch",))]
    size = detector.map_size()
    if detector.has_map and size is not None:
        outputs.append(TensorSpec(MAP, "anomaly_map", "float32", ("batch", *size)))
    return ModelSpec(
        file=file,
        opset=OPSET,
        precision="fp32",
        inputs=(TensorSpec(INPUT, "image", "uint8", ("batch", "height", "width", 3)),),
        outputs=tuple(outputs),
    )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's and onnxscript's chatter away from the user's terminal."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
