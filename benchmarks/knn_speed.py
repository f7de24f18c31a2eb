"""What the nearest-neighbour search of patchcore costs, and what a cheaper one loses.

    PYIMGANO_TEST_DATA=... python benchmarks/knn_speed.py --pca-dims 0 32 64

A detector's features are computed once for each set and image size. Every combination
of bank size and projection is then fitted on them, scored in torch for the image AUROC,
and its head (all that follows the features) is exported and timed in onnxruntime, all
heads in turn, as a ratio against the first one. The Markdown on stdout is the table of
docs/detectors/patchcore.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from pyimgano.datasets.manifest import read_manifest
from pyimgano.detectors import create_detector
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext
from pyimgano.metrics.image import auroc
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData

SETS = ("mvtec_screw", "cookies")
Options = dict[str, Any]


class Head(nn.Module):
    """All that follows the features, as a graph of its own."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, features: Tensor) -> Any:
        return self.detector.score_features(features)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--sizes", nargs="*", type=int, default=[256])
    parser.add_argument("--banks", nargs="*", type=int, default=[2000, 4000, 1000, 500])
    parser.add_argument("--pca-dims", nargs="*", type=int, default=[0, 32, 64, 100])
    parser.add_argument("--seeds", type=int, default=3, help="coresets a combination")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    names = " | ".join(options.sets)
    print(f"| size | bank | pca_dims | {names} | MFLOP | head time |")
    print("|---|---|---|" + "---|" * (len(options.sets) + 2))
    for size in options.sizes:
        base = {"backbone": options.backbone, "image_size": (size, size)}
        cells = {
            (bank, dims): base | {"bank_size": bank, "pca_dims": dims}
            for dims, bank in itertools.product(options.pca_dims, options.banks)
        }
        found: dict[tuple[int, int], list[str]] = {key: [] for key in cells}
        heads: dict[tuple[int, int], bytes] = {}
        example = torch.zeros(0)
        for name in options.sets:
            folder = Path(data) / name
            with tempfile.TemporaryDirectory(prefix="knn-speed-") as scratch:
                normals, test, labels = features(folder, base, Path(scratch))
                for key, own in cells.items():
                    values = []
                    for seed in range(options.seeds):
                        detector = fitted(own, normals, Path(scratch), seed)
                        values.append(image_auroc(detector, test, labels))
                    found[key].append(spread(values))
                    print(f"{name} {size} px {key}: {found[key][-1]}", file=sys.stderr)
                    if key not in heads:
                        heads[key] = exported(detector, test[:2])
                example = test[:1].clone()
        ratios = timed(heads, example.numpy(), options.threads, options.rounds)
        for (bank, dims), aurocs in found.items():
            channels, height, width = example.shape[1:]
            flop = 2 * height * width * bank * (dims or channels)
            flop += 2 * height * width * channels * dims  # the projection
            cost = " | ".join([f"{flop / 1e6:.0f}", ratios[bank, dims]])
            print(f"| {size} | {bank} | {dims} | {' | '.join(aurocs)} | {cost} |")


@torch.inference_mode()
def features(
    folder: Path, options: Options, scratch: Path
) -> tuple[FeatureSet, Tensor, npt.NDArray[np.int64]]:
    """Give the train normals' features, those of the test rows, and their labels."""
    rows = read_manifest(folder / "manifest.jsonl")
    normals = [row for row in rows if row.split == "train" and row.label == 0]
    test = [row for row in rows if row.split == "test"]
    detector: Any = create_detector("patchcore", options)
    detector.eval()
    kept = detector.extract(
        RowTrainingData(normals, input_rules()), context=context(scratch, 0)
    )
    batches = RowTrainingData(test, input_rules()).normals()
    seen = torch.cat([detector.features(batch) for batch in batches])
    return kept, seen, np.array([row.label for row in test])


def fitted(options: Options, normals: FeatureSet, scratch: Path, seed: int) -> Any:
    """Give a detector whose bank was picked with a seed of its own."""
    detector: Any = create_detector("patchcore", options)
    return detector.fit_features(normals, context=context(scratch, seed)).eval()


def context(scratch: Path, seed: int) -> FitContext:
    """Give a quiet context on the CPU."""
    return FitContext(
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
        workspace=scratch,
        progress=lambda step, done, total: None,
    )


@torch.inference_mode()
def image_auroc(detector: Any, test: Tensor, labels: npt.NDArray[np.int64]) -> float:
    """Give the image AUROC of the test rows' features."""
    scores = torch.cat([detector.score_features(part)[0] for part in test.split(8)])
    return float(auroc(scores.numpy().astype(np.float64), labels))


def exported(detector: Any, example: Tensor) -> bytes:
    """Give the ONNX bytes of a detector's head, any batch size."""
    program = torch.onnx.export(
        Head(detector),
        (example,),
        dynamo=True,
        opset_version=20,
        input_names=["features"],
        output_names=["score", "map"],
        dynamic_shapes={"features": {0: torch.export.Dim("batch", min=1, max=64)}},
        verbose=False,
    )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


def timed(
    heads: dict[tuple[int, int], bytes],
    example: npt.NDArray[np.float32],
    threads: int,
    rounds: int,
) -> dict[tuple[int, int], str]:
    """Give each head's time over that of the first one, all in turn."""
    sessions = {key: session(data, threads) for key, data in heads.items()}
    times: dict[tuple[int, int], list[float]] = {key: [] for key in sessions}
    for _ in range(rounds):
        for key, each in sessions.items():
            start = time.perf_counter()
            each.run(None, {"features": example})
            times[key].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    result = {}
    for key, values in times.items():
        ratios = sorted(a / b for a, b in zip(values, first, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        ms = statistics.median(values) * 1000
        middle = statistics.median(ratios)
        result[key] = f"{middle:.2f} x [{low:.2f}, {high:.2f}] ({ms:.1f} ms)"
    return result


def session(data: bytes, threads: int) -> Any:
    """Give a session with the options of the runtime's engine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"]
    )


def spread(values: list[float]) -> str:
    """Give the mean, and the range of several coresets."""
    mean = statistics.mean(values)
    return f"{mean:.3f} [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
