"""95 % intervals of image metrics.

Scores of the two classes are resampled separately (stratified), so no resample lacks
a class, and the percentiles of the resampled metric are the interval (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Images are taken as
independent: several photographs of one part make the true interval wider.

The bootstrap cannot see what the sample lacks: perfectly separated scores give
[1, 1], whatever the number of images. For the two rates that matter most on the line,
recall and false-alarm rate, 0 of 20 must not read as "never", so they get Wilson's
interval for a proportion instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyimgano.metrics.image import (
    auroc,
    average_precision,
    check_scores_and_labels,
    check_threshold,
    f1_at_threshold,
)

__all__ = [
    "Interval",
    "bootstrap_difference",
    "bootstrap_interval",
    "image_metric_intervals",
    "wilson_interval",
]

# metric(scores (n,) float32, labels (n,) bool) -> value
Metric = Callable[[NDArray[np.float32], NDArray[np.bool_]], float]
# metric of many resamples at once, from how often each of the k distinct scores,
# ascending, was drawn: (normal (r, k), anomalous (r, k)) -> values (r,)
_CountMetric = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]

_TAILS = (0.025, 0.975)
_Z_95 = 1.959963984540054  # 97.5 % point of the standard normal distribution
MIN_RESAMPLES = 100  # fewer leave less than three values in a 2.5 % tail
_CELLS_PER_CHUNK = 2**20  # images x resamples: holds memory to some 45 MB


class Interval(NamedTuple):
    """A 95 % interval; in JSON `[low, high]`."""

    low: float
    high: float


def bootstrap_interval(
    metric: Metric,
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    generator: np.random.Generator,
    n_resamples: int = 1000,
) -> Interval:
    """The 95 % percentile interval of a metric.

    `auroc` and `average_precision` are computed for many resamples at once (1000
    resamples of 500 images in tens of milliseconds); any other callable is called
    once a resample.

    Args:
        metric: called with scores (n,) float32 and labels (n,) bool.
        scores: (n,) finite, higher means more anomalous; read as float32.
        labels: (n,) 0 for normal, 1 for anomalous; both must occur.
        generator: the same state gives the same interval.
        n_resamples: at least 100.

    Raises:
        ValueError: malformed input, a missing class, too few resamples, or a metric
            that returned a value that is not finite.
    """
    scores_f32, anomalous = check_scores_and_labels(scores, labels)
    values = [
        _metric_values(metric, scores_f32, anomalous, resample)
        for resample in _resamples(anomalous, generator, n_resamples)
    ]
    return _percentiles(np.concatenate(values))


def bootstrap_difference(
    metric: Metric,
    reference_scores: ArrayLike,
    candidate_scores: ArrayLike,
    labels: ArrayLike,
    *,
    generator: np.random.Generator,
    n_resamples: int = 1000,
) -> Interval:
    """The 95 % percentile interval of candidate minus reference, same images.

    Both are computed on the same resamples, so what is hard in an image cancels; the
    difference is distinguishable from none when the interval leaves out 0.

    Args:
        metric: as for `bootstrap_interval`.
        reference_scores: (n,) scores of the detector to compare with.
        candidate_scores: (n,) scores of the other detector, same image order.
        labels: (n,) 0 for normal, 1 for anomalous; both must occur.
        generator: the same state gives the same interval.
        n_resamples: at least 100.

    Raises:
        ValueError: as for `bootstrap_interval`.
    """
    reference_f32, anomalous = check_scores_and_labels(reference_scores, labels)
    candidate_f32, _ = check_scores_and_labels(candidate_scores, labels)
    values = [
        _metric_values(metric, candidate_f32, anomalous, resample)
        - _metric_values(metric, reference_f32, anomalous, resample)
        for resample in _resamples(anomalous, generator, n_resamples)
    ]
    return _percentiles(np.concatenate(values))


def image_metric_intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    threshold: float | np.float32,
    generator: np.random.Generator,
    n_resamples: int = 1000,
) -> dict[str, list[float] | None]:
    """`<key>_ci95: [low, high]` for each key of `ImageMetrics.to_json`.

    None where the metric itself is None. Bootstrap for `image_auroc`, `image_ap` and
    `image_f1`, Wilson for `recall` and `false_alarm_rate`; arguments and errors as for
    `image_metrics` and `bootstrap_interval`.
    """
    scores_f32, anomalous = check_scores_and_labels(scores, labels)
    limit = check_threshold(threshold)
    n_anomalous = int(anomalous.sum())
    n_normal = len(anomalous) - n_anomalous
    flagged = scores_f32 >= limit

    intervals: dict[str, Interval | None] = dict.fromkeys(
        ("image_auroc", "image_ap", "image_f1", "recall", "false_alarm_rate")
    )
    if n_normal and n_anomalous:
        f1: Metric = partial(f1_at_threshold, threshold=limit)
        metrics = {"image_auroc": auroc, "image_ap": average_precision, "image_f1": f1}
        for key, metric in metrics.items():
            intervals[key] = bootstrap_interval(
                metric,
                scores_f32,
                anomalous,
                generator=generator,
                n_resamples=n_resamples,
            )
    if n_anomalous:
        hits = int((flagged & anomalous).sum())
        intervals["recall"] = wilson_interval(hits, n_anomalous)
    if n_normal:
        false_alarms = int((flagged & ~anomalous).sum())
        intervals["false_alarm_rate"] = wilson_interval(false_alarms, n_normal)
    return {
        f"{key}_ci95": None if interval is None else list(interval)
        for key, interval in intervals.items()
    }


def wilson_interval(n_hits: int, n_trials: int) -> Interval:
    """Wilson's 95 % score interval of the proportion `n_hits / n_trials`.

    Unlike the bootstrap it has width at 0 and 1: 0 of 20 gives [0, 0.16]. Source:
    Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    Raises:
        ValueError: no trial, or hits outside 0..n_trials.
    """
    if n_trials < 1 or not 0 <= n_hits <= n_trials:
        raise ValueError(f"found {n_hits} hits in {n_trials} trials")
    rate = n_hits / n_trials
    shrink = 1 + _Z_95**2 / n_trials
    centre = (rate + _Z_95**2 / (2 * n_trials)) / shrink
    spread = rate * (1 - rate) / n_trials + _Z_95**2 / (4 * n_trials**2)
    half_width = _Z_95 * spread**0.5 / shrink
    # The ends are exactly 0 and 1 there; rounding leaves 1e-17.
    return Interval(
        0.0 if n_hits == 0 else centre - half_width,
        1.0 if n_hits == n_trials else centre + half_width,
    )


class _Resample(NamedTuple):
    """Image indices of r resamples, drawn with replacement within each class."""

    normal: NDArray[np.int64]  # (r, n_normal)
    anomalous: NDArray[np.int64]  # (r, n_anomalous)


def _resamples(
    anomalous: NDArray[np.bool_], generator: np.random.Generator, n_resamples: int
) -> Iterator[_Resample]:
    """`n_resamples` resamples, in chunks of bounded memory."""
    if n_resamples < MIN_RESAMPLES:
        raise ValueError(
            f"n_resamples must be at least {MIN_RESAMPLES}: found {n_resamples}"
        )
    normal_images = np.flatnonzero(~anomalous)
    anomalous_images = np.flatnonzero(anomalous)
    if not (normal_images.size and anomalous_images.size):
        raise ValueError(
            "needs normal and anomalous images: "
            f"found {normal_images.size} and {anomalous_images.size}"
        )
    chunk = max(1, _CELLS_PER_CHUNK // len(anomalous))
    for start in range(0, n_resamples, chunk):
        rows = min(chunk, n_resamples - start)
        yield _Resample(
            normal=_draw(normal_images, rows, generator),
            anomalous=_draw(anomalous_images, rows, generator),
        )


def _draw(
    images: NDArray[np.int64], rows: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    drawn = generator.integers(len(images), size=(rows, len(images)))
    return images[drawn]  # (rows, len(images))


def _metric_values(
    metric: Metric,
    scores_f32: NDArray[np.float32],
    anomalous: NDArray[np.bool_],
    resample: _Resample,
) -> NDArray[np.float64]:
    """The metric of each resample, (r,)."""
    count_metric = _COUNT_METRICS.get(metric)
    if count_metric is not None:
        distinct, ranks = np.unique(scores_f32, return_inverse=True)
        return count_metric(
            _counts(ranks[resample.normal], len(distinct)),
            _counts(ranks[resample.anomalous], len(distinct)),
        )

    images = np.concatenate([resample.normal, resample.anomalous], axis=1)  # (r, n)
    values = np.array([metric(scores_f32[row], anomalous[row]) for row in images])
    if not np.isfinite(values).all():
        raise ValueError("the metric is NaN or infinite on a resample")
    return values


def _counts(ranks: NDArray[np.int64], n_distinct: int) -> NDArray[np.int64]:
    """How often each rank occurs in each row: (r, n) -> (r, n_distinct)."""
    rows = len(ranks)
    offsets = np.arange(rows)[:, None] * n_distinct
    flat = np.bincount((ranks + offsets).ravel(), minlength=rows * n_distinct)
    return flat.reshape(rows, n_distinct)


def _auroc_of_counts(
    normal: NDArray[np.int64], anomalous: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Twice the rightly ordered pairs plus the ties, over twice the pairs."""
    normal_up_to = np.cumsum(normal, axis=1)  # (r, k)
    twice_won = (anomalous * (2 * normal_up_to - normal)).sum(axis=1)
    pairs: NDArray[np.int64] = normal_up_to[:, -1] * anomalous.sum(axis=1)
    values: NDArray[np.float64] = twice_won / (2 * pairs)
    return values


def _average_precision_of_counts(
    normal: NDArray[np.int64], anomalous: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Precision at each distinct score, weighted by the anomalies it adds."""
    hits = np.cumsum(anomalous[:, ::-1], axis=1)  # (r, k), score falling
    flagged = hits + np.cumsum(normal[:, ::-1], axis=1)
    # Nothing is flagged yet above the highest drawn score: no hit, so no weight.
    precision = hits / np.maximum(flagged, 1)
    weighted = (precision * anomalous[:, ::-1]).sum(axis=1)
    values: NDArray[np.float64] = weighted / hits[:, -1]
    return values


# Functions here, not names: a caller passes the metric itself, and a test holds each
# pair equal.
_COUNT_METRICS: dict[Callable[..., Any], _CountMetric] = {
    auroc: _auroc_of_counts,
    average_precision: _average_precision_of_counts,
}


def _percentiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, _TAILS)
    return Interval(float(low), float(high))
