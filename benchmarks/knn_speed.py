"""What the nearest-neighbour search of patchcore costs, and what a cheaper one loses.

    PYIMGANO_TEST_DATA=... python benchmarks/knn_speed.py --pca-dims 0 32 64

A detector's features are computed once for each set, image size and grid. Every
combination of bank size and projection is then fitted on them, scored in torch for the
image AUROC, and its head (all that follows the features) is exported and timed in
onnxruntime, all heads in turn, as a ratio against the first one. The Markdown on stdout
is the table of docs/performance.md.

--bounds asks instead how far a search in two stages would come that stays exact: the
share of patches whose nearest neighbour is proven once the vectors with the 4, 8 and 16
smallest lower bounds are measured, where a bound is the distance by so many principal
components and the length of the rest.
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
from pyimgano.detectors.principal_components import principal_axes
from pyimgano.metrics.image import auroc
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData

SETS = ("mvtec_screw", "cookies")
Options = dict[str, Any]
Cell = tuple[str, int, int]  # grid and smoothing, bank_size, pca_dims
Features = npt.NDArray[np.float32]


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
    parser.add_argument(
        "--grids", nargs="*", default=["finest:8"], help="grid and sigma_px: finest:8"
    )
    parser.add_argument("--banks", nargs="*", type=int, default=[2000, 4000, 1000, 500])
    parser.add_argument("--pca-dims", nargs="*", type=int, default=[0, 32, 64, 100])
    parser.add_argument("--seeds", type=int, default=3, help="coresets a combination")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--bounds", nargs="*", type=int, help="components, such as 32")
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    if options.bounds:
        print_bounds(Path(data), options)
        return
    names = " | ".join(options.sets)
    print(f"| size | grid | bank | pca_dims | {names} | MFLOP | head time |")
    print("|---|---|---|---|" + "---|" * (len(options.sets) + 2))
    for size in options.sizes:
        found: dict[Cell, list[str]] = {}
        heads: dict[Cell, tuple[bytes, Features]] = {}
        for name, grid in itertools.product(options.sets, options.grids):
            place, sigma = grid.split(":")
            base = {
                "backbone": options.backbone,
                "image_size": (size, size),
                "grid": place,
                "sigma_px": float(sigma),
            }
            with tempfile.TemporaryDirectory(prefix="knn-speed-") as scratch:
                folder = Path(data) / name
                normals, test, labels = features(folder, base, Path(scratch))
                for dims, bank in itertools.product(options.pca_dims, options.banks):
                    own = base | {"bank_size": bank, "pca_dims": dims}
                    values = []
                    for seed in range(options.seeds):
                        detector = fitted(own, normals, Path(scratch), seed)
                        values.append(image_auroc(detector, test, labels))
                    key = (grid, bank, dims)
                    found.setdefault(key, []).append(spread(values))
                    print(f"{name} {size} px {key}: {found[key][-1]}", file=sys.stderr)
                    if key not in heads:
                        example = test[:1].numpy().copy()
                        heads[key] = (exported(detector, test[:2]), example)
        ratios = timed(heads, options.threads, options.rounds)
        for key, aurocs in found.items():
            grid, bank, dims = key
            channels, height, width = heads[key][1].shape[1:]
            flop = 2 * height * width * bank * (dims or channels)
            flop += 2 * height * width * channels * dims  # the projection
            facts = [size, f"{height} x {width}", bank, dims, *aurocs]
            facts += [f"{flop / 1e6:.0f}", ratios[key]]
            print(f"| {' | '.join(map(str, facts))} |")


def print_bounds(data: Path, options: Any) -> None:
    """Print the share of patches that few candidates prove, of the last test pictures.

    Of ten normal ones and ten with defects, at the first size, grid and bank.
    """
    place, sigma = options.grids[0].split(":")
    size = options.sizes[0]
    base = {"backbone": options.backbone, "image_size": (size, size), "grid": place}
    base |= {"sigma_px": float(sigma), "bank_size": options.banks[0]}
    steps = (4, 8, 16)
    wanted = " | ".join(f"proven by {k}" for k in steps)
    print(f"| set | pictures | components | {wanted} |")
    print("|---|---|---|" + "---|" * len(steps))
    for name in options.sets:
        with tempfile.TemporaryDirectory(prefix="knn-speed-") as scratch:
            normals, test, labels = features(data / name, base, Path(scratch))
            detector = fitted(base, normals, Path(scratch), 0)
        axes = principal_axes(detector.bank)[1].float()
        bank = detector.bank @ axes
        for label, kind in enumerate(("good", "with defects")):
            seen = test[torch.as_tensor(labels == label)][-10:]
            patches = seen.permute(0, 2, 3, 1).reshape(-1, bank.shape[1])
            queries = (patches - detector.center) @ axes
            nearest = torch.cdist(queries, bank).amin(dim=1, keepdim=True)
            for dims in options.bounds:
                bounds = torch.cdist(_bounding(queries, dims), _bounding(bank, dims))
                undecided = (bounds < nearest).sum(dim=1)
                shares = [(undecided <= k).float().mean().item() for k in steps]
                told = " | ".join(f"{share:.2f}" for share in shares)
                print(f"| {name} | {kind} | {dims} | {told} |")


def _bounding(vectors: Tensor, dims: int) -> Tensor:
    """Give (P, dims + 1), whose distances are never larger than those of vectors."""
    rest = vectors[:, dims:].norm(dim=1, keepdim=True)
    return torch.cat([vectors[:, :dims], rest], dim=1)


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
    heads: dict[Cell, tuple[bytes, Features]], threads: int, rounds: int
) -> dict[Cell, str]:
    """Give each head's time over that of the first one, all in turn."""
    sessions = {key: session(data, threads) for key, (data, _) in heads.items()}
    times: dict[Cell, list[float]] = {key: [] for key in sessions}
    for _ in range(rounds):
        for key, each in sessions.items():
            start = time.perf_counter()
            each.run(None, {"features": heads[key][1]})
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
