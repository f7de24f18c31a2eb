"""What few good pictures give, with and without augmented copies, on real sets.

    PYIMGANO_TEST_DATA=... python benchmarks/few_shot.py

Detectors learn from 1, 5 and 20 train normals that a seed picks, and score the same 80
test pictures. The lines on stdout are the Markdown table of docs/training.md.

    python benchmarks/few_shot.py --sets cookies --varied "no copies" --write \
        --models patchcore padim dfm knn pixel_stats

--write puts what was measured without copies into docs/detectors/few_shot.json, beside
what was there; docs/generate.py makes a column of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyimgano.datasets.augmentation import Augmentation, AugmentationConfig
from pyimgano.datasets.manifest import read_manifest
from pyimgano.datasets.rows import ManifestRow
from pyimgano.detectors import create_detector
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext
from pyimgano.metrics.image import auroc
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "detectors" / "few_shot.json"
SETS = ("cookies", "elpv_mono", "mvtec_screw")
DETECTORS = ("patchcore", "padim")
SEEDS = {1: 4, 5: 4, 20: 2}  # train normals -> how many picks of them; others: one
TEST_PICTURES = 80
VARIED: dict[str, dict[str, Any]] = {
    "no copies": {},
    "mild copies": {"shift": 0.05, "brightness": 0.1, "copies": 8},
    "quarter turns": {"rotate": "quarter"},
}
TURNED_SETS = ("mvtec_screw",)  # parts that lie in any pose


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--models", nargs="*", default=DETECTORS)
    parser.add_argument("--normals", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--varied", nargs="*", default=list(VARIED), choices=VARIED)
    parser.add_argument("--write", action="store_true", help="keep it for the docs")
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    print(f"| set | detector | normals | {' | '.join(options.varied)} |")
    print("|---|---|---|" + "---|" * len(options.varied))
    with tempfile.TemporaryDirectory(prefix="few-shot-") as scratch:
        for name in options.sets:
            rows = read_manifest(Path(data) / name / "manifest.jsonl")
            for model in options.models:
                trial = Trial(rows, model, Path(scratch))
                for count in options.normals:
                    found = {
                        key: trial.aurocs(count, VARIED[key])
                        for key in options.varied
                        if key != "quarter turns" or name in TURNED_SETS
                    }
                    if options.write and "no copies" in found:
                        keep(name, model, count, found["no copies"])
                    cells = [
                        in_words(found[key]) if key in found else "-"
                        for key in options.varied
                    ]
                    print(f"| {name} | {model} | {count} | {' | '.join(cells)} |")
                    sys.stdout.flush()


class Trial:
    """One detector on one set; the features of its test pictures are computed once."""

    def __init__(self, rows: Sequence[ManifestRow], model: str, scratch: Path) -> None:
        self.scratch = scratch
        self.normals = [row for row in rows if row.split == "train" and row.label == 0]
        test = [row for row in rows if row.split == "test"]
        order = np.random.default_rng(0).permutation(len(test))
        chosen = sorted(order[:TEST_PICTURES])
        test = [test[index] for index in chosen]
        self.anomalous = np.asarray([row.label == 1 for row in test])
        self.detector = create_detector(model).eval()
        self.features = self.extract(RowTrainingData(test, input_rules()))

    def aurocs(self, count: int, options: dict[str, Any]) -> list[float]:
        """Give the image AUROC of each pick of normals."""
        return [self.auroc(count, options, seed) for seed in range(SEEDS.get(count, 1))]

    def auroc(self, count: int, options: dict[str, Any], seed: int) -> float:
        """Give the image AUROC of one pick of normals."""
        order = np.random.default_rng(seed).permutation(len(self.normals))
        data = RowTrainingData(
            [self.normals[index] for index in order[:count]],
            input_rules(),
            augmentation=Augmentation.of(AugmentationConfig(**options)),
            seed=seed,
        )
        twin = self.detector.blank().eval()
        twin.fit_features(self.extract(data), context=self.context())
        with torch.no_grad():
            scores = [
                twin.score_features(batch)[0].numpy()
                for batch in self.features.batches(8)
            ]
        return auroc(np.concatenate(scores), self.anomalous)

    def extract(self, data: RowTrainingData) -> FeatureSet:
        """Give the features of the samples."""
        features: FeatureSet = self.detector.extract(data, context=self.context())
        return features

    def context(self) -> FitContext:
        """Give a fresh context: every fit draws alike."""
        return FitContext(
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            workspace=self.scratch,
            progress=lambda step, done, total: None,
        )


def in_words(found: Sequence[float]) -> str:
    """Give the mean over the picks, with the lowest and the highest."""
    return f"{statistics.mean(found):.3f} [{min(found):.3f}, {max(found):.3f}]"


def keep(name: str, model: str, count: int, found: Sequence[float]) -> None:
    """Put a cell into the file that the docs are made of."""
    results: dict[str, Any] = {"schema_version": "1.0", "sets": {}}
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    cells = results["sets"].setdefault(name, {}).setdefault(model, {})
    cells[str(count)] = {
        "mean": round(statistics.mean(found), 4),
        "lowest": round(min(found), 4),
        "highest": round(max(found), 4),
        "picks": len(found),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
