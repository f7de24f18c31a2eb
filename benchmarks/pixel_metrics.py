"""Time and memory of the pixel metrics, and how far they lie from exact ones.

    python benchmarks/pixel_metrics.py [--images 200] [--height 2160] [--width 3840]

Streams drawn float32 maps (smooth, plus noise; defects raised) and masks, every second
one with defects, through PixelMetrics. Memory is the peak resident set of this process
with Python, the libraries and the drawing; read before the exact values are computed.
Those are of the top left corners of some pictures, by scikit-learn and by sorting all
scores. Prints JSON, then one Markdown row; with --json the JSON alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from pyimgano.metrics import PixelMetrics

THRESHOLD: Final = 1.5
CORNER_PX: Final = 512  # side of the corners that are measured exactly, too
CORNERS: Final = 8  # 2 million pixels: each a threshold of the exact values
DEFECTS: Final = 12  # a picture
AUPRO_LIMITS: Final = {"aupro_0.3": 0.3, "aupro_0.05": 0.05}

Picture = tuple[NDArray[np.float32], NDArray[np.bool_]]  # map and mask, (H, W)


def draw(n: int, size: tuple[int, int]) -> Iterator[Picture]:
    """Give n maps and masks, always the same ones."""
    height, width = size
    for number in range(n):
        rng = np.random.default_rng(number)
        coarse = rng.normal(0, 0.6, (9, 16)).astype(np.float32)
        scores = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        marks = np.zeros(size, np.uint8)
        for _ in range(DEFECTS * (number % 2)):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            axes = rng.integers(4, max(6, height // 20), 2).tolist()
            cv2.ellipse(marks, (x, y), axes, float(rng.integers(180)), 0, 360, 1, -1)
        mask = marks.view(np.bool_)
        for row, marked in zip(scores, mask, strict=True):  # rows: no second map
            row += rng.standard_normal(width, dtype=np.float32) * np.float32(0.4)
            row[marked] += np.float32(1.3)
        yield scores, mask


def corners(n: int, size: tuple[int, int]) -> Iterator[Picture]:
    """Give the top left corners of the first pictures of a size."""
    for scores, mask in draw(min(n, CORNERS), size):
        part = (slice(0, CORNER_PX), slice(0, CORNER_PX))
        yield scores[part].copy(), mask[part].copy()


def stream(pictures: Iterator[Picture]) -> tuple[PixelMetrics, list[float]]:
    """Add all pictures; give the seconds of each."""
    metrics = PixelMetrics(THRESHOLD)
    seconds = []
    for scores, mask in pictures:
        start = time.perf_counter()
        metrics.add(scores, mask)
        seconds.append(time.perf_counter() - start)
    return metrics, seconds


def exact_values(pictures: list[Picture]) -> dict[str, float]:
    """Give the metrics from all scores at once; every distinct score a threshold."""
    scores = np.concatenate([scores.ravel() for scores, _ in pictures])
    defect = np.concatenate([mask.ravel() for _, mask in pictures])
    weights = np.concatenate([_overlap_weights(mask).ravel() for _, mask in pictures])
    values = {"pixel_auroc": float(roc_auc_score(defect, scores.astype(np.float64)))}

    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # the last of equal scores
    hits = np.cumsum(defect[order])[last]
    false = np.cumsum(~defect[order])[last]
    values["oracle_seg_f1"] = float((2 * hits / (hits + false + hits[-1])).max())
    flagged = scores >= np.float32(THRESHOLD)
    n_hits = int((flagged & defect).sum())
    values["seg_f1"] = 2 * n_hits / (int(flagged.sum()) + int(defect.sum()))

    fpr = np.concatenate([[0.0], false / false[-1]])
    overlap = np.cumsum(weights[order])[last]
    overlap = np.concatenate([[0.0], overlap / overlap[-1]])
    for key, limit in AUPRO_LIMITS.items():
        inside = fpr <= limit
        x = np.append(fpr[inside], limit)
        # Where several thresholds share an FPR, the curve goes on from the highest.
        end = int(inside.sum())
        slope = (overlap[end] - overlap[end - 1]) / (fpr[end] - fpr[end - 1])
        y_end = overlap[end - 1] + slope * (limit - fpr[end - 1])
        y = np.append(overlap[inside], y_end)
        values[key] = float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / limit)
    return values


def _overlap_weights(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give 1 / area of its region for each defect pixel, 0 elsewhere."""
    weights = np.zeros(mask.shape)
    n_labels, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    for label in range(1, n_labels):
        region = labels == label
        weights[region] = 1 / region.sum()
    return weights


def peak_rss_mb() -> float:
    """Give the largest resident set of this process so far (Linux counts in KiB)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def against_exact(n: int, size: tuple[int, int]) -> dict[str, Any]:
    """Give value, exact value and stated bound of each metric on the corners."""
    pictures = list(corners(n, size))
    metrics, _ = stream(iter(pictures))
    found = metrics.result().to_json()
    return {
        key: {
            "value": found[key],
            "exact": value,
            "difference": abs(float(found[key] or 0) - value),
            "error_bound": found.get(f"{key}_error_bound", 0.0),
        }
        for key, value in exact_values(pictures).items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--height", type=int, default=2160)
    parser.add_argument("--width", type=int, default=3840)
    parser.add_argument("--json", action="store_true", help="no Markdown row")
    options = parser.parse_args()
    if options.images < 2:
        parser.error("--images: expected at least 2; the first picture has no defect")
    size = (options.height, options.width)

    libraries_mb = peak_rss_mb()
    metrics, seconds = stream(draw(options.images, size))
    start = time.perf_counter()
    result = metrics.result().to_json()
    result_seconds = time.perf_counter() - start
    report = {
        "images": options.images,
        "size": list(size),
        "seconds_per_image": float(np.median(seconds)),
        "result_seconds": result_seconds,
        "peak_rss_mb": peak_rss_mb(),
        "libraries_mb": libraries_mb,
        "metrics": result,
        "against_exact": against_exact(options.images, size),
    }
    print(json.dumps(report, indent=2))
    if options.json:
        return
    largest = max(cell["difference"] for cell in report["against_exact"].values())
    bound = max(cell["error_bound"] for cell in report["against_exact"].values())
    print("\n| images | size | s per image | peak MB | largest error | largest bound |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {options.images} | {size[0]} x {size[1]} | {np.median(seconds):.2f} "
        f"| {report['peak_rss_mb']:.0f} | {largest:.1e} | {bound:.1e} |"
    )


if __name__ == "__main__":
    main()
