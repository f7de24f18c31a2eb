"""The threshold rule in float32 and the conformal p-value, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pyimgano_runtime.thresholds import is_anomaly, p_value


def test_a_score_equal_to_the_threshold_is_an_anomaly() -> None:
    assert is_anomaly(1.5, 1.5)
    assert not is_anomaly(float(np.nextafter(np.float32(1.5), np.float32(0))), 1.5)


def test_score_and_threshold_are_compared_as_float32() -> None:
    # 0.1 is no float32; as float64 the score would lie above or below it.
    score = float(np.float32(0.1))
    assert score != 0.1
    assert is_anomaly(score, 0.1)
    assert is_anomaly(0.1, score)
    assert is_anomaly(16777216.0, 16777217.0)  # 2**24 + 1 is rounded to 2**24


def test_negative_scores_are_judged_like_all_others() -> None:
    assert is_anomaly(-1.0, -2.0)
    assert not is_anomaly(-3.0, -2.0)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (9.0, 5 / 5),  # all four are at least as large: (1 + 4) / (4 + 1)
        (10.0, 5 / 5),
        (10.5, 4 / 5),
        (20.0, 4 / 5),  # both twenties count
        (20.5, 2 / 5),
        (30.0, 2 / 5),
        (31.0, 1 / 5),  # never 0
    ],
)
def test_the_p_value_counts_normals_at_least_as_anomalous(
    score: float, expected: float
) -> None:
    assert p_value(score, [10.0, 20.0, 20.0, 30.0]) == expected


def test_the_p_value_compares_as_float32() -> None:
    assert p_value(0.1, [0.1]) == p_value(float(np.float32(0.1)), [0.1]) == 1.0


def test_without_calibration_scores_there_is_no_p_value() -> None:
    assert p_value(1.0, []) is None
