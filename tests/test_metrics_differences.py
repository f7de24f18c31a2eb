"""Differences of two engines: by hand, and what must not vanish."""

import json
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from pyimgano.metrics import EngineDifferences
from pyimgano_runtime.check import difference_of_range, relative_difference

ROUNDING = 1e-12  # float64 sums in another order


def _differences(pairs, threshold=10.0):
    """Compare (reference, candidate) scores, without maps."""
    differences = EngineDifferences(threshold)
    for index, (reference, candidate) in enumerate(pairs):
        differences.add(f"{index}.png", (reference, None), (candidate, None))
    return differences.to_json()


def _map_differences(*pairs):
    """Compare (reference, candidate) maps; the scores are the same."""
    differences = EngineDifferences(10.0)
    for index, maps in enumerate(pairs):
        reference, candidate = (None if m is None else np.float32(m) for m in maps)
        differences.add(f"{index}.png", (1.0, reference), (1.0, candidate))
    return differences.to_json()


def test_score_differences_computed_by_hand():
    report = _differences([(1, 1.5), (4, 4), (8, 6), (12, 13)])
    assert report["max_abs_score_diff"] == 2
    assert report["max_rel_score_diff"] == pytest.approx(0.5 / 1.5)
    # Differences 0, 0.5, 1, 2: 99 % of the way over 3 steps is 0.97 into the last.
    assert report["p99_abs_score_diff"] == pytest.approx(1 + 0.97)
    assert report["min_threshold_distance"] == 2
    assert report["label_flips"] == 0


def test_a_flip_names_the_picture_and_the_references_distance():
    report = _differences([(9.5, 10.25), (12, 12), (11, 8)])
    assert report["label_flips"] == 2
    assert report["flipped_images"] == ["0.png", "2.png"]
    assert report["flips"] == [
        {"input": "0.png", "reference": 9.5, "score": 10.25, "distance": 0.5},
        {"input": "2.png", "reference": 11.0, "score": 8.0, "distance": 1.0},
    ]
    assert report["min_threshold_distance"] == 0.5


def test_labels_are_those_of_float32_scores():
    # Equal as float32: both are anomalies, and the distance is none.
    threshold = np.float32(0.1)
    report = _differences([(float(threshold), 0.1)], threshold=0.1)
    assert report["label_flips"] == 0
    assert report["min_threshold_distance"] == 0
    below = float(np.nextafter(threshold, np.float32(0)))
    assert _differences([(0.1, below)], threshold=0.1)["label_flips"] == 1


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([10, 20, 30, 40], 1.0),
        ([20, 10, 30, 40], 0.8),  # 1 - 6 * (1 + 1) / (4 * 15)
        ([4, 3, 2, 1], -1.0),
        ([5, 5, 5, 5], 0.0),  # all order is lost
    ],
)
def test_score_spearman_compares_the_order(candidates, expected):
    report = _differences(list(zip([1, 2, 3, 4], candidates, strict=True)))
    assert report["score_spearman"] == pytest.approx(expected, abs=ROUNDING)
    assert -1 <= report["score_spearman"] <= 1


def test_score_spearman_needs_three_pictures_and_an_order():
    assert _differences([(1, 1), (2, 2)])["score_spearman"] is None
    assert _differences([(1, 1), (2, 2), (3, 3)])["score_spearman"] == 1.0
    assert _differences([(5, 6)] * 4)["score_spearman"] is None


def test_map_differences_computed_by_hand():
    report = _map_differences(
        ([[0, 1], [2, 4]], [[0, 1], [2, 3]]),  # 1 of a range of 4
        ([[0, 0], [0, 2]], [[1.5, 0], [0, 2]]),  # 1.5 of a range of 2
        ([[0, 1], [2, 3]], [[0, 1], [2, 3]]),
    )
    assert report["max_abs_map_diff"] == 1.5
    assert report["p99_abs_map_diff"] == pytest.approx(1 + 0.98 * 0.5)
    assert report["max_map_diff_of_range"] == pytest.approx(0.75)


def test_map_spearman_is_that_of_the_worst_picture():
    same = ([[1, 2], [3, 4]], [[1, 2], [3, 4]])
    swapped = ([[1, 2], [3, 4]], [[2, 1], [3, 4]])
    assert _map_differences(same)["map_spearman"] == 1.0
    for order in ([same, swapped, same], [swapped, same]):
        report = _map_differences(*order)
        assert report["map_spearman"] == pytest.approx(0.8)


