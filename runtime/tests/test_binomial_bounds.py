"""Clopper-Pearson bounds by hand; tests/test_calibration_bounds.py has scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyimgano_runtime.binomial_bounds import clopper_pearson, count_bounds

# Bisection ends at neighbouring doubles; lgamma is off by some 1e-15 of its value.
RELATIVE = 1e-10


@pytest.mark.parametrize("n", [1, 2, 10, 99, 1000, 100_000])
def test_none_of_n_leaves_a_rate_open_up_to_the_closed_form(n: int) -> None:
    low, high = clopper_pearson(0, n)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / n), rel=RELATIVE)


@pytest.mark.parametrize("n", [1, 2, 10, 99, 1000])
def test_all_of_n_is_none_of_n_seen_from_the_other_side(n: int) -> None:
    low, high = clopper_pearson(n, n)
    assert high == 1.0
    assert low == pytest.approx(0.025 ** (1 / n), rel=RELATIVE)


@pytest.mark.parametrize(("count", "n"), [(1, 3), (3, 10), (7, 40), (50, 1000)])
def test_both_tails_have_the_probability_that_is_left(count: int, n: int) -> None:
    def probability(rate: float, first: int, last: int) -> float:
        return sum(
            math.comb(n, k) * rate**k * (1 - rate) ** (n - k)
            for k in range(first, last + 1)
        )

    low, high = clopper_pearson(count, n)
    assert probability(low, count, n) == pytest.approx(0.025, rel=1e-9)
    assert probability(high, 0, count) == pytest.approx(0.025, rel=1e-9)


def test_one_of_two_by_hand() -> None:
    low, high = clopper_pearson(1, 2)
    assert low == pytest.approx(1 - math.sqrt(0.975), rel=RELATIVE)  # P(X >= 1)
    assert high == pytest.approx(math.sqrt(0.975), rel=RELATIVE)  # P(X <= 1)


def test_another_confidence_gives_another_width() -> None:
    narrow, wide = clopper_pearson(3, 10, 0.5), clopper_pearson(3, 10, 0.99)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


def test_of_nothing_any_rate_is_possible() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("count", "n", "confidence"),
    [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 0.0), (1, 3, 1.0), (1, 3, math.nan)],
)
def test_what_makes_no_sense_is_a_value_error(
    count: int, n: int, confidence: float
) -> None:
    with pytest.raises(ValueError, match="expected"):
        clopper_pearson(count, n, confidence)


def test_a_score_equal_to_the_threshold_counts_as_float32() -> None:
    scores = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    assert count_bounds(scores, ["a", "b", "c"], 2.0 + 1e-12).images_above == 2


def test_a_group_is_above_once_if_any_of_its_pictures_is() -> None:
    scores = np.array([1, 5, 5, 1, 5], dtype=np.float32)
    bounds = count_bounds(scores, ["a", "a", "a", "b", "c"], 5.0)
    assert (bounds.n_images, bounds.images_above) == (5, 3)
    assert (bounds.n_groups, bounds.groups_above) == (3, 2)
    assert bounds.by_images == clopper_pearson(3, 5)
    assert bounds.by_groups == clopper_pearson(2, 3)
    assert bounds.confidence == 0.95
