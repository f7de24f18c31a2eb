"""A bank fitted under a memory budget against the exact greedy one, by size.

    python benchmarks/fit_coverage.py --sizes 1000 5000 --side 128 --budget 256M

Draws pictures as `fit_scaling.py` does, fits PatchCore under the budget, and picks the
exact greedy coreset of all patches beside it, for which all of them are held in memory.
Both banks are compared by their covering radius over all patches (the largest distance
from a patch to its nearest bank patch) and by image AUROC on parts that were not
fitted, half of them with defects. The last lines on stdout are the Markdown table of
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fit_scaling import draw
from torch import Tensor

from pyimgano.datasets.generated_parts import DEFECT_NAMES, draw_part
from pyimgano.datasets.rows import ManifestRow
from pyimgano.detectors import create_detector
from pyimgano.detectors.coreset import farthest_first, lower_to_nearest
from pyimgano.detectors.interface import FitContext
from pyimgano.metrics import auroc
from pyimgano.metrics.bootstrap import bootstrap_interval
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData
from pyimgano_runtime.memory_limit import parse_size

TESTED = 120  # parts, half of them with a defect
SEVERITY = 0.5  # of defects: not all are found


def main() -> None:
    """Measure each size and print the table."""
    options = parse()
    torch.set_num_threads(options.threads)
    found = []
    with tempfile.TemporaryDirectory(prefix="fit-coverage-") as scratch:
        pictures = Path(scratch)
        draw(pictures, max(options.sizes), options.side)
        for count in options.sizes:
            found.append(measure(count, pictures, options))
            print(json.dumps(found[-1]), flush=True)
    lines = [
        "| pictures | patches | radius under the budget / exact greedy | image AUROC "
        "under the budget | exact greedy |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        lines.append(
            f"| {one['pictures']:,} | {one['patches']:,} | {one['radius']:.2f} / "
            f"{one['exact_radius']:.2f} = {one['radius'] / one['exact_radius']:.3f} | "
            f"{shown(one['auroc'])} | {shown(one['exact_auroc'])} |"
        )
    print("\n".join(lines))


def parse() -> argparse.Namespace:
    """Give the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 5000])
    parser.add_argument("--side", type=int, default=128, help="of pictures and model")
    parser.add_argument("--budget", default="256M")
    parser.add_argument("--bank", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def measure(count: int, pictures: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Compare both banks of so many pictures."""
    side = options.side
    chosen = {
        "backbone": "efficientnet_lite0",
        "image_size": [side, side],
        "bank_size": options.bank,
        "candidates": 20_000,
    }
    detector = create_detector("patchcore", chosen).eval()
    rows = [
        ManifestRow(f"{number:06}.jpg", pictures, "part", "train", 0)
        for number in range(count)
    ]
    data = RowTrainingData(rows, input_rules())
    budget = parse_size(options.budget)
    assert budget is not None
    with tempfile.TemporaryDirectory(prefix="fit-") as workspace:
        context = FitContext(
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            workspace=Path(workspace),
            progress=lambda step, done, total: None,
            memory_budget=budget,
        )
        detector.fit(data, context=context)
    patches = torch.cat([of(detector, batch) for batch in data.normals()])
    tested, labels = parts(side)
    result = {"pictures": count, "patches": len(patches)}
    result["radius"] = radius(patches, detector.bank)
    result["auroc"] = scored(detector, tested, labels)
    exact = farthest_first(
        patches, options.bank, generator=torch.Generator().manual_seed(0)
    )
    detector.bank = patches[exact.picks].contiguous()
    result["exact_radius"] = radius(patches, detector.bank)
    result["exact_auroc"] = scored(detector, tested, labels)
    return result


@torch.no_grad()
def of(detector: Any, images_u8: Tensor) -> Tensor:
    """Give the patches (P, C) of pictures, where the bank lies."""
    features = detector.features(images_u8)
    flat = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    centred: Tensor = flat - detector.center
    return centred


def radius(patches: Tensor, bank: Tensor) -> float:
    """Give the largest distance from a patch to its nearest one of the bank."""
    largest = 0.0
    for chunk in torch.split(patches.double(), 65_536):
        nearest = torch.full((len(chunk),), torch.inf, dtype=torch.float64)
        lower_to_nearest(nearest, chunk, chunk.square().sum(dim=1), bank.double())
        largest = max(largest, float(nearest.max().clamp_min(0.0).sqrt()))
    return largest


def parts(side: int) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Give parts that were not fitted, (side, side, 3), and which have a defect."""
    images, labels = [], []
    for number in range(TESTED):
        rng = np.random.default_rng([7, number])
        defect = DEFECT_NAMES[number // 2 % len(DEFECT_NAMES)] if number % 2 else None
        options: dict[str, Any] = {"size": (side, side), "defect": defect}
        if defect is not None:
            options["severity"] = SEVERITY
        images.append(draw_part("bracket", rng, **options).image_u8)
        labels.append(number % 2)
    return images, np.array(labels)


def scored(
    detector: Any, images: list[np.ndarray[Any, Any]], labels: np.ndarray[Any, Any]
) -> list[float]:
    """Give image AUROC and its 95 % interval."""
    with torch.no_grad():
        batches = torch.split(torch.from_numpy(np.stack(images)), 16)
        scores = np.concatenate([detector(batch)[0].numpy() for batch in batches])
    generator = np.random.default_rng(0)
    interval = bootstrap_interval(
        auroc, scores, labels.astype(bool), generator=generator
    )
    return [float(auroc(scores, labels.astype(bool))), *map(float, interval or ())]


def shown(numbers: list[float]) -> str:
    """Give a number with its interval."""
    value, low, high = numbers
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
