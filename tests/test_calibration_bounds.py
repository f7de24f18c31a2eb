"""Clopper-Pearson bounds against scipy, and what a report says of broken promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from pyimgano.calibration import promise_warning
from pyimgano_runtime.binomial_bounds import clopper_pearson, count_bounds
from pyimgano_runtime.calibration import HeldOutScores, Origin, Rule, calibrate
from pyimgano_runtime.infer_config import RateBounds, ThresholdProvenance

# Measured against scipy: at most 1e-12 relative up to n = 3000; lgamma of large
# numbers costs digits, 3e-10 at n = 100,000.
RELATIVE = 1e-9


def of_scipy(count: int, n: int, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, n - count + 1))
    high = 1.0 if count == n else float(beta.ppf(1 - tail, count + 1, n - count))
    return low, high


@given(
    n=st.integers(1, 3000),
    share=st.floats(0, 1),
    confidence=st.sampled_from([0.8, 0.95, 0.99]),
)
def test_the_bounds_are_those_of_the_beta_quantiles(
    n: int, share: float, confidence: float
) -> None:
    count = round(share * n)
    expected = of_scipy(count, n, confidence)
    assert clopper_pearson(count, n, confidence) == pytest.approx(
        expected, rel=RELATIVE
    )


@pytest.mark.parametrize("count", [0, 1, 17, 1000, 50_000, 99_999, 100_000])
def test_the_bounds_of_many_pictures_are_those_of_the_beta_quantiles(
    count: int,
) -> None:
    expected = of_scipy(count, 100_000, 0.95)
    assert clopper_pearson(count, 100_000) == pytest.approx(expected, rel=RELATIVE)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_the_bounds_hold_the_true_rate_as_often_as_they_say(rate: float) -> None:
    # By the binomial itself, not by drawing: the coverage is a sum over all counts.
    n = 60
    log_p, log_q = np.log(rate), np.log1p(-rate)
    from math import comb

    covered = sum(
        comb(n, k) * float(np.exp(k * log_p + (n - k) * log_q))
        for k in range(n + 1)
        if clopper_pearson(k, n)[0] <= rate <= clopper_pearson(k, n)[1]
    )
    assert 0.95 <= covered <= 1.0


# --- the warning of a report --------------------------------------------------------


@pytest.fixture(scope="module")
def provenance() -> ThresholdProvenance:
    """A promise of 5 %."""
    held_out = HeldOutScores(
        np.arange(99, dtype=np.float32), None, tuple(map(str, range(99))), "val"
    )
    thresholds, _ = calibrate(
        held_out,
        rule=Rule("conformal", 0.05),
        origin=Origin("f" * 64, "a test", "2024-01-01T00:00:00Z"),
    )
    return thresholds.provenance["image"]


def counted(n_above: int, n: int, *, group_size: int = 1) -> RateBounds:
    """The first pictures are above."""
    scores = (np.arange(n) < n_above).astype(np.float32)
    return count_bounds(scores, [str(i // group_size) for i in range(n)], 0.5)


def test_a_rate_above_what_chance_allows_is_warned_of(
    provenance: ThresholdProvenance,
) -> None:
    message = promise_warning(provenance, counted(12, 60))
    assert message is not None
    assert message.startswith(
        "FALSE_ALARMS_ABOVE_PROMISE: promised at most 5.00% false alarms, but 12 of 60 "
        "test normals reach the threshold (20.00%, 95 % bounds 10.78% to 32.33%); "
    )
    for advice in (
        "preflight",
        "group_id",
        "pyimgano-runtime calibrate",
        "another lot",
    ):
        assert advice in message
    assert "by group" not in message  # every picture is one


def test_a_rate_that_chance_explains_is_not(provenance: ThresholdProvenance) -> None:
    assert promise_warning(provenance, counted(0, 60)) is None
    assert promise_warning(provenance, counted(6, 60)) is None  # 10 %, from 3.8 %


def test_the_smallest_count_that_is_warned_of_is_where_the_bound_passes(
    provenance: ThresholdProvenance,
) -> None:
    warned = [k for k in range(61) if promise_warning(provenance, counted(k, 60))]
    assert warned[0] == next(k for k in range(61) if clopper_pearson(k, 60)[0] > 0.05)
    assert warned == list(range(warned[0], 61))


def test_groups_are_named_apart_and_judged_by_their_size(
    provenance: ThresholdProvenance,
) -> None:
    # One part of ten pictures is above: by images 10 of 60, by groups 1 of 6.
    message = promise_warning(provenance, counted(10, 60, group_size=10))
    assert message is not None
    assert "by group 1 of 6 (bounds 0.42% to 64.12%, within the 50.00%" in message
    # Every second picture of every part: each part is.
    every = counted(30, 60, group_size=2)
    message = promise_warning(provenance, every)
    assert message is not None
    assert "also above the 10.00%" in message


def test_where_nothing_was_promised_nothing_is_broken(
    provenance: ThresholdProvenance,
) -> None:
    none = dataclasses.replace(provenance, used_false_alarm_rate=None)
    assert promise_warning(none, counted(60, 60)) is None
    assert promise_warning(provenance, None) is None


def test_pooled_folds_promised_about(provenance: ThresholdProvenance) -> None:
    pooled = dataclasses.replace(provenance, approximate=True)
    message = promise_warning(pooled, counted(30, 60))
    assert message is not None
    assert "promised about 5.00%" in message
