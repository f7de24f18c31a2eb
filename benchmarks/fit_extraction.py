"""How close the features of a fit come to the backbone's own throughput.

    PYIMGANO_TEST_DATA=... python benchmarks/fit_extraction.py

Two sides in turns, in one process: `extract` as every fit does it (files decoded ahead,
resize, features on one grid, kept), and the backbone alone on as many tensors of its
input's size, in equal batches. The share is the backbone's time by that of `extract`.
Several sizes of a batch are measured in turns too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from side_by_side import Ratio, machine

from pyimgano.datasets.rows import ManifestRow
from pyimgano.detectors import create_detector
from pyimgano.detectors.interface import FitContext
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData

GOAL: Final = 0.85
PRESETS: Final = ("fast", None)


def measure(folder: Path, preset: str | None, options: Any) -> list[dict[str, Any]]:
    """Give the shares on one set, by the clock and by processor time."""
    detector: Any = create_detector("patchcore", {}, preset=preset).eval()
    lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    good = [r["image_path"] for r in rows if r["split"] == "train" and r["label"] == 0]
    chosen = [ManifestRow(p, folder, "part", "train", 0) for p in good]
    training = RowTrainingData(chosen[: options.pictures], input_rules())
    n_pictures = training.n_normals
    height, width = detector.config.image_size
    sizes = options.batch_sizes or [training.batch_size]

    def extract(size: int) -> None:
        with tempfile.TemporaryDirectory(prefix="extract-") as scratch:
            context = FitContext(
                generator=torch.Generator().manual_seed(0),
                device=torch.device("cpu"),
                workspace=Path(scratch),
                progress=lambda step, done, total: None,
            )
            with torch.no_grad():
                detector.extract(replace(training, batch_size=size), context=context)

    batch = torch.rand(max(sizes), 3, height, width)

    def backbone(size: int) -> None:
        with torch.no_grad():
            for start in range(0, n_pictures, size):
                detector.backbone(batch[: min(size, n_pictures - start)])

    sides: list[Callable[[int], None]] = [extract, backbone]
    took: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(options.rounds + 1):
        for size, side in itertools.product(sizes, sides):
            start, cpu = time.perf_counter(), time.process_time()
            side(size)
            times = (time.perf_counter() - start, time.process_time() - cpu)
            if number:  # the first one warms up
                took.setdefault((side.__name__, size), []).append(times)
    return [
        {
            "set": folder.name,
            "preset": preset or "default",
            "batch": size,
            "pictures": n_pictures,
            "shares": {
                key: Ratio.of(
                    [t[place] for t in took["backbone", size]],
                    [t[place] for t in took["extract", size]],
                )
                for place, key in enumerate(("wall", "cpu"))
            },
            "ms_a_picture": {
                name: round(min(t[0] for t in took[name, size]) / n_pictures * 1000, 1)
                for name in ("extract", "backbone")
            },
        }
        for size in sizes
    ]


def main() -> None:
    """Measure, print JSON, then Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["mvtec_screw", "sdu_composite"])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--batch-sizes", nargs="*", type=int, help="default: that of a training"
    )
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    torch.set_num_threads(options.threads)
    found = [
        cell
        for name in options.sets
        for preset in PRESETS
        for cell in measure(Path(data) / name, preset, options)
    ]
    told = [
        cell | {"shares": {k: r.to_json() for k, r in cell["shares"].items()}}
        for cell in found
    ]
    print(json.dumps({"machine": machine(), "goal": GOAL, "cells": told}, indent=2))
    print(
        "\n| set | preset | batch | goal | share, wall | share, CPU "
        "| ms: extract, backbone |"
    )
    print("|---|---|---|---|---|---|---|")
    for cell in found:
        ms = cell["ms_a_picture"]
        print(
            f"| {cell['set']} | {cell['preset']} | {cell['batch']} | >= {GOAL} | "
            f"{cell['shares']['wall']} | {cell['shares']['cpu']} | "
            f"{ms['extract']}, {ms['backbone']} |"
        )


if __name__ == "__main__":
    main()
