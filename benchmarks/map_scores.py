"""How a map becomes a score: smoothing, and the share of the map that is averaged.

    PYIMGANO_TEST_DATA=... python benchmarks/map_scores.py --model patchcore

A detector is fitted once on each reference set, at its defaults or with --options. The
patch scores of the test pictures are then smoothed and averaged in every way of the
table, by the modules of the graph. Image AUROC in torch; the Markdown on stdout is the
table of ADR 7.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyimgano.datasets.manifest import read_manifest
from pyimgano.detectors import create_detector
from pyimgano.detectors.interface import FitContext
from pyimgano.detectors.layers import MapOutput, TopMean
from pyimgano.metrics.image import auroc
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData

SETS = ("mvtec_screw", "magnetic_tile", "elpv_mono", "cookies", "sdu_composite")
SIGMAS = (4.0, 8.0, 12.0, 16.0)
SHARES = (0.0, 0.005, 0.01, 0.02, 0.05)


class KeptMap(nn.Module):
    """Stands where the map is made, and keeps the patch scores (N, h, w)."""

    kept: Tensor

    def forward(self, patch_scores: Tensor) -> Tensor:
        self.kept = patch_scores
        return patch_scores


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--model", default="patchcore")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--sigmas", nargs="*", type=float, default=SIGMAS)
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES)
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    found: dict[tuple[float, float], list[float]] = {}
    for name in options.sets:
        labels, patches, size = patch_scores(
            Path(data) / name, options.model, options.options
        )
        grid = (patches.shape[1], patches.shape[2])
        for sigma in options.sigmas:
            smooth = MapOutput(size, sigma, grid=grid)
            maps = [smooth(part) for part in patches.split(16)]
            for share in options.shares:
                score = TopMean(size, share)
                scores = torch.cat([score(part) for part in maps]).numpy()
                cell = auroc(scores.astype(np.float64), labels)
                found.setdefault((sigma, share), []).append(float(cell))
        print(f"{name}: {len(labels)} test pictures", file=sys.stderr)
    print(f"| sigma_px | share | {' | '.join(options.sets)} | mean |")
    print("|---|---|" + "---|" * (len(options.sets) + 1))
    for (sigma, share), values in found.items():
        cells = " | ".join(f"{v:.3f}" for v in [*values, statistics.mean(values)])
        print(f"| {sigma:g} | {share:g} | {cells} |")


@torch.inference_mode()
def patch_scores(
    folder: Path, model: str, options: dict[str, Any]
) -> tuple[Any, Tensor, tuple[int, int]]:
    """Give the labels and patch scores (n, h, w) of the test rows, and the map size."""
    rows = read_manifest(folder / "manifest.jsonl")
    normals = [row for row in rows if row.split == "train" and row.label == 0]
    test = [row for row in rows if row.split == "test"]
    detector: Any = create_detector(model, options)
    size = detector.map_size()
    with tempfile.TemporaryDirectory(prefix="map-scores-") as scratch:
        context = FitContext(
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            workspace=Path(scratch),
            progress=lambda step, done, total: None,
        )
        detector.fit(RowTrainingData(normals, input_rules()), context=context)
    detector.eval()
    detector.map_output = KeptMap()
    detector.top_mean = nn.Identity()
    kept = []
    for batch in RowTrainingData(test, input_rules()).normals():
        detector(batch)
        kept.append(detector.map_output.kept)
    labels = np.array([row.label for row in test])
    return labels, torch.cat(kept), size


if __name__ == "__main__":
    main()
