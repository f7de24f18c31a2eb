"""Builds small bundles byte by byte: an ONNX graph without the onnx package.

The graph: grey = mean of the channels * scale, resized to a map of 4 x 6; the score is
the map's maximum. A picture of one grey level g has the score g * scale.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.infer_config import (
    BundleInfo,
    Calibration,
    CategoryConfig,
    CategoryParity,
    FileEntry,
    Golden,
    InferConfig,
    InputRules,
    MapGeometry,
    ModelSpec,
    Parity,
    TensorSpec,
    ThresholdProvenance,
    Thresholds,
)
from pyimgano_runtime.png_writer import encode_png

Image = npt.NDArray[np.uint8]
Edit = Callable[[dict[str, Any]], object]

MAP_SIZE = (4, 6)
THRESHOLD = 100.0
SCORES = (10.0, 20.0, 20.0, 30.0)  # calibration, ascending
UINT8, INT64, FLOAT = 2, 7, 1  # TensorProto.DataType

# 8 x 8 pixels of grey 128: all coefficients are 0, so every decoder gives the same.
# Two Huffman tables of one code, "0": "no difference" and "end of block".
_HUFFMAN = "ffc40014 %s 01 000000000000000000000000000000 00"
GREY_JPEG = bytes.fromhex(
    "ffd8 ffdb0043 00"
    + "01" * 64
    + "ffc0000b 08 0008 0008 01 01 11 00"
    + _HUFFMAN % "00"
    + _HUFFMAN % "10"
    + "ffda0008 01 01 00 00 3f 00"
    + "3f ffd9"
)


def varint(value: int) -> bytes:
    """Give a protobuf varint."""
    out = b""
    while True:
        value, low = value >> 7, value & 127
        out += bytes([low | 128 if value else low])
        if not value:
            return out


def field(number: int, value: int | str | bytes) -> bytes:
    """Give one protobuf field: a varint for an int, else length and bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def attribute(name: str, value: int | str | list[int] | bytes) -> bytes:
    """Give a node's attribute; bytes are a whole TensorProto."""
    if isinstance(value, int):
        body = field(3, value) + field(20, 2)
    elif isinstance(value, str):
        body = field(4, value) + field(20, 3)
    elif isinstance(value, bytes):
        body = field(5, value) + field(20, 4)
    else:
        body = b"".join(field(8, v) for v in value) + field(20, 7)
    return field(5, field(1, name) + body)


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes
) -> bytes:
    """Give a GraphProto.node."""
    names = [field(1, i) for i in inputs] + [field(2, o) for o in outputs]
    return field(1, b"".join(names) + field(4, kind) + b"".join(attributes))


def int64s(name: str, values: Sequence[int]) -> bytes:
    """Give a TensorProto of whole numbers."""
    raw = struct.pack(f"<{len(values)}q", *values)
    return field(1, len(values)) + field(2, INT64) + field(8, name) + field(9, raw)


def tensor_info(name: str, dtype: int, shape: Sequence[int | str]) -> bytes:
    """Give a ValueInfoProto."""
    sides = b"".join(
        field(1, field(1, s) if isinstance(s, int) else field(2, s)) for s in shape
    )
    return field(1, name) + field(2, field(1, field(1, dtype) + field(2, sides)))


IMAGE_INFO = tensor_info("image", UINT8, ("batch", "height", "width", 3))
SCORE_INFO = tensor_info("score", FLOAT, ("batch",))
MAP_INFO = tensor_info("anomaly_map", FLOAT, ("batch", *MAP_SIZE))


def model(graph: bytes, *, opset: int = 20, extra: bytes = b"") -> bytes:
    """Give a ModelProto."""
    return field(1, 9) + extra + field(7, graph) + field(8, field(2, opset))


def graph(
    *,
    scale: float = 1.0,
    with_map: bool = True,
    extra_nodes: bytes = b"",  # between the small map and the score
    extra: bytes = b"",
    last: str = "small",  # what the map is made of
    score_axes: Sequence[int] = (1, 2),
    image_info: bytes = IMAGE_INFO,
    score_info: bytes = SCORE_INFO,
) -> bytes:
    """Give the GraphProto of the module's first lines."""
    factor = field(2, FLOAT) + field(8, "scale") + field(9, struct.pack("<f", scale))
    nodes = (
        node("Cast", ["image"], ["pixels"], attribute("to", FLOAT))
        + node("ReduceMean", ["pixels", "axis_3"], ["grey"], attribute("keepdims", 1))
        + node("Mul", ["grey", "scale"], ["scaled"])
        + node("Transpose", ["scaled"], ["chw"], attribute("perm", [0, 3, 1, 2]))
        + node(
            "Resize",
            ["chw", "", "", "map_size"],
            ["small"],
            attribute("axes", [2, 3]),
            attribute("mode", "linear"),
        )
        + extra_nodes
        + node("Squeeze", [last, "axis_1"], ["anomaly_map"])
        + node(
            "ReduceMax",
            ["anomaly_map", "score_axes"],
            ["score"],
            attribute("keepdims", 0),
        )
    )
    tensors = (
        factor,
        int64s("axis_3", [3]),
        int64s("axis_1", [1]),
        int64s("score_axes", score_axes),
        int64s("map_size", MAP_SIZE),
    )
    outputs = field(12, score_info) + (field(12, MAP_INFO) if with_map else b"")
    return (
        nodes
        + field(2, "tiny")
        + b"".join(field(5, t) for t in tensors)
        + field(11, image_info)
        + outputs
        + extra
    )


