"""Whether one detector is better than another, on the same pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..metrics import auroc, bootstrap_difference
from ..metrics.paired import sign_test
from ..reporting.leaderboard import Cell

Scores = dict[str, tuple[float, int, bool]]  # picture -> score, label, called anomalous


def compare_models(
    cells: Sequence[Cell], *, seed: int = 0, n_resamples: int = 1000
) -> list[dict[str, Any]]:
    """Give each difference in image AUROC, B minus A, with its paired 95 % interval.

    Compared are models of one category, seed and engine that were tested on the same
    pictures; both are resampled alike, so what is hard in a picture cancels. Beside it
    stand the anomalies that only one of them finds at its calibrated threshold.
    """
    places: dict[tuple[Any, ...], list[tuple[Cell, str]]] = defaultdict(list)
    for cell in cells:
        category = cell.report["categories"][cell.category]
        for engine in category["engines"]:
            key = (
                *(cell.dataset, cell.dataset_name, cell.category, cell.seed, engine),
                category["test_fingerprint"],
            )
            places[key].append((cell, engine))
    scores: dict[tuple[str, str], dict[str, Scores]] = {}
    results = []
    for (dataset, name, category, cell_seed, engine, _), members in places.items():
        for (a, _), (b, _) in combinations(members, 2):
            for cell in (a, b):
                place = (str(cell.folder), cell.category)
                if place not in scores:
                    scores[place] = _scores(cell)
            rows_a = scores[str(a.folder), category][engine]
            rows_b = scores[str(b.folder), category][engine]
            low_high = _difference(rows_a, rows_b, seed, n_resamples)
            if low_high is None:
                continue
            found_by_a, found_by_b = _found_by_one(rows_a, rows_b)
            difference, low, high = low_high
            results.append(
                {
                    "dataset": dataset,
                    "dataset_name": name,
                    "category": category,
                    "seed": cell_seed,
                    "precision": "int8" if engine.endswith("int8") else "fp32",
                    "engine": engine.removesuffix("-int8"),
                    "model_a": a.model,
                    "model_b": b.model,
                    "image_auroc_difference": difference,
                    "low": low,
                    "high": high,
                    "distinguishable": not low <= 0 <= high,
                    "found_by_a_only": found_by_a,
                    "found_by_b_only": found_by_b,
                    "found_p_value": sign_test(found_by_a, found_by_b),
                }
            )
    return results


def _scores(cell: Cell) -> dict[str, Scores]:
    """Give each engine's scores and labels by picture."""
    folder = cell.report["categories"][cell.category]["folder"]
    path = cell.folder / "categories" / folder / "per_image.jsonl"
    found: dict[str, Scores] = defaultdict(dict)
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        found[row["engine"]][row["input"]] = (
            *(row["score"], row["label_true"]),
            row["label"] == "anomaly",
        )
    return found


def _found_by_one(a: Scores, b: Scores) -> tuple[int, int]:
    """Count the anomalies that only the one or only the other finds."""
    anomalies = [name for name, (_, label, _) in a.items() if label == 1]
    only_a = sum(a[name][2] and not b[name][2] for name in anomalies)
    return only_a, sum(b[name][2] and not a[name][2] for name in anomalies)


def _difference(
    reference: Scores, candidate: Scores, seed: int, n_resamples: int
) -> tuple[float, float, float] | None:
    """Give candidate minus reference in AUROC, low and high; None of one class."""
    names = list(reference)
    labels = [reference[name][1] for name in names]
    if len(set(labels)) < 2:
        return None
    a = np.asarray([reference[name][0] for name in names], dtype=np.float32)
    b = np.asarray([candidate[name][0] for name in names], dtype=np.float32)
    low, high = bootstrap_difference(
        *(auroc, a, b, labels),
        generator=np.random.default_rng(seed),
        n_resamples=n_resamples,
    )
    return auroc(b, labels) - auroc(a, labels), low, high
