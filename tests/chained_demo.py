"""The demo bundle, its graph cut in two: one model gives features, one is a head."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from bundle_copies import edit_document
from pyimgano_exporters.graph_split import split_graphs

DEMO = Path(__file__).resolve().parent.parent / "bundles" / "demo"


def write_chained_demo(folder: Path) -> Path:
    """Give a copy of the demo bundle with two models in a chain, scores unchanged."""
    shutil.copytree(DEMO, folder)
    (path,) = (folder / "models").glob("*.onnx")
    whole = onnx.load(path)
    parts = split_graphs([whole, _other(whole)], "image")
    assert parts is not None
    path.unlink()
    shape = _features_shape(parts.backbone.SerializeToString())
    told = onnx.helper.make_tensor_value_info(
        "features", onnx.TensorProto.FLOAT, ["batch", *shape[1:]]
    )
    parts.backbone.graph.output[0].CopyFrom(told)
    parts.heads[0].graph.input[0].CopyFrom(told)
    data = {
        "first": parts.backbone.SerializeToString(),
        "second": parts.heads[0].SerializeToString(),
    }

    def chain(document: dict[str, Any]) -> None:
        (spec,) = document["models"].values()
        (category,) = document["categories"].values()
        features = {"name": "features", "kind": "features", "dtype": "float32"}
        features["shape"] = ["batch", *shape[1:]]
        document["schema_version"] = "1.2"
        document["models"] = {
            "first": spec | {"file": "models/first.onnx", "outputs": [features]},
            "second": spec | {"file": "models/second.onnx", "inputs": [features]},
        }
        category["graph"] = list(data)
        files = [entry for entry in document["files"] if entry["role"] != "model"]
        for model, content in data.items():
            place = f"models/{model}.onnx"
            (folder / place).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entry = {"path": place, "sha256": digest, "size": len(content)}
            files.append(entry | {"role": "model"})
        document["files"] = files

    edit_document(folder, chain)
    return folder


def _other(whole: onnx.ModelProto) -> onnx.ModelProto:
    """Give a graph with another value in its largest constant: the fitted state."""
    other = onnx.ModelProto()
    other.CopyFrom(whole)
    weight = max(other.graph.initializer, key=lambda tensor: tensor.ByteSize())
    values = onnx.numpy_helper.to_array(weight) + np.float32(1)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return other


def _features_shape(data: bytes) -> tuple[int, ...]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    image = np.zeros((1, 40, 50, 3), np.uint8)
    shape: tuple[int, ...] = session.run(["features"], {"image": image})[0].shape
    return shape