def test_a_map_that_lost_all_order_counts_as_uncorrelated():
    same = ([[1, 2], [3, 4]], [[1, 2], [3, 4]])
    flat = ([[1, 2], [3, 4]], [[2, 2], [2, 2]])
    assert _map_differences(same, flat)["map_spearman"] == 0.0
    both_flat = ([[1, 1]], [[1, 1]])
    assert _map_differences(both_flat)["map_spearman"] is None
    assert _map_differences(both_flat, same)["map_spearman"] == 1.0


def test_differences_agree_with_their_definitions_on_random_outputs():
    generator = np.random.default_rng(0)
    pairs = []
    for _ in range(20):
        reference = generator.normal(size=(6, 8)).astype(np.float32)
        noise = generator.normal(scale=0.1, size=(6, 8))
        pairs.append((reference, (reference + noise).astype(np.float32)))
    differences = EngineDifferences(1.7)
    for reference, candidate in pairs:
        differences.add(
            "picture.png",
            (float(reference.max()), reference),
            (float(candidate.max()), candidate),
        )
    report = differences.to_json()
    scores = [(float(r.max()), float(c.max())) for r, c in pairs]
    largest = [np.abs(r.astype(np.float64) - c).max() for r, c in pairs]
    expected = {
        "max_rel_score_diff": max(relative_difference(c, r) for r, c in scores),
        "score_spearman": spearmanr([r for r, _ in scores], [c for _, c in scores])[0],
        "max_abs_map_diff": max(largest),
        "p99_abs_map_diff": np.percentile(largest, 99),
        "max_map_diff_of_range": max(difference_of_range(c, r) for r, c in pairs),
        "map_spearman": min(spearmanr(r.ravel(), c.ravel())[0] for r, c in pairs),
    }
    for key, value in expected.items():
        assert report[key] == pytest.approx(value, abs=ROUNDING), key
    assert report["label_flips"] == sum((r >= 1.7) != (c >= 1.7) for r, c in scores)


def test_maps_are_left_out_where_an_engine_gives_none():
    report = _map_differences((None, None), ([[1, 2]], None), (None, [[1, 2]]))
    for key in ("max_abs_map_diff", "p99_abs_map_diff", "max_map_diff_of_range"):
        assert report[key] is None
    assert report["map_spearman"] is None
    assert report["max_abs_score_diff"] == 0


def test_without_pictures_there_are_no_numbers():
    report = _differences([])
    lists = ("label_flips", "flipped_images", "flips")
    assert [report.pop(key) for key in lists] == [0, [], []]
    assert set(report.values()) == {None}


def test_the_largest_float32_difference_stays_finite():
    largest = float(np.finfo(np.float32).max)
    report = _map_differences(([[-largest, 0]], [[largest, 0]]))
    assert report["max_abs_map_diff"] == 2 * largest
    report = _differences([(-largest, largest)])
    assert report["max_abs_score_diff"] == 2 * largest
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_and_leaves_nothing(bad):
    good = (1.0, np.float32([[1, 2]]))
    differences = EngineDifferences(10.0)
    differences.add("good.png", good, good)
    before = differences.to_json()
    broken_map = (1.0, np.float32([[1, bad]]))
    for reference, candidate, what in [
        ((bad, None), (1.0, None), "reference score"),
        ((1.0, None), (bad, None), "candidate score"),
        (broken_map, good, "1 of 2 pixels of the reference map"),
        (good, broken_map, "1 of 2 pixels of the candidate map"),
    ]:
        with pytest.raises(ValueError, match=rf"bad\.png: .*{what}"):
            differences.add("bad.png", reference, candidate)
    assert differences.to_json() == before


def test_maps_of_different_shapes_are_refused():
    # numpy would stretch one of them without a word.
    with pytest.raises(ValueError, match=r"0\.png.*\(1, 2\) and \(2, 2\)"):
        _map_differences(([[1, 2]], [[1, 2], [3, 4]]))


def test_the_report_is_plain_json():
    report = _map_differences(*[([[1, 2]], [[1, 2.5]])] * 3)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
