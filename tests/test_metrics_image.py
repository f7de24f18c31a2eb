"""Image metrics: hand-computed cases, ties, the threshold rule, missing classes."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score

from pyimgano.metrics import (
    auroc,
    average_precision,
    f1_at_threshold,
    image_metrics,
)

REPORT_KEYS = ["image_auroc", "image_ap", "image_f1", "recall", "false_alarm_rate"]

# Two ties across the classes. Pairs (anomalous, normal), 12 in all:
# 4 beats 1 2 2 3 (4), 3 beats 1 2 2 and ties 3 (3.5), 2 beats 1 and ties 2 2 (2).
SCORES = np.array([1, 2, 2, 3, 2, 3, 4], np.float32)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1])


def test_auroc_counts_a_tie_half():
    assert auroc(SCORES, LABELS) == pytest.approx(9.5 / 12)


def test_average_precision_takes_tied_images_together():
    # Thresholds 4, 3, 2 flag 1, 3, 6 images with 1, 2, 3 hits.
    expected = (1 / 1 + 2 / 3 + 3 / 6) / 3
    assert average_precision(SCORES, LABELS) == pytest.approx(expected)


def test_a_score_equal_to_the_threshold_is_anomalous():
    metrics = image_metrics(SCORES, LABELS, threshold=3.0)
    assert metrics.recall == pytest.approx(2 / 3)  # 3 and 4
    assert metrics.false_alarm_rate == pytest.approx(1 / 4)  # the normal 3
    assert metrics.image_f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


@pytest.mark.parametrize("decimal", [0.1, 0.3, 0.7, 0.9])
def test_threshold_and_scores_are_compared_as_float32(decimal):
    # 0.7 as float32 is below 0.7 as float64, 0.1 above: either way they are equal.
    metrics = image_metrics(np.float32([0, decimal]), [0, 1], threshold=decimal)
    assert metrics.recall == 1.0
    metrics = image_metrics([0, decimal], [0, 1], threshold=np.float32(decimal))
    assert metrics.recall == 1.0


def test_the_next_float32_above_the_score_does_not_flag_it():
    above = np.nextafter(np.float32(0.7), np.float32(1))
    metrics = image_metrics([0.7, 0.7], [0, 1], threshold=above)
    assert (metrics.recall, metrics.false_alarm_rate) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_at_the_threshold_agree_with_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    labels = np.arange(60) % 3 == 0
    scores = generator.integers(0, 8, 60).astype(np.float32) + 2 * labels
    metrics = image_metrics(scores, labels, threshold=5)
    assert metrics.image_f1 == pytest.approx(f1_score(labels, scores >= 5))
    assert metrics.recall == pytest.approx(recall_score(labels, scores >= 5))
    specificity = recall_score(~labels, scores < 5)
    assert metrics.false_alarm_rate == pytest.approx(1 - specificity)


def test_f1_is_zero_when_nothing_is_flagged():
    assert f1_at_threshold(SCORES, LABELS, threshold=99) == 0.0


def test_json_has_exactly_the_report_keys_with_plain_floats():
    report = image_metrics(SCORES, LABELS, threshold=3).to_json()
    assert list(report) == REPORT_KEYS
    assert all(type(value) is float for value in report.values())


@pytest.mark.parametrize(
    ("labels", "defined"),
    [([0, 0], {"false_alarm_rate"}), ([1, 1], {"recall"}), ([], set())],
)
def test_a_missing_class_gives_none_and_a_reason(labels, defined):
    metrics = image_metrics([5.0] * len(labels), labels, threshold=3)
    report = metrics.to_json()
    assert {key for key, value in report.items() if value is not None} == defined
    assert set(metrics.reasons) == set(REPORT_KEYS) - defined
    assert all(str(len(labels)) in reason for reason in metrics.reasons.values())


def test_both_classes_give_no_reason():
    assert image_metrics(SCORES, LABELS, threshold=3).reasons == {}


def test_scores_of_the_largest_float32_range_do_not_overflow():
    largest = float(np.finfo(np.float32).max)
    metrics = image_metrics([-largest, largest], [0, 1], threshold=0)
    assert metrics.image_auroc == metrics.image_ap == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_score_that_is_not_finite_is_refused_with_its_place(bad):
    with pytest.raises(ValueError, match="at index 1"):
        image_metrics([1.0, bad], [0, 1], threshold=3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_threshold_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="threshold must be finite"):
        image_metrics(SCORES, LABELS, threshold=bad)


@pytest.mark.parametrize("bad", [2, -1, 0.5, np.nan])
def test_a_label_other_than_0_and_1_is_refused(bad):
    with pytest.raises(ValueError, match="labels must be 0"):
        image_metrics([1.0, 2.0], [0, bad], threshold=3)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        image_metrics([1.0, 2.0], [0, 1, 1], threshold=3)
    with pytest.raises(ValueError, match="shape"):
        image_metrics([[1.0, 2.0]], [[0, 1]], threshold=3)


@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_a_single_metric_refuses_a_missing_class(metric):
    with pytest.raises(ValueError, match="found 2 and 0"):
        metric([1.0, 2.0], [0, 0])


def test_importing_the_metrics_loads_no_heavy_package():
    program = (
        "import sys, pyimgano.metrics; "
        "print({'sklearn', 'scipy', 'cv2', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"
