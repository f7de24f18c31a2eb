"""Best F1 and the pooled quantile of pixels, against the slow and obvious way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyimgano.calibration import (
    LabelledScores,
    TopPixels,
    best_f1,
    best_f1_threshold,
)
from pyimgano_runtime.binomial_bounds import count_bounds
from pyimgano_runtime.calibration import Origin
from pyimgano_runtime.thresholds import is_anomaly

ORIGIN = Origin("a" * 64, "a test", "2024-01-01T00:00:00Z")

labelled_lists = st.lists(
    st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30
).filter(lambda pairs: len({bad for _, bad in pairs}) == 2)


def arrays(
    pairs: list[tuple[float, bool]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return (
        np.array([score for score, _ in pairs], dtype=np.float32),
        np.array([bad for _, bad in pairs], dtype=np.bool_),
    )


def f1_at(
    threshold: float, scores: NDArray[np.float32], anomalous: NDArray[np.bool_]
) -> tuple[float, int]:
    """F1 and the number of false alarms."""
    flagged = np.array([is_anomaly(float(s), threshold) for s in scores])
    caught = int((flagged & anomalous).sum())
    alarms = int((flagged & ~anomalous).sum())
    missed = int((~flagged & anomalous).sum())
    return 2 * caught / (2 * caught + alarms + missed), alarms


def test_the_threshold_stands_halfway_between_the_two_kinds() -> None:
    scores, bad = arrays([(1, False), (2, False), (4, True), (5, True)])
    assert best_f1_threshold(scores, bad) == (3.0, 1.0)


def test_overlapping_kinds_by_hand() -> None:
    # Flagging 5: F1 2/3; 5 4: 1/2 ...; 5 4 3: 4/5; all: 2/3.
    scores, bad = arrays([(5, True), (4, False), (3, True), (1, False), (0, False)])
    assert best_f1_threshold(scores, bad) == (2.0, pytest.approx(0.8))


def test_of_equal_f1_fewer_false_alarms_win() -> None:
    # One of two defects without alarm: 2/3; both with two alarms: 4/6.
    scores, bad = arrays([(9, True), (3, False), (2, False), (1, True), (0, False)])
    threshold, f1 = best_f1_threshold(scores, bad)
    assert (threshold, f1) == (6.0, pytest.approx(2 / 3))


def test_tied_scores_are_never_parted() -> None:
    scores, bad = arrays([(2, True), (2, False), (2, True), (0, False)])
    assert best_f1_threshold(scores, bad) == (1.0, pytest.approx(0.8))


def test_where_all_must_be_flagged_the_threshold_is_below_the_lowest() -> None:
    scores, bad = arrays([(-1, True), (-1, True), (0, False)])
    threshold, f1 = best_f1_threshold(scores, bad)
    assert threshold < -1.00001
    assert f1 == pytest.approx(0.8)


def test_between_neighbouring_float32_the_threshold_is_the_upper_one() -> None:
    lower = np.float32(1.0)
    upper = np.nextafter(lower, np.float32(2))
    scores, bad = arrays([(float(lower), False), (float(upper), True)])
    assert best_f1_threshold(scores, bad) == (float(upper), 1.0)


def test_huge_scores_have_a_middle() -> None:
    top = float(np.finfo(np.float32).max)
    scores, bad = arrays([(-top, False), (top, True)])
    assert best_f1_threshold(scores, bad) == (0.0, 1.0)
    scores, bad = arrays([(top / 2, False), (top, True)])
    assert math.isfinite(best_f1_threshold(scores, bad)[0])


@given(pairs=labelled_lists)
def test_no_other_threshold_has_a_larger_f1_or_the_same_with_fewer_alarms(
    pairs: list[tuple[float, bool]],
) -> None:
    scores, bad = arrays(pairs)
    threshold, f1 = best_f1_threshold(scores, bad)
    assert threshold == float(np.float32(threshold))
    found, alarms = f1_at(threshold, scores, bad)
    assert found == pytest.approx(f1)
    for other in np.unique(scores):
        other_f1, other_alarms = f1_at(float(other), scores, bad)
        assert other_f1 <= f1 + 1e-12
        if math.isclose(other_f1, f1):
            assert other_alarms >= alarms


def test_the_provenance_of_best_f1_says_what_it_was_fitted_on() -> None:
    scores, bad = arrays(
        [(5, True), (4, False), (3, True), (1, False), (0, False), (0.5, False)]
    )
    groups = ("a", "b", "c", "d", "d", "d")
    labelled = LabelledScores(scores, bad, groups)
    threshold, provenance, calibration = best_f1(labelled, origin=ORIGIN)
    assert threshold == 2.0
    assert (provenance.method, provenance.source) == ("best_f1", "labelled_manifest")
    assert provenance.parameters == {
        "f1": pytest.approx(0.8),
        "normals": 4,
        "defects": 2,
        "normals_above": 1,
        "defects_above": 2,
        "statistic": "image score",
        "p_values_from": "labelled normals",
    }
    assert provenance.requested_false_alarm_rate is None
    assert provenance.used_false_alarm_rate is None
    assert (provenance.n_images, provenance.n_groups) == (6, 4)
    assert provenance.fingerprint == "a" * 64
    assert provenance.bounds == count_bounds(scores[~bad], ["b", "d", "d", "d"], 2.0)
    assert calibration.image_scores == (0.0, 0.5, 1.0, 4.0)
    assert calibration.n_images == 4


# --- the pooled quantile of pixels --------------------------------------------------


def pooled(maps: NDArray[np.float32], quantile: float) -> float:
    top = TopPixels(quantile, len(maps))
    for anomaly_map in maps:
        top.add(anomaly_map)
    return top.result().value


@given(
    n_maps=st.integers(1, 12),
    side=st.integers(1, 9),
    quantile=st.sampled_from([0.9, 0.95, 0.99, 0.999]),
    seed=st.integers(0, 99),
    order=st.sampled_from(["as drawn", "rising", "falling"]),
)
def test_the_quantile_is_the_one_of_all_pixels(
    n_maps: int, side: int, quantile: float, seed: int, order: str
) -> None:
    maps = np.random.default_rng(seed).normal(size=(n_maps, side, side))
    maps = maps.astype(np.float32)
    if order != "as drawn":  # all large pixels in one map, the first or the last
        maps = np.sort(maps, axis=None).reshape(maps.shape)
        maps = maps if order == "rising" else maps[::-1]
    every = np.sort(maps, axis=None)
    rank = math.ceil(round(quantile * every.size, 9))
    assert pooled(maps, quantile) == every[rank - 1]


def test_memory_is_bounded_by_the_share_above_not_by_the_maps() -> None:
    top = TopPixels(0.999, 200)
    random = np.random.default_rng(0)
    for _ in range(200):
        top.add(random.normal(size=(50, 50)).astype(np.float32))
        assert len(top._largest) <= 2 * (500 + 1)
    result = top.result()
    assert (result.n_pixels, result.quantile) == (500_000, 0.999)
    assert result.value == pytest.approx(3.09, abs=0.1)  # of a normal distribution
    assert result.largest > result.value


def test_a_missing_map_is_a_mistake_of_the_caller() -> None:
    top = TopPixels(0.9, 2)
    top.add(np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="1 of 2 maps"):
        top.result()
