"""Time and memory of a fit against the number of pictures, under a memory budget.

    python benchmarks/fit_scaling.py --output results --sizes 1000 5000 20000

Draws so many pictures (JPEG), then fits each detector on the first 1,000, 5,000, ... of
them, each fit in a process of its own, rounds interleaved. What counts is the growth:
processor seconds a picture, and the largest memory beyond that of an imported detector.
The last lines on stdout are the Markdown table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from pyimgano.datasets.generated_parts import draw_part
from pyimgano.datasets.rows import ManifestRow
from pyimgano.detectors import create_detector
from pyimgano.detectors.interface import FitContext
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData
from pyimgano_runtime.memory_limit import MIB, parse_size
from pyimgano_runtime.peak_memory import peak_rss_mb

DRAWN = 40  # parts; further pictures are these, moved and with noise of their own


def main() -> None:
    """Measure every cell, or be the process of one."""
    options = parse()
    if options.cell is not None:
        detector, count = options.cell
        print(json.dumps(measure(detector, int(count), options)))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="fit-scaling-") as scratch:
        options.pictures = Path(scratch)
        draw(options.pictures, max(options.sizes), options.side)
        for _ in range(options.rounds):
            for detector in options.detectors:
                for count in options.sizes:
                    found = in_process(detector, count, options)
                    cells.setdefault((detector, count), []).append(found)
                    print(json.dumps(found), file=sys.stderr)
    rows = [cell for found in cells.values() for cell in found]
    result = options.output / "fit_scaling.json"
    result.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print_table(cells, options)


def parse() -> argparse.Namespace:
    """Give the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 5000, 20_000])
    parser.add_argument("--detectors", nargs="*", default=["patchcore", "padim"])
    parser.add_argument("--side", type=int, default=64, help="of pictures and model")
    parser.add_argument("--budget", default="256M")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def draw(folder: Path, count: int, side: int) -> None:
    """Write so many pictures, 000000.jpg and on."""
    rng = np.random.default_rng(0)
    size = (side, side)
    parts = [draw_part("bracket", rng, size=size).image_u8 for _ in range(DRAWN)]
    for number in range(count):
        moved = np.roll(parts[number % DRAWN], rng.integers(-3, 4, 2), axis=(0, 1))
        noisy = moved + rng.integers(-4, 5, moved.shape, dtype=np.int16)
        pixels = noisy.clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:06}.jpg"), pixels[..., ::-1])


def in_process(
    detector: str, count: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Measure one cell in a process of its own."""
    command = [sys.executable, __file__, "--cell", detector, str(count)]
    for name in ("side", "budget", "threads", "pictures"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(name: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fit once, in this process."""
    torch.set_num_threads(options.threads)
    side = options.side
    chosen: dict[str, Any] = {
        "backbone": "efficientnet_lite0",
        "image_size": [side, side],
    }
    if name == "patchcore":
        chosen |= {"bank_size": 1000, "candidates": 20_000}
    detector = create_detector(name, chosen).eval()
    rows = [
        ManifestRow(f"{number:06}.jpg", options.pictures, "part", "train", 0)
        for number in range(count)
    ]
    with torch.no_grad():  # what the libraries load at their first call
        detector.features(torch.zeros((8, side, side, 3), dtype=torch.uint8))  # type: ignore[attr-defined]
    before = peak_rss_mb() or 0.0
    start, cpu_start = time.perf_counter(), time.process_time()
    seconds_of: dict[str, float] = {}

    def progress(step: str, done: int, total: int) -> None:
        seconds_of[step] = time.process_time() - cpu_start

    with tempfile.TemporaryDirectory(prefix="fit-") as workspace:
        budget = parse_size(options.budget)
        assert budget is not None
        context = FitContext(
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            workspace=Path(workspace),
            progress=progress,
            memory_budget=budget,
        )
        detector.fit(RowTrainingData(rows, input_rules()), context=context)
    cpu = time.process_time() - cpu_start
    return {
        "detector": name,
        "pictures": count,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": cpu,
        "cpu_features": seconds_of["features"],
        "grown_mb": (peak_rss_mb() or 0.0) - before,
        "budget_mb": budget / MIB,
    }


def print_table(
    cells: dict[tuple[str, int], list[dict[str, Any]]], options: argparse.Namespace
) -> None:
    """Print the Markdown table; times are relative to the smallest number."""
    print("| detector | pictures | CPU s | features of it | CPU a picture | memory |")
    print("|---|---|---|---|---|---|")
    for (detector, count), found in cells.items():
        first = cells[detector, options.sizes[0]]
        each = median(found, "cpu_seconds") / count
        base = median(first, "cpu_seconds") / options.sizes[0]
        features = median(found, "cpu_features") / median(found, "cpu_seconds")
        values = (
            *(detector, f"{count:,}", f"{median(found, 'cpu_seconds'):.1f}"),
            *(f"{features:.0%}", f"{each / base:.2f} x"),
            f"+{max(cell['grown_mb'] for cell in found):.0f} MB",
        )
        print("| " + " | ".join(values) + " |")


def median(found: list[dict[str, Any]], key: str) -> float:
    """Give the median of a number over rounds."""
    return float(statistics.median(cell[key] for cell in found))


if __name__ == "__main__":
    main()
