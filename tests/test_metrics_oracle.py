"""Oracle image values: by hand with ties, and by brute force over all thresholds."""

import math

import numpy as np
import pytest

from pyimgano.metrics import f1_at_threshold, image_metrics, oracle_image_metrics

KEYS = {"oracle_image_f1", "oracle_threshold", "oracle_recall_at_promise", "reasons"}

# Normals 1 2 2 3, anomalies 2 3 4: two ties across the classes.
SCORES = np.array([1, 2, 2, 3, 2, 3, 4], np.float32)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1])


def _oracle(scores, labels, rate=None):
    return oracle_image_metrics(scores, labels, promised_false_alarm_rate=rate)


def test_the_best_f1_takes_tied_images_together():
    # Thresholds 4, 3, 2, 1 flag 1, 3, 6, 7 images with 1, 2, 3, 3 hits.
    report = _oracle(SCORES, LABELS)
    assert report["oracle_image_f1"] == pytest.approx(4 / 6)  # 2/4, 4/6, 6/9, 6/10
    # 3 and 2 are equally good: the higher flags fewer.
    assert report["oracle_threshold"] == 3.0


@pytest.mark.parametrize(
    ("rate", "recall"),
    [
        (0.0, 1 / 3),  # above 3: only the 4
        (0.24, 1 / 3),
        (0.25, 2 / 3),  # above 2: the normal 3 is one of four
        (0.74, 2 / 3),  # both normal 2 go together: three of four
        (0.75, 1.0),  # above 1
        (1.0, 1.0),
    ],
)
def test_recall_at_the_promise_flags_tied_normals_together(rate, recall):
    report = _oracle(SCORES, LABELS, rate)
    assert report["oracle_recall_at_promise"] == pytest.approx(recall)


def test_the_lowest_threshold_may_lie_between_the_scores():
    # Just above the normal 1 no normal is flagged, and the anomaly 1.5 is.
    report = _oracle([0, 1, 1.5, 0.5], [0, 0, 1, 1], 0.0)
    assert report["oracle_recall_at_promise"] == pytest.approx(1 / 2)


def test_an_anomaly_that_equals_a_forbidden_normal_as_float32_is_not_found():
    # 0.1 as float64 is below float32(0.1), which the device sees in both.
    report = _oracle([np.float64(0.1), np.float64(np.float32(0.1))], [0, 1], 0.0)
    assert report["oracle_recall_at_promise"] == 0.0


@pytest.mark.parametrize("n", [100, 29, 30])
def test_a_promise_of_whole_normals_is_not_lost_to_rounding(n):
    normals, anomalies = np.arange(n), np.arange(n) + 0.5
    scores = np.concatenate([normals, anomalies])
    for allowed in range(n):
        report = _oracle(scores, [0] * n + [1] * n, allowed / n)
        # Just above normal n - 1 - allowed lie it plus a half and all higher ones.
        assert report["oracle_recall_at_promise"] == (allowed + 1) / n


def _brute_force(scores, labels, rate):
    """Every number that can make a difference as a threshold, and one above all."""
    scores = np.float32(scores)
    beyond = np.nextafter(scores, np.float32(np.inf))
    best_f1, recalls = (-1.0, math.nan), []
    for threshold in sorted({*scores.tolist(), *beyond.tolist()}, reverse=True):
        f1 = f1_at_threshold(scores, labels, threshold=threshold)
        if f1 > best_f1[0] and threshold in scores:
            best_f1 = (f1, threshold)
        at = image_metrics(scores, labels, threshold=threshold)
        if at.false_alarm_rate <= rate:
            recalls.append(at.recall)
        assert f1 <= best_f1[0] or best_f1[0] < 0
    return *best_f1, recalls[-1]  # thresholds fall: the last is the lowest


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("levels", [2, 8, None])
def test_oracle_values_equal_brute_force_over_all_thresholds(seed, rate, levels):
    generator = np.random.default_rng(seed)
    labels = np.arange(30) % 3 == 0
    scores = generator.normal(size=30) + labels
    if levels is not None:
        scores = np.round(scores * levels / 4)
    f1, threshold, recall = _brute_force(scores, labels, rate)
    report = _oracle(scores, labels, rate)
    assert report["oracle_image_f1"] == pytest.approx(f1)
    assert report["oracle_threshold"] == threshold
    assert report["oracle_recall_at_promise"] == pytest.approx(recall)


def test_f1_at_the_oracle_threshold_is_the_oracle_f1():
    report = _oracle([0.1, 0.7, 0.3, 0.9], [0, 0, 1, 1])
    at = image_metrics(
        [0.1, 0.7, 0.3, 0.9], [0, 0, 1, 1], threshold=report["oracle_threshold"]
    )
    assert at.image_f1 == report["oracle_image_f1"] == pytest.approx(0.8)


def test_without_a_promise_there_is_no_recall_at_it():
    report = _oracle(SCORES, LABELS)
    assert report["oracle_recall_at_promise"] is None
    assert list(report["reasons"]) == ["oracle_recall_at_promise"]
    assert (
        "promises no false-alarm rate" in report["reasons"]["oracle_recall_at_promise"]
    )


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
@pytest.mark.parametrize("rate", [None, 0.1])
def test_a_missing_class_gives_none_and_a_reason(labels, rate):
    report = _oracle([5.0] * len(labels), labels, rate)
    reasons = report.pop("reasons")
    assert set(report) == set(reasons) == KEYS - {"reasons"}
    assert set(report.values()) == {None}
    assert all("both classes" in reason for reason in reasons.values())


def test_the_report_holds_plain_numbers():
    report = _oracle(SCORES, LABELS, 0.1)
    assert set(report) == KEYS
    assert report.pop("reasons") == {}
    assert {type(value) for value in report.values()} == {float}


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_a_promise_outside_0_to_1_is_refused(bad):
    with pytest.raises(ValueError, match=r"must be in 0\.\.1"):
        _oracle(SCORES, LABELS, bad)


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="at index 1"):
        _oracle([1.0, math.nan], [0, 1])
