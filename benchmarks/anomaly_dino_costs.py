"""What `anomaly_dino` costs, and whether its graph agrees, without DINOv2's weights.

    PYIMGANO_TEST_DATA=... python benchmarks/anomaly_dino_costs.py

No package holds the weights, so `dinov2_vits14` has random ones: time, size and
agreement with torch do not depend on what they know, accuracy does and is left out.
The time of a picture is a share of that of `knn` in the same run, picture by picture.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pyimgano.datasets.manifest import read_manifest
from pyimgano.detectors import create_detector, detector_class, detector_config
from pyimgano.detectors.interface import FitContext
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData
from pyimgano_exporters.onnx_graph import export_graph, model_spec
from pyimgano_runtime.check import difference_of_range, relative_difference
from pyimgano_runtime.engine import OnnxEngine


def main() -> None:
    """Fit, export, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="cookies")
    parser.add_argument("--side", type=int, default=224, help="of the model, pixels")
    parser.add_argument("--normals", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=10, help="that are compared")
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    rows = read_manifest(Path(data) / options.set / "manifest.jsonl")
    train = [row for row in rows if row.split == "train" and row.label == 0]
    test = [row for row in rows if row.split == "test"][: options.pictures]
    normals = RowTrainingData(train[: options.normals], input_rules())
    pictures = RowTrainingData(test, input_rules(), batch_size=1)

    cls = detector_class("anomaly_dino")
    side = {"image_size": [options.side, options.side]}
    torch.manual_seed(0)
    detector = cls.unfitted(
        detector_config(cls, side, "options"), pretrained=False, shared={}
    )
    start = time.perf_counter()
    fit(detector, normals)
    fit_s = time.perf_counter() - start
    graph, engine = exported(detector)
    _, other = exported(fit(create_detector("knn"), normals))

    ratios, score_off, map_off = [], [], []
    for batch in pictures.normals():
        with torch.inference_mode():
            scores, maps = detector(batch)
        start = time.perf_counter()
        other.run(batch.numpy(), with_map=False)
        between = time.perf_counter()
        found, found_maps = engine.run(batch.numpy(), with_map=True)
        ratios.append((time.perf_counter() - between) / (between - start))
        score_off.append(relative_difference(float(found[0]), float(scores[0])))
        map_off.append(difference_of_range(found_maps, maps.numpy()))
    low, *_, high = sorted(ratios)
    print(f"numbers: {sum(v.numel() for v in detector.state_dict().values()):,}")
    print(f"graph: {len(graph) / 1e6:.1f} MB; fit of {options.normals}: {fit_s:.1f} s")
    print(
        f"a picture: {statistics.median(ratios):.1f} x knn [{low:.1f}, {high:.1f}] of "
        f"{len(ratios)}"
    )
    print(f"largest difference: score {max(score_off):.1e}, map {max(map_off):.1e}")


def fit(detector: Any, normals: RowTrainingData) -> Any:
    """Fit a detector, ready to score."""
    with tempfile.TemporaryDirectory(prefix="dino-") as scratch:
        context = FitContext(
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            workspace=Path(scratch),
            progress=lambda step, done, total: None,
        )
        return detector.fit(normals, context=context).eval()


def exported(detector: Any) -> tuple[bytes, OnnxEngine]:
    """Give the graph of a fitted detector, and an engine that runs it."""
    graph = export_graph(detector)
    spec = model_spec("model.onnx", detector)
    return graph, OnnxEngine(graph, spec, detector.name, threads=2)


if __name__ == "__main__":
    main()
