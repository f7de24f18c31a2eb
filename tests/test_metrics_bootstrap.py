"""Bootstrap and Wilson intervals: reproducible, stratified, honest coverage."""

import time
import tracemalloc
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest

from pyimgano.metrics import (
    Interval,
    auroc,
    average_precision,
    bootstrap_difference,
    bootstrap_interval,
    f1_at_threshold,
    image_metric_intervals,
    image_metrics,
    wilson_interval,
)

# Nominal 0.95; 200 trials have a standard error of 0.015. Measured: 0.975.
COVERAGE_RANGE = (0.90, 0.99)


def _rng(seed=0):
    return np.random.default_rng(seed)


def _scores(seed=0, *, n_normal=40, n_anomalous=25, shift=1.0):
    """Rounded, so that there are ties: scores (n,), labels (n,)."""
    labels = np.repeat([0, 1], [n_normal, n_anomalous])
    scores = _rng(seed).normal(size=len(labels)) + shift * labels
    return scores.round(1).astype(np.float32), labels


@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_the_vectorised_path_equals_one_call_a_resample(metric):
    scores, labels = _scores()

    def slow(scores_f32, anomalous):
        return metric(scores_f32, anomalous)

    fast = bootstrap_interval(metric, scores, labels, generator=_rng(), n_resamples=200)
    expected = bootstrap_interval(
        slow, scores, labels, generator=_rng(), n_resamples=200
    )
    assert fast == pytest.approx(expected, abs=1e-12)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    scores, labels = _scores()
    first, again, other = (
        bootstrap_interval(auroc, scores, labels, generator=_rng(seed))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_the_interval_holds_the_metric():
    scores, labels = _scores()
    low, high = bootstrap_interval(auroc, scores, labels, generator=_rng())
    assert 0 < low < auroc(scores, labels) < high < 1


def test_every_resample_keeps_the_class_counts_and_draws_with_replacement():
    _, labels = _scores()
    distinct_images = []

    def spy(scores_f32, anomalous):
        assert (len(anomalous), anomalous.sum()) == (65, 25)
        distinct_images.append(len(np.unique(scores_f32)))
        return 0.0

    numbered = np.arange(65, dtype=np.float32)
    bootstrap_interval(spy, numbered, labels, generator=_rng(), n_resamples=100)
    # A resample of n leaves out about n / e images.
    assert np.mean(distinct_images) == pytest.approx(65 * (1 - 1 / np.e), rel=0.05)


def test_the_interval_of_a_mean_is_as_wide_as_theory_says():
    scores, labels = _scores(n_normal=400, n_anomalous=10)

    def normal_mean(scores_f32, anomalous):
        return float(scores_f32[~anomalous].mean())

    low, high = bootstrap_interval(
        normal_mean, scores, labels, generator=_rng(), n_resamples=4000
    )
    expected = 2 * 1.96 * scores[:400].std() / 400**0.5
    assert high - low == pytest.approx(expected, rel=0.06)  # measured 0.01 off


def test_auroc_intervals_cover_the_true_value():
    truth = NormalDist().cdf(1 / 2**0.5)  # normal scores one sigma apart
    covered = 0
    for seed in range(200):
        generator = _rng(seed)
        labels = np.arange(80) % 2
        scores = generator.normal(size=80) + labels
        low, high = bootstrap_interval(
            auroc, scores, labels, generator=generator, n_resamples=400
        )
        covered += low <= truth <= high
    assert COVERAGE_RANGE[0] <= covered / 200 <= COVERAGE_RANGE[1]


def test_a_thousand_resamples_of_500_images_take_less_than_a_second():
    scores, labels = _scores(n_normal=400, n_anomalous=100)
    auroc(scores, labels)  # import scikit-learn outside the clock
    start = time.process_time()
    bootstrap_interval(auroc, scores, labels, generator=_rng(), n_resamples=1000)
    assert time.process_time() - start < 1.0  # measured 0.01


def test_memory_stays_bounded_for_many_images():
    labels = np.arange(40_000) % 2
    scores = _rng().normal(size=40_000)
    tracemalloc.start()
    try:
        bootstrap_interval(auroc, scores, labels, generator=_rng(), n_resamples=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6  # unchunked, the indices alone take 64 MB; measured 43 MB


def test_a_detector_does_not_differ_from_itself():
    scores, labels = _scores()
    assert bootstrap_difference(
        auroc, scores, scores, labels, generator=_rng()
    ) == Interval(0.0, 0.0)


def test_the_difference_is_candidate_minus_reference():
    worse, labels = _scores(shift=0.5)
    better = worse + 2 * labels
    low, high = bootstrap_difference(auroc, worse, better, labels, generator=_rng())
    assert 0 < low < auroc(better, labels) - auroc(worse, labels) < high


def test_the_difference_resamples_both_detectors_alike():
    reference, labels = _scores()
    candidate = reference + _rng(5).normal(scale=0.1, size=65)
    paired = bootstrap_difference(
        auroc, reference, candidate, labels, generator=_rng(), n_resamples=400
    )
    alone = bootstrap_interval(
        auroc, reference, labels, generator=_rng(), n_resamples=400
    )
    # Unpaired, the difference would be wider than either interval.
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_any_callable_is_a_metric():
    scores, labels = _scores()
    f1 = partial(f1_at_threshold, threshold=0.5)
    low, high = bootstrap_interval(f1, scores, labels, generator=_rng())
    assert low < f1(scores, labels) < high


def test_a_metric_that_returns_nan_is_refused():
    scores, labels = _scores()
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_interval(lambda s, y: np.nan, scores, labels, generator=_rng())


def test_a_missing_class_is_refused():
    with pytest.raises(ValueError, match="found 2 and 0"):
        bootstrap_interval(auroc, [1.0, 2.0], [0, 0], generator=_rng())


def test_too_few_resamples_are_refused():
    scores, labels = _scores()
    with pytest.raises(ValueError, match="at least 100: found 99"):
        bootstrap_interval(auroc, scores, labels, generator=_rng(), n_resamples=99)


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [
        (0, 20, (0.0, 0.16113)),
        (10, 10, (0.72247, 1.0)),
        (50, 100, (0.40383, 0.59617)),
        (1, 10, (0.01788, 0.40415)),
    ],
)
def test_wilson_intervals_match_published_values(hits, trials, expected):
    interval = wilson_interval(hits, trials)
    assert interval == pytest.approx(expected, abs=1e-5)
    assert interval.low >= 0
    assert interval.high <= 1


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(hits, trials):
    with pytest.raises(ValueError, match="hits in"):
        wilson_interval(hits, trials)


def test_each_image_metric_gets_its_interval_as_a_json_list():
    scores, labels = _scores()
    metrics = image_metrics(scores, labels, threshold=0.5).to_json()
    intervals = image_metric_intervals(scores, labels, threshold=0.5, generator=_rng())
    assert list(intervals) == [f"{key}_ci95" for key in metrics]
    for key, value in metrics.items():
        interval = intervals[f"{key}_ci95"]
        assert type(interval) is list
        assert [type(end) for end in interval] == [float, float]
        assert interval[0] < value < interval[1]


def test_no_false_alarm_in_20_does_not_read_as_never():
    scores, labels = _scores(n_normal=20, n_anomalous=5, shift=100)
    intervals = image_metric_intervals(scores, labels, threshold=50, generator=_rng())
    assert intervals["false_alarm_rate_ci95"] == pytest.approx([0, 0.161], abs=1e-3)
    assert intervals["recall_ci95"] == pytest.approx([0.566, 1], abs=1e-3)


def test_a_metric_without_value_has_no_interval():
    intervals = image_metric_intervals(
        [1.0, 2.0], [0, 0], threshold=3, generator=_rng()
    )
    defined = [key for key, interval in intervals.items() if interval is not None]
    assert defined == ["false_alarm_rate_ci95"]
    assert len(intervals) == 5