def grey(level: int, height: int = 8, width: int = 9) -> Image:
    """Give a picture of one grey level."""
    return np.full((height, width, 3), level, np.uint8)


def model_spec(file: str = "models/tiny.onnx", *, with_map: bool = True) -> ModelSpec:
    """Give what infer_config.json says of the model."""
    outputs = [TensorSpec("score", "score", "float32", ("batch",))]
    if with_map:
        outputs.append(
            TensorSpec("anomaly_map", "anomaly_map", "float32", ("batch", *MAP_SIZE))
        )
    shape = ("batch", "height", "width", 3)
    image = TensorSpec("image", "image", "uint8", shape)
    return ModelSpec(file, 20, "fp32", (image,), tuple(outputs))


def category(
    *,
    threshold: float = THRESHOLD,
    scores: Sequence[float] = SCORES,
    with_map: bool = True,
) -> CategoryConfig:
    """Give a category's block."""
    provenance = ThresholdProvenance(
        method="conformal",
        source="val",
        approximate=False,
        parameters={},
        requested_false_alarm_rate=0.01,
        used_false_alarm_rate=0.2,
        n_images=len(scores),
        n_groups=len(scores),
        fingerprint="0" * 64,
        score_summary={},
        warnings=(),
        set_by="a test",
        set_at="2026-01-01T00:00:00Z",
    )
    return CategoryConfig(
        graph=("tiny",),
        thresholds=Thresholds(threshold, None, ">=", {"image": provenance}),
        calibration=Calibration(tuple(scores), len(scores)),
        map_geometry=MapGeometry("stretch", MAP_SIZE) if with_map else None,
    )


def map_bytes(values: npt.NDArray[Any]) -> bytes:
    """Give an .npy file."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def golden(
    files: dict[str, tuple[bytes, str]],
    number: int,
    level: int,
    *,
    name: str,
    encoded: bytes | None = None,
    with_map: bool = True,
) -> Golden:
    """Add a golden of one grey level; `encoded` (a JPEG) is of 8 x 8 pixels."""
    picture = grey(level) if encoded is None else grey(level, 8, 8)
    image = f"golden/{number:03d}.{'png' if encoded is None else 'jpg'}"
    files[image] = (encoded or encode_png(picture), "golden_image")
    anomaly_map = f"golden/{number:03d}.map.npy" if with_map else None
    if anomaly_map is not None:
        truth = np.full(MAP_SIZE, level, np.float32)
        files[anomaly_map] = (map_bytes(truth), "golden_map")
    digest = hashlib.sha256(picture.tobytes()).hexdigest()
    return Golden(name, image, anomaly_map, float(level), digest, "synthetic")


def write_bundle(
    folder: Path,
    *,
    model_bytes: bytes | None = None,
    categories: Sequence[str] = ("part",),
    golden_levels: Sequence[int] = (40, 200),
    with_jpeg: bool = False,
    with_map: bool = True,
    threshold: float = THRESHOLD,
    rules: InputRules | None = None,
    edit: Edit | None = None,
) -> Path:
    """Write a bundle; `edit` changes the document's dict before it is written."""
    if model_bytes is None:
        model_bytes = model(graph(with_map=with_map))
    files: dict[str, tuple[bytes, str]] = {"models/tiny.onnx": (model_bytes, "model")}
    goldens = []
    for name in categories:
        for level in golden_levels:
            goldens.append(
                golden(files, len(goldens), level, name=name, with_map=with_map)
            )
    if with_jpeg:
        goldens.append(
            golden(files, len(goldens), 128, name=categories[0], encoded=GREY_JPEG)
        )
    files["MODEL_CARD.md"] = (b"# tiny\n", "model_card")
    config = InferConfig(
        kind="bundle",
        bundle=BundleInfo("tiny", "1", "2026-01-01T00:00:00Z", {"pyimgano": "0.6.5"}),
        files=tuple(
            FileEntry(path, hashlib.sha256(data).hexdigest(), len(data), role)
            for path, (data, role) in files.items()
        ),
        models={"tiny": model_spec(with_map=with_map)},
        input=rules or InputRules(reference_decoder="builtin"),
        preprocess=({"step": "scale", "where": "graph"},),
        postprocess=(),
        categories={
            name: category(threshold=threshold, with_map=with_map)
            for name in categories
        },
        parity=Parity(
            reference="hand",
            candidate="hand",
            machine="any",
            categories={
                n: CategoryParity(4, "test+val", 0.0, 0.0, 0.0, 0.0, 0, 1.0)
                for n in categories
            },
            tolerances={
                "score_rel": 1e-5,
                "map_of_range": 1e-4,
                "score_rel_other_kernels": 1e-3,
            },
            goldens=tuple(goldens),
        ),
        training={"categories": {n: {"detector": "tiny"} for n in categories}},
    )
    for path, (data, _) in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    payload = config.to_dict()
    if edit is not None:
        edit(payload)
    (folder / "infer_config.json").write_text(json.dumps(payload), encoding="utf-8")
    return folder


def edit_document(folder: Path, edit: Edit) -> None:
    """Change infer_config.json of a written bundle."""
    path = folder / "infer_config.json"
    payload = json.loads(path.read_text(encoding="utf-8"))
    edit(payload)
    path.write_text(json.dumps(payload), encoding="utf-8")


def relist(folder: Path) -> None:
    """List the files of a bundle again as they are now."""

    def renew(payload: dict[str, Any]) -> None:
        for entry in payload["files"]:
            data = (folder / entry["path"]).read_bytes()
            entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    edit_document(folder, renew)


def save_picture(path: Path, image: Image) -> Path:
    """Write a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image))
    return path
