"""The conformal threshold: ranks by hand, float32 rules, provenance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyimgano.calibration import as_json
from pyimgano_exporters.parity import SCORE_REL
from pyimgano_runtime.calibration import (
    EXACT_SCORES,
    MAP_TOLERANCE_OF_RANGE,
    SCORE_TOLERANCE_REL,
    SMALL_N,
    HeldOutScores,
    Origin,
    Rule,
    calibrate,
    conformal_rank,
    conformal_threshold,
    fixed_thresholds,
    small_n_message,
    stored_scores,
    threshold_above,
)
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.infer_config import Calibration, Thresholds
from pyimgano_runtime.thresholds import is_anomaly, p_value

finite32 = st.floats(
    min_value=-(2.0**99),
    max_value=2.0**99,
    width=32,
    allow_nan=False,
    allow_infinity=False,
)
score_lists = st.lists(finite32, min_size=1, max_size=60)
rates = st.floats(0.001, 0.5)


def calibrated(
    image: list[float],
    *,
    rate: float = 0.1,
    map_max: list[float] | None = None,
    groups: list[str] | None = None,
    source: str = "val",
) -> tuple[Thresholds, Calibration]:
    held_out = HeldOutScores(
        image=np.asarray(image, dtype=np.float32),
        map_max=None if map_max is None else np.asarray(map_max, dtype=np.float32),
        groups=tuple(groups or [str(n) for n in range(len(image))]),
        source=source,
    )
    return calibrate(
        held_out,
        rule=Rule("conformal", rate),
        origin=Origin("f" * 64, "a test", "2024-01-01T00:00:00Z"),
    )


# k = ceil((n + 1) (1 - alpha)), by hand.
@pytest.mark.parametrize(
    ("n", "rate", "k"),
    [
        (9, 0.1, 9),  # ceil(10 x 0.9): 0.1 is not exact in binary
        (10, 0.1, 10),  # ceil(9.9)
        (19, 0.1, 18),
        (20, 0.1, 19),  # ceil(18.9)
        (19, 0.05, 19),
        (99, 0.01, 99),
        (100, 0.01, 100),  # ceil(99.99)
        (199, 0.01, 198),
        (1000, 0.01, 991),  # ceil(990.99)
        (3, 0.5, 2),
        (1, 0.5, 1),
        (2, 1 / 3, 2),
        (999, 0.001, 999),
    ],
)
def test_the_rank_is_the_one_of_the_definition(n: int, rate: float, k: int) -> None:
    rank = conformal_rank(n, rate)
    assert rank.k == k
    assert rank.used_rate == rank.requested_rate == rate
    assert not rank.small_n


@pytest.mark.parametrize(
    ("n", "rate"), [(8, 0.1), (98, 0.01), (1, 0.49), (18, 0.05), (5, 1e-6), (1, 0.01)]
)
def test_too_few_normals_promise_what_they_can(n: int, rate: float) -> None:
    rank = conformal_rank(n, rate)
    assert rank.small_n
    assert rank.used_rate == 1 / (n + 1)
    assert rank.requested_rate == rate
    assert rank.k == n


@given(n=st.integers(1, 3000), rate=st.floats(1e-4, 0.9))
def test_the_rank_keeps_the_promise_and_wastes_nothing(n: int, rate: float) -> None:
    rank = conformal_rank(n, rate)
    assert 1 <= rank.k <= n
    assert (n + 1 - rank.k) / (n + 1) <= rank.used_rate + 1e-9
    assert (n + 2 - rank.k) / (n + 1) > rank.used_rate - 1e-9


@given(n=st.integers(1, 300), rate=st.floats(1e-4, 0.9))
def test_the_used_rate_differs_only_where_it_must(n: int, rate: float) -> None:
    rank = conformal_rank(n, rate)
    assert rank.small_n == (n < math.ceil(1 / rate - 1e-9) - 1)
    assert (rank.used_rate == rate) or rank.small_n


def test_without_normals_there_is_no_threshold() -> None:
    with pytest.raises(ConfigError, match=r'no held-out normals.*"fixed"'):
        conformal_rank(0, 0.1)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_a_rate_outside_of_zero_and_one_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="target_false_alarm_rate: found"):
        conformal_rank(9, rate)


def test_the_threshold_stands_above_the_ranked_score() -> None:
    scores = np.arange(1, 21, dtype=np.float32)[::-1]  # 20, 19, ... 1
    threshold, rank = conformal_threshold(scores, 0.1)
    assert rank.k == 19
    assert threshold == threshold_above(19.0)
    assert 19.0 < threshold < 19.001


def test_tied_scores_are_not_flagged_by_their_own_threshold() -> None:
    threshold, _ = conformal_threshold(np.full(9, 2.5, dtype=np.float32), 0.1)
    assert not is_anomaly(2.5, threshold)
    assert is_anomaly(2.5001, threshold)


def test_the_threshold_is_the_next_float32_above_score_and_tolerance() -> None:
    raised = np.float32(1.0 + 1e-5)
    assert threshold_above(1.0) == float(np.nextafter(raised, np.float32(2)))
    raised = np.float32(-4.0 + 4e-5)
    assert threshold_above(-4.0) == float(np.nextafter(raised, np.float32(0)))
    assert threshold_above(0.0) == float(np.nextafter(np.float32(0), np.float32(1)))


def test_the_tolerance_of_thresholds_is_the_one_of_parity() -> None:
    assert SCORE_TOLERANCE_REL == SCORE_REL


@given(score=finite32)
def test_a_threshold_is_a_float32_number(score: float) -> None:
    threshold = threshold_above(score)
    assert threshold == float(np.float32(threshold))


@given(score=finite32)
def test_no_engine_within_the_tolerance_flags_the_ranked_score(score: float) -> None:
    threshold = threshold_above(score)
    assert not is_anomaly(score, threshold)
    other_engine = score + abs(score) * SCORE_TOLERANCE_REL
    assert not is_anomaly(other_engine, threshold)


@given(scores=score_lists, rate=rates)
def test_at_most_the_promised_share_of_the_calibration_set_is_flagged(
    scores: list[float], rate: float
) -> None:
    threshold, rank = conformal_threshold(np.asarray(scores, dtype=np.float32), rate)
    flagged = sum(is_anomaly(score, threshold) for score in scores)
    assert flagged <= len(scores) - rank.k


@given(scores=score_lists, rate=rates, score=finite32)
def test_a_flagged_score_has_a_p_value_within_the_used_rate(
    scores: list[float], rate: float, score: float
) -> None:
    threshold, rank = conformal_threshold(np.asarray(scores, dtype=np.float32), rate)
    p = p_value(score, sorted(scores))
    assert p is not None
    if is_anomaly(score, threshold):
        assert p <= rank.used_rate + 1e-9


def test_the_label_compares_as_float32() -> None:
    assert is_anomaly(1.0, 1.0)
    assert is_anomaly(1.0 - 1e-12, 1.0)
    assert not is_anomaly(float(np.nextafter(np.float32(1), np.float32(0))), 1.0)


@pytest.mark.parametrize(
    ("score", "p"),
    [(0.0, 1.0), (1.0, 1.0), (2.0, 0.8), (2.5, 0.6), (4.0, 0.4), (4.1, 0.2), (99, 0.2)],
)
def test_p_values_by_hand(score: float, p: float) -> None:
    assert p_value(score, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(p)


def test_p_values_count_ties_as_at_least_as_anomalous() -> None:
    assert p_value(2.0, [1.0, 2.0, 2.0, 2.0]) == pytest.approx(4 / 5)


def test_without_calibration_scores_there_is_no_p_value() -> None:
    assert p_value(1.0, []) is None


def test_up_to_ten_thousand_scores_are_kept_as_they_are() -> None:
    scores = np.random.default_rng(0).normal(size=EXACT_SCORES).astype(np.float32)
    assert stored_scores(scores) == tuple(np.sort(scores).tolist())


@pytest.mark.parametrize("n", [EXACT_SCORES + 1, 25_003])
def test_quantiles_of_many_scores_lower_no_p_value(n: int) -> None:
    random = np.random.default_rng(n)
    scores = np.sort(random.normal(size=n).astype(np.float32))
    kept = stored_scores(scores)
    assert len(kept) == EXACT_SCORES
    assert list(kept) == sorted(kept)
    for score in [*random.normal(size=300).tolist(), *scores[:5], *scores[-5:], 9.0]:
        from_kept, from_all = p_value(score, kept), p_value(score, scores)
        assert from_kept is not None
        assert from_all is not None
        assert from_all - 1e-12 <= from_kept < from_all + 2.0 / EXACT_SCORES


def test_image_and_pixel_thresholds_come_from_their_own_scores() -> None:
    image, pixels = list(range(1, 20)), list(range(101, 120))
    thresholds, _ = calibrated(image, map_max=pixels)
    assert thresholds.image == threshold_above(18.0)
    assert thresholds.pixel == threshold_above(118.0, MAP_TOLERANCE_OF_RANGE)
    assert thresholds.compare == ">="


def test_without_maps_there_is_no_pixel_threshold() -> None:
    thresholds, _ = calibrated(list(range(1, 20)))
    assert thresholds.pixel is None
    assert set(thresholds.provenance) == {"image"}


def test_the_provenance_says_where_a_threshold_comes_from() -> None:
    thresholds, calibration = calibrated(
        [3.0, 1.0, 2.0] * 3, groups=["a", "b", "c"] * 3, source="val"
    )
    image = thresholds.provenance["image"]
    assert (image.method, image.source, image.approximate) == (
        "conformal",
        "val",
        False,
    )
    assert (image.requested_false_alarm_rate, image.used_false_alarm_rate) == (0.1, 0.1)
    assert image.parameters == {"rank": 9, "of": 9, "statistic": "image score"}
    assert (image.n_images, image.n_groups) == (9, 3)
    assert image.fingerprint == "f" * 64
    assert image.score_summary == pytest.approx(
        {"min": 1.0, "median": 2.0, "mean": 2.0, "std": math.sqrt(2 / 3), "max": 3.0}
    )
    assert image.warnings == ()
    assert (image.set_by, image.set_at) == ("a test", "2024-01-01T00:00:00Z")
    assert calibration.image_scores == (1.0,) * 3 + (2.0,) * 3 + (3.0,) * 3
    assert calibration.n_images == 9


def test_pooled_folds_are_called_approximate() -> None:
    thresholds, _ = calibrated([1.0] * 9, source="kfold_pooled")
    assert thresholds.provenance["image"].approximate


def test_too_few_normals_are_warned_of_with_the_number_needed() -> None:
    thresholds, _ = calibrated([1.0] * 24, rate=0.01)
    image = thresholds.provenance["image"]
    assert image.warnings == (SMALL_N,)
    assert (image.requested_false_alarm_rate, image.used_false_alarm_rate) == (
        0.01,
        1 / 25,
    )
    message = small_n_message(thresholds)
    assert message is not None
    assert "24 held-out normals can promise no false-alarm rate below 4.00%" in message
    assert "takes 99 normals" in message


def test_enough_normals_are_not_warned_of() -> None:
    thresholds, _ = calibrated([1.0] * 99, rate=0.01)
    assert small_n_message(thresholds) is None


def test_a_fixed_threshold_says_that_a_person_chose_it() -> None:
    thresholds, calibration = fixed_thresholds(
        0.1, None, set_by="a test", set_at="2024-01-01T00:00:00Z"
    )
    assert thresholds.image == float(np.float32(0.1))
    assert thresholds.pixel is None
    image = thresholds.provenance["image"]
    assert (image.method, image.source, image.n_images) == ("fixed", "user", 0)
    assert image.requested_false_alarm_rate is image.used_false_alarm_rate is None
    assert calibration.image_scores == ()
    assert small_n_message(thresholds) is None


def test_calibration_json_holds_both_parts() -> None:
    thresholds, calibration = calibrated([1.0] * 9)
    payload = as_json(thresholds, calibration)
    assert payload["schema_version"] == "1.0"
    assert payload["thresholds"]["image"] == thresholds.image
    assert payload["calibration"]["n_images"] == 9
