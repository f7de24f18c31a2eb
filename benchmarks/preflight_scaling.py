"""How preflight's time and memory grow with the number of rows, and pictures/s.

    python benchmarks/preflight_scaling.py --work FOLDER [--rows 1000 10000 100000]
    PYIMGANO_TEST_DATA=... python benchmarks/preflight_scaling.py --sets

Rows: 64-px JPEG pictures, drawn from 199 scenes, each file with noise of its own; every
fifth is a test picture. Rate: 512-px JPEG (quality 90) and PNG pictures. Each
measurement runs in a process of its own; memory is its peak resident set.
The pictures stay in FOLDER for another run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

SCENES: Final = 199  # no multiple of five: each has train and test pictures
RATE_PICTURES: Final = 2000
SMALL, LARGE = 64, 512  # px


def scene(seed: int, side: int) -> np.ndarray[Any, Any]:
    """A picture (side, side, 3) of its own for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 45, (side // 3, side // 3, 3)).astype(np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def write_pictures(folder: Path, n: int, side: int, suffix: str) -> Path:
    """Write n pictures and their manifest, unless it is there."""
    manifest = folder / f"{n}.jsonl"
    if manifest.exists():
        return manifest
    scenes = [scene(seed, side) for seed in range(SCENES)]
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n):
        name = f"{number // 1000:03}/{number:06}{suffix}"
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.normal(0, 6, (side, side, 3)).astype(np.float32)
            picture = np.clip(scenes[number % SCENES] + noise, 0, 255)
            options = [cv2.IMWRITE_JPEG_QUALITY, 90] if suffix == ".jpg" else []
            assert cv2.imwrite(str(path), picture.astype(np.uint8), options)
        split = "test" if number % 5 == 0 else "train"
        rows.append(
            {"image_path": name, "category": "part", "split": split, "label": 0}
        )
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return manifest


def peak_mb() -> float:
    """Give this process's peak resident set since it began (Linux).

    Not getrusage: its peak holds that of the parent at the time of the fork.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return float(line.split()[1]) / 1024


def measure(manifest: Path, content: bool) -> dict[str, Any]:
    """Examine one manifest in this process; seconds without imports."""
    from pyimgano.datasets.catalog import DataSource
    from pyimgano.workbench.preflight import PreflightPlan, examine

    base_mb = peak_mb()
    steps: dict[str, float] = {}

    def progress(step: str, done: int, total: int) -> None:
        steps[step] = time.perf_counter()

    start = time.perf_counter()
    plan = PreflightPlan(source=DataSource("manifest", manifest))
    report = examine(plan, content=content, progress=progress).report
    seconds = time.perf_counter() - start
    found = report.summary
    return {
        "rows": found["counts"]["total"],
        "seconds": round(seconds, 2),
        "rows_per_s": round(found["counts"]["total"] / seconds),
        "decoded_after_s": round(steps.get("pictures", start) - start, 2),
        "peak_mb": round(peak_mb(), 1),
        "base_mb": round(base_mb, 1),
        "near_duplicate_pairs": found.get("content", {}).get("near_duplicate_pairs"),
        "issues": found["issues"],
    }


def in_a_process(manifest: Path, *, content: bool) -> dict[str, Any]:
    """Measure in a process of its own, so that peaks do not mix."""
    command = [sys.executable, __file__, "--measure", str(manifest)]
    command += [] if content else ["--list-only"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def print_sets() -> None:
    """Measure every manifest of the reference sets and print Markdown rows."""
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    print("| manifest | pictures | pictures/s | peak MB | pairs | issues |")
    print("|---|---|---|---|---|---|")
    for manifest in sorted(Path(data).glob("*/manifest*.jsonl")):
        found = in_a_process(manifest, content=True)
        issues = ", ".join(
            f"{code} {sum(counts.values())}"
            for code, counts in found["issues"]["by_code"].items()
        )
        print(
            f"| {manifest.parent.name}/{manifest.name} | {found['rows']} "
            f"| {found['rows_per_s']} | {found['peak_mb']} "
            f"| {sum(found['near_duplicate_pairs'].values())} | {issues} |"
        )


def main() -> None:
    """Measure, print JSON, then the Markdown rows of docs/preflight.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--sets", action="store_true", help="the reference sets")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--list-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, not options.list_only)))
        return
    if options.sets:
        print_sets()
        return
    if options.work is None:
        parser.error("--work: missing; name a folder for the pictures")

    results: dict[str, Any] = {}
    for n in options.rows:
        manifest = write_pictures(options.work / "rows", n, SMALL, ".jpg")
        results[f"{n} rows, list"] = in_a_process(manifest, content=False)
        results[f"{n} rows, decoded"] = in_a_process(manifest, content=True)
    for suffix in (".jpg", ".png"):
        folder = options.work / f"rate{suffix}"
        manifest = write_pictures(folder, RATE_PICTURES, LARGE, suffix)
        results[f"{RATE_PICTURES} x 512 px {suffix}"] = in_a_process(
            manifest, content=True
        )
    print(json.dumps(results, indent=2))
    print("\n| what | seconds | rows/s | peak MB | kB per row since the line above |")
    print("|---|---|---|---|---|")
    for kind in ("list", "decoded"):
        before = None
        for n in options.rows:
            found = results[f"{n} rows, {kind}"]
            per_row = "-"
            if before is not None:
                grown = (found["peak_mb"] - before["peak_mb"]) * 1024
                per_row = f"{grown / (n - before['rows']):.2f}"
            before = found
            print(
                f"| {n:,} rows, {kind} | {found['seconds']} | {found['rows_per_s']:,} "
                f"| {found['peak_mb']} | {per_row} |"
            )
    for suffix in (".jpg", ".png"):
        name = f"{RATE_PICTURES} x 512 px {suffix}"
        found = results[name]
        rate = round(found["rows"] / found["decoded_after_s"])
        print(
            f"| {name} | {found['seconds']} | {found['rows_per_s']:,} "
            f"({rate:,} decoding) | {found['peak_mb']} | - |"
        )


if __name__ == "__main__":
    main()
