"""Builds bundles whose categories share a backbone, byte by byte as `tiny_bundle`.

The backbone gives the grey level at 4 x 6 places; a head multiplies it by its scale and
squeezes it to a map, whose maximum is the score.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tiny_bundle import (
    FLOAT,
    IMAGE_INFO,
    MAP_INFO,
    MAP_SIZE,
    SCORE_INFO,
    attribute,
    edit_document,
    field,
    int64s,
    model,
    model_spec,
    node,
    tensor_info,
    write_bundle,
)

from pyimgano_runtime.infer_config import TensorSpec

FEATURES_SHAPE: Final = (1, *MAP_SIZE)
FEATURES: Final = TensorSpec(
    "features", "features", "float32", ("batch", *FEATURES_SHAPE)
)
SCALES: Final = {"nut": 1.0, "bolt": 3.0}


def backbone_bytes(*, name: str = "features", resized: bool = True) -> bytes:
    """Give the shared model; not resized, its features are as large as the picture."""
    last = "chw" if resized else name
    nodes = (
        node("Cast", ["image"], ["pixels"], attribute("to", FLOAT))
        + node("ReduceMean", ["pixels", "axis_3"], ["grey"], attribute("keepdims", 1))
        + node("Transpose", ["grey"], [last], attribute("perm", [0, 3, 1, 2]))
    )
    if resized:
        nodes += node(
            "Resize",
            ["chw", "", "", "size"],
            [name],
            attribute("axes", [2, 3]),
            attribute("mode", "linear"),
        )
    sides: Sequence[int | str] = MAP_SIZE if resized else ("height", "width")
    return model(
        nodes
        + field(2, "backbone")
        + field(5, int64s("axis_3", [3]))
        + field(5, int64s("size", MAP_SIZE))
        + field(11, IMAGE_INFO)
        + field(12, tensor_info(name, FLOAT, ("batch", 1, *sides)))
    )


def head_bytes(scale: float, *, told: Sequence[int] = FEATURES_SHAPE) -> bytes:
    """Give a category's own model; `told`: the shape that its input has in the file."""
    factor = field(2, FLOAT) + field(8, "scale") + field(9, struct.pack("<f", scale))
    return model(
        node("Mul", ["features", "scale"], ["scaled"])
        + node("Squeeze", ["scaled", "axis_1"], ["anomaly_map"])
        + node(
            "ReduceMax", ["anomaly_map", "sides"], ["score"], attribute("keepdims", 0)
        )
        + field(2, "head")
        + field(5, factor)
        + field(5, int64s("axis_1", [1]))
        + field(5, int64s("sides", [1, 2]))
        + field(11, tensor_info("features", FLOAT, ("batch", *told)))
        + field(12, SCORE_INFO)
        + field(12, MAP_INFO)
    )


def write_shared(
    folder: Path,
    *,
    backbone: bytes | None = None,
    heads: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a bundle of the categories of SCALES; `heads` replaces some of them."""
    write_bundle(folder, categories=tuple(SCALES))
    (folder / "models" / "tiny.onnx").unlink()
    data = {"backbone": backbone_bytes() if backbone is None else backbone}
    data |= {name: head_bytes(scale) for name, scale in SCALES.items()}
    data |= heads or {}
    specs = {
        name: replace(model_spec(f"models/{name}.onnx"), inputs=(FEATURES,))
        for name in SCALES
    }
    specs["backbone"] = replace(model_spec("models/backbone.onnx"), outputs=(FEATURES,))

    def share(document: dict[str, Any]) -> None:
        document["schema_version"] = "1.2"
        document["models"] = {name: _plain(specs[name]) for name in data}
        document["files"] = [
            entry for entry in document["files"] if entry["role"] != "model"
        ]
        for name, content in data.items():
            path = f"models/{name}.onnx"
            (folder / path).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entry = {"path": path, "sha256": digest, "size": len(content)}
            document["files"].append(entry | {"role": "model"})
        for name in SCALES:
            document["categories"][name]["graph"] = ["backbone", name]
        for golden in document["parity"]["goldens"]:
            if golden["category"] == "bolt":
                golden["score"] *= SCALES["bolt"]
                golden["map"] = None

    edit_document(folder, share)
    return folder


def _plain(spec: Any) -> Any:
    import json
    from dataclasses import asdict

    return json.loads(json.dumps(asdict(spec)))
