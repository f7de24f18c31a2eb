"""Intervals of pixel metrics: against drawing pictures, and where none is given."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from pyimgano.metrics import PixelIntervals, PixelMetrics

Picture = tuple[np.ndarray, np.ndarray]
KEYS = ["pixel_auroc_ci95", "aupro_0.3_ci95", "aupro_0.05_ci95", "seg_f1_ci95"]


def pictures(n: int, *, seed: int = 0, size: int = 24) -> list[Picture]:
    """Normals and defects, of which some are hard: what an interval lives on."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(n):
        scores = rng.gamma(2.0, 1.0, (size, size)).astype(np.float32)
        mask = np.zeros((size, size), bool)
        if index % 2:
            mask[4:12, 5:15] = True
            scores[mask] += np.float32(rng.uniform(-1, 6))
        found.append((scores, mask))
    return found


def intervals(found: list[Picture], **options: int) -> dict[str, list[float]]:
    gathered = PixelIntervals(4.0, **({"n_resamples": 200} | options))
    for index, (scores, mask) in enumerate(found):
        gathered.add(scores, mask, group=f"image:{index}")
    return gathered.to_json(metrics(found))


def metrics(found: list[Picture]) -> dict[str, Any]:
    gathered = PixelMetrics(4.0)
    for scores, mask in found:
        gathered.add(scores, mask)
    return gathered.result().to_json()


@pytest.mark.parametrize("lowest", ["of the pictures", "negative"])
def test_an_interval_is_that_of_drawing_pictures_with_replacement(lowest: str) -> None:
    found = pictures(40)
    # One such pixel makes the histogram span most of float32, so its bins wide.
    if lowest != "of the pictures":
        found[0][0][0, 0] = -100.0
    rng = np.random.default_rng(1)
    drawn = [metrics([found[i] for i in rng.integers(0, 40, 40)]) for _ in range(120)]
    exact = metrics(found)
    for name, (low, high) in intervals(found).items():
        key = name.removesuffix("_ci95")
        expected = np.quantile([each[key] for each in drawn], [0.025, 0.975])
        assert low < exact[key] < high
        assert [low, high] == pytest.approx(expected, abs=0.25 * np.ptp(expected))
    assert list(intervals(found)) == KEYS


def test_more_pictures_narrow_the_interval() -> None:
    few, many = intervals(pictures(20)), intervals(pictures(320))
    for key in KEYS:
        # A quarter in theory; percentiles of 200 resamples are noisy themselves.
        assert np.ptp(many[key]) < 0.5 * np.ptp(few[key])


def test_the_order_of_the_pictures_does_not_matter() -> None:
    found = list(enumerate(pictures(10)))
    reports = []
    for order in (found, found[::-1]):
        gathered = PixelIntervals(4.0, n_resamples=200)
        for index, (scores, mask) in order:
            gathered.add(scores, mask, group=f"image:{index}")
        reports.append(gathered.to_json(metrics(pictures(10))))
    for key in KEYS:
        assert reports[0][key] == pytest.approx(reports[1][key], abs=1e-9)


def test_photographs_of_one_part_count_as_one() -> None:
    found = pictures(12)
    repeated = PixelIntervals(4.0, n_resamples=200)
    for _ in range(4):
        for index, (scores, mask) in enumerate(found):
            repeated.add(scores, mask, group=f"image:{index}")
    report = repeated.to_json(metrics(found))
    for key, interval in intervals(found).items():
        assert report[key] == pytest.approx(interval, abs=1e-9)


def test_there_is_no_interval_of_too_little() -> None:
    assert intervals(pictures(10), n_resamples=0) == {}
    assert intervals([p for p in pictures(10) if not p[1].any()]) == {}
    assert intervals(pictures(3)) == {}  # one picture with a defect
    gathered = PixelIntervals(None, n_resamples=200)
    for index, (scores, mask) in enumerate(pictures(10)):
        gathered.add(scores, mask, group=f"image:{index}")
    report = gathered.to_json(metrics(pictures(10)))
    assert "seg_f1_ci95" not in report
    assert "pixel_auroc_ci95" in report


def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    gathered = PixelIntervals(4.0, n_resamples=200)
    tracemalloc.start()
    try:
        for index, (scores, mask) in enumerate(pictures(200, size=48)):
            gathered.add(scores, mask, group=f"image:{index}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6
