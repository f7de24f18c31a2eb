"""How many pictures a second a folder gives, against one picture after the other.

    python benchmarks/throughput.py --work FOLDER [--bundle B] [--pictures 1000]

Both sides run in one process on the same files, JPEG and PNG in turns, in blocks that
alternate: a plain loop (decode, then score, one onnxruntime thread), and `infer`'s own
with its decode workers. The pictures stay in FOLDER for another run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from side_by_side import COLUMNS, Ratio, machine, resident_mb, row

from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.rows import predict_files

HOUSE: Final = Path(__file__).parents[1]
GOAL: Final = 1.7
DIFFERENT: Final = 50  # pictures that are drawn; files repeat them under other names
BLOCK: Final = 25  # pictures of one side before the other side's turn


def write_pictures(folder: Path, n: int, side: int) -> list[Path]:
    """Write n pictures, JPEG and PNG in turns, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    encoded: list[bytes] = []
    for number in range(n):
        suffix = (".jpg", ".png")[number % 2]
        path = folder / f"{number:06}{suffix}"
        paths.append(path)
        if path.exists():
            continue
        if len(encoded) < DIFFERENT:
            coarse = rng.normal(128, 40, (side // 8, side // 8, 3)).astype(np.float32)
            scene = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
            noise = rng.normal(0, 3, scene.shape).astype(np.float32)
            pixels = np.clip(scene + noise, 0, 255).astype(np.uint8)
            encoded.append(cv2.imencode(suffix, pixels)[1].tobytes())
        path.write_bytes(encoded[number % len(encoded)])
    return paths


def plain_loop(predictor: Predictor, paths: Sequence[Path]) -> list[float]:
    """Score files one after the other."""
    return [
        predictor.predict(predictor.read(path), with_map=False).score for path in paths
    ]


def overlapped(
    predictor: Predictor, paths: Sequence[Path], *, workers: int
) -> list[float]:
    """Score files as `infer` does."""
    rows = predict_files(predictor, paths, with_map=False, decode_workers=workers)
    return [row["score"] for row, _, _ in rows]


def halves_ms(predictor: Predictor, paths: Sequence[Path]) -> dict[str, float]:
    """Give the median milliseconds of decoding and of scoring alone."""
    decode, score = [], []
    for path in paths:
        start = time.perf_counter()
        image = predictor.read(path)
        middle = time.perf_counter()
        predictor.predict(image, with_map=False)
        decode.append(middle - start)
        score.append(time.perf_counter() - middle)
    return {
        "decode_ms": round(statistics.fmean(decode) * 1000, 2),
        "score_ms": round(statistics.fmean(score) * 1000, 2),
    }


def measure(bundle: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """Give pictures a second of every side, and the ratios of rounds."""
    opened = open_bundle(bundle)
    category = next(iter(opened.config.categories))
    one, default = (
        Predictor.open(opened, category=category, threads=threads)
        for threads in (1, None)
    )
    sides: dict[str, Callable[[Sequence[Path]], list[float]]] = {
        "loop, 1 thread": lambda block: plain_loop(one, block),
        "1 worker, 1 thread": lambda block: overlapped(one, block, workers=1),
        "2 workers, 1 thread": lambda block: overlapped(one, block, workers=2),
        "loop, all threads": lambda block: plain_loop(default, block),
        "2 workers, all threads": lambda block: overlapped(default, block, workers=2),
    }
    for run in sides.values():
        run(paths[:4])
    taken: dict[str, list[float]] = {name: [] for name in sides}
    resident = []
    for begin in range(0, len(paths) - BLOCK + 1, BLOCK):
        block = paths[begin : begin + BLOCK]
        scores = {}
        for name, run in sides.items():
            start = time.perf_counter()
            scores[name] = run(block)
            taken[name].append(time.perf_counter() - start)
        first = scores["loop, 1 thread"]
        assert all(np.array_equal(first, other) for other in scores.values())
        resident.append(resident_mb())
    loop = taken["loop, 1 thread"]
    return {
        "machine": machine(),
        "goal": GOAL,
        "pictures": len(paths),
        **halves_ms(one, paths[:BLOCK]),
        "pictures_per_s": {
            name: round(BLOCK / statistics.median(seconds), 1)
            for name, seconds in taken.items()
        },
        "ratios": {
            name: Ratio.of(loop, seconds)
            for name, seconds in taken.items()
            if seconds is not loop
        },
        "resident_mb": {
            "after the first block": round(resident[0], 1),
            "after the last block": round(resident[-1], 1),
        },
    }


def main() -> None:
    """Measure, print JSON, then Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=HOUSE / "bundles/demo")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    options = parser.parse_args()
    paths = write_pictures(
        options.work / f"side{options.side}", options.pictures, options.side
    )
    found = measure(options.bundle, paths)
    ratios = found["ratios"]
    told = found | {"ratios": {name: r.to_json() for name, r in ratios.items()}}
    print(json.dumps(told, indent=2))
    print(f"\n{COLUMNS}\n|---|---|---|---|")
    for name, ratio in ratios.items():
        print(row(f"folder: {name} / loop, 1 thread", f">= {GOAL}", ratio))


if __name__ == "__main__":
    main()
