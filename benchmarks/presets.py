"""What the presets of a detector cost and give, on the reference sets.

    PYIMGANO_TEST_DATA=... python benchmarks/presets.py --output results

Each preset is trained and exported by the real commands; then the bundles score the
same pictures in turn, in one process. Times are ratios against the default. The last
lines on stdout are the Markdown table of docs/detectors/<name>.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyimgano_runtime.predictor import Predictor

SETS = ("mvtec_screw", "magnetic_tile", "cookies")
PRESETS = ("fast", None, "fine")
PICTURES = 30  # scored by each bundle, in turn


def main() -> None:
    """Measure every missing set, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="patchcore")
    parser.add_argument("--sets", nargs="*", default=SETS)
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    options.output.mkdir(parents=True, exist_ok=True)
    print(
        "| set | preset | image AUROC [95 %] | pixel AUROC | recall | fit | ms | MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in options.sets:
        result = options.output / f"{name}-{options.model}.json"
        if not result.exists():
            cells = measure(Path(data) / name / "manifest.jsonl", options.model)
            result.write_text(json.dumps(cells, indent=2), encoding="utf-8")
        cells = json.loads(result.read_text(encoding="utf-8"))
        for preset, cell in cells.items():
            print(row(name, preset, cell, cells["default"]))


def measure(manifest: Path, model: str) -> dict[str, Any]:
    """Give the facts of every preset on one set."""
    cells: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="presets-") as scratch:
        bundles = {}
        for preset in PRESETS:
            folder = Path(scratch) / str(preset)
            folder.mkdir()
            payload = {
                "dataset": {"manifest_path": str(manifest)},
                "model": {"name": model, "preset": preset},
            }
            (folder / "config.json").write_text(json.dumps(payload), encoding="utf-8")
            command = [sys.executable, "-m", "pyimgano.cli", "train", "--json"]
            arguments = ["--config", "config.json", "--output", "run"]
            done = subprocess.run(
                [*command, *arguments, "--export-bundle"],
                cwd=folder,
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            (report,) = json.loads(done.stdout)["categories"].values()
            bundles[preset or "default"] = folder / "run" / "bundle"
            keys = ("image_auroc", "image_auroc_ci95", "pixel_auroc", "recall")
            cells[preset or "default"] = {
                **{key: report.get(key) for key in keys},
                "fit_seconds": report["fit_seconds"],
                "mb": size_mb(folder / "run" / "bundle" / "models"),
            }
        for name, ms in latencies(bundles, manifest).items():
            cells[name]["ms"] = ms
    return cells


def latencies(bundles: dict[str, Path], manifest: Path) -> dict[str, float]:
    """Give the median milliseconds of each bundle, the pictures scored in turn."""
    predictors = {name: Predictor.open(path) for name, path in bundles.items()}
    rows = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    paths = [manifest.parent / r["image_path"] for r in rows if r["split"] == "test"]
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for path in paths[:PICTURES]:
        for name, predictor in predictors.items():
            image = predictor.read(path)
            start = time.perf_counter()
            predictor.predict(image)
            times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def size_mb(folder: Path) -> float:
    """Give the size of all files in a folder, in MB."""
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def row(name: str, preset: str, cell: dict[str, Any], default: dict[str, Any]) -> str:
    """Give one line of the table."""
    interval = cell["image_auroc_ci95"]
    pixel = cell["pixel_auroc"]
    values = (
        *(name, preset),
        f"{cell['image_auroc']:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]",
        "-" if pixel is None else f"{pixel:.3f}",
        f"{cell['recall']:.3f}",
        f"{cell['fit_seconds'] / default['fit_seconds']:.2f} x",
        f"{cell['ms'] / default['ms']:.2f} x",
        f"{cell['mb']:.1f}",
    )
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
