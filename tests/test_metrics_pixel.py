"""Pixel metrics against brute force, within the bounds that they state."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from pixel_brute_force import AUPRO_LIMITS as LIMITS
from pixel_brute_force import brute_force, seg_f1
from pyimgano.metrics import PixelMetrics, pixel

ROUNDING = 1e-11  # float64 sums in another order; measured below 1e-14
BINNED = ("pixel_auroc", *LIMITS, "oracle_seg_f1")


def _measure(images, threshold=None):
    metrics = PixelMetrics(threshold)
    for anomaly_map, mask in images:
        metrics.add(np.float32(anomaly_map), np.array(mask, bool))
    return metrics.result().to_json()


def _random_images(seed, *, n_images=3, size=(12, 10), n_levels=None):
    """Images of normal scores; two in three have a random, often ragged, mask."""
    generator = np.random.default_rng(seed)
    images = []
    for index in range(n_images):
        mask = np.zeros(size, bool)
        if index % 3 != 1:
            mask = generator.random(size) < 0.15
            mask[1:4, 2:6] = True
        scores = generator.normal(size=size) + 1.2 * mask
        if n_levels is not None:
            scores = np.clip(np.round(scores * 2), -n_levels, n_levels)
        images.append((scores.astype(np.float32), mask))
    return images


# Eleven normal pixels; a region of the two pixels 9 and 8, and one of the pixel 5.
# The 8 ties with one normal pixel, the 5 with two.
HAND_SCORES = [[8, 7, 5, 5, 1, 1, 1, 1, 1, 1, 9, 8, 1, 5]]
HAND_MASK = [[0] * 10 + [1, 1, 0, 1]]


def test_a_case_computed_by_hand():
    report = _measure([(HAND_SCORES, HAND_MASK)])
    # Thresholds 9, 8, 7, 5, 1: FPR 0, 1, 2, 4, 11 of 11; PRO 1/4, 1/2, 1/2, 1, 1.
    area = (1 / 11) * (1 / 4 + 1 / 2) / 2 + (1 / 11) * (1 / 2)
    rest = 0.3 - 2 / 11
    rise = 0.5 * rest / (2 / 11)
    area += rest * (1 / 2 + (1 / 2 + rise)) / 2
    assert report["aupro_0.3"] == pytest.approx(area / 0.3)
    at_limit = 1 / 4 + (1 / 4) * 0.05 / (1 / 11)
    assert report["aupro_0.05"] == pytest.approx((1 / 4 + at_limit) / 2)
    # 9 beats 11; 8 beats 10 and ties 1; 5 beats 7 and ties 2.
    assert report["pixel_auroc"] == pytest.approx((11 + 10.5 + 8) / 33)
    # At 8: 2 hits, 1 false, 1 missed; at 5: 3 hits, 4 false. Of all, 8 is best.
    assert report["oracle_seg_f1"] == pytest.approx(4 / 6)
    assert (report["n_images"], report["n_defect_regions"]) == (1, 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_levels", [1, 3, None])
def test_metrics_equal_brute_force_over_all_thresholds(seed, n_levels):
    images = _random_images(seed, n_levels=n_levels)
    report = _measure(images)
    for key, expected in brute_force(images).items():
        bound = report[f"{key}_error_bound"]
        if n_levels is not None:  # whole numbers never share a bin
            bound = 0.0
        assert abs(report[key] - expected) <= bound + ROUNDING, key


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("max_bins", [2, 4, 16, 64])
def test_the_stated_bounds_hold_for_bins_far_too_wide(seed, max_bins, monkeypatch):
    monkeypatch.setattr(pixel, "_MAX_BINS", max_bins)
    images = _random_images(seed)
    report = _measure(images)
    for key, expected in brute_force(images).items():
        bound = report[f"{key}_error_bound"]
        assert abs(report[key] - expected) <= bound + ROUNDING, key
        assert bound > 0, key
    # Bin edges are thresholds, too: the best of them is never above the best of all.
    assert report["oracle_seg_f1"] <= brute_force(images)["oracle_seg_f1"] + ROUNDING


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [-1, 0.5, 1.0, 2.5, 99])
@pytest.mark.parametrize("n_levels", [3, None])
def test_seg_f1_equals_brute_force(seed, threshold, n_levels):
    images = _random_images(seed, n_levels=n_levels)
    report = _measure(images, threshold)
    assert report["seg_f1"] == seg_f1(images, threshold)
    assert (
        report["seg_f1"]
        <= report["oracle_seg_f1"] + (report["oracle_seg_f1_error_bound"])
    )


def test_seg_f1_is_exact_in_bins_far_too_wide(monkeypatch):
    monkeypatch.setattr(pixel, "_MAX_BINS", 2)
    images = _random_images(1)
    assert _measure(images, 0.7)["seg_f1"] == seg_f1(images, 0.7)


def test_seg_f1_counts_all_pixels_of_all_images_together():
    first = ([[5, 5, 1, 1]], [[1, 0, 0, 0]])  # 1 hit, 1 false
    second = ([[1, 1, 5, 5]], [[1, 1, 1, 0]])  # 1 hit, 1 false, 2 missed
    normal = ([[5, 1, 1, 1]], [[0, 0, 0, 0]])  # 1 false
    report = _measure([first, second, normal], 3)
    assert report["seg_f1"] == pytest.approx(2 * 2 / (2 * 2 + 3 + 2))


def test_seg_f1_agrees_with_scikit_learn():
    images = _wide_images()
    scores = np.concatenate([scores.ravel() for scores, _ in images])
    truth = np.concatenate([mask.ravel() for _, mask in images])
    expected = f1_score(truth, scores >= np.float32(1.1))
    assert _measure(images, 1.1)["seg_f1"] == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("decimal", [0.1, 0.3, 0.7, 0.9])
def test_a_pixel_equal_to_the_threshold_as_float32_is_flagged(decimal):
    # 0.7 as float32 is below 0.7 as float64, 0.1 above.
    assert _measure([([[decimal, 0]], [[1, 0]])], decimal)["seg_f1"] == 1.0
    above = np.nextafter(np.float32(decimal), np.float32(1))
    assert _measure([([[decimal, 0]], [[1, 0]])], above)["seg_f1"] == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_pixel_threshold_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="threshold must be finite"):
        PixelMetrics(bad)


@pytest.mark.parametrize(
    ("threshold", "masks", "reason"),
    [
        (None, [[[1, 0]]], "no pixel threshold was given"),
        (1.5, [], "no image was added"),
        (1.5, [[[0, 0]]], "no defect pixel in the masks of 1 images"),
    ],
)
def test_seg_f1_is_none_with_a_reason(threshold, masks, reason):
    metrics = PixelMetrics(threshold)
    for mask in masks:
        metrics.add(np.float32([[1, 2]]), np.array(mask, bool))
    result = metrics.result()
    assert result.seg_f1 is None
    assert result.to_json()["seg_f1"] is None
    assert result.reasons["seg_f1"] == reason


def test_seg_f1_needs_no_normal_pixel():
    assert _measure([([[1, 2]], [[1, 1]])], 1.5)["seg_f1"] == pytest.approx(2 / 3)


def test_the_outcome_does_not_depend_on_the_rows_counted_at_a_time(monkeypatch):
    images = _random_images(2) + _random_images(3, size=(31, 7))
    whole = _measure(images, 0.7)
    for pixels in (1, 20, 100):
        monkeypatch.setattr(pixel, "_BLOCK_PIXELS", pixels)
        assert _measure(images, 0.7) == pytest.approx(whole, abs=ROUNDING)


def test_the_best_f1_is_sure_where_no_bin_mixes_both_classes(monkeypatch):
    # Wide bins hide scores, but each holds scores of one class.
    monkeypatch.setattr(pixel, "_MAX_BINS", 8)
    scores = np.float32([[1, 1.01, 1.02, 8, 8.01, 8.02]])
    report = _measure([(scores, [[0, 0, 0, 1, 1, 1]])])
    assert (report["oracle_seg_f1"], report["oracle_seg_f1_error_bound"]) == (1, 0)


def _wide_images(n_images=8):
    """Both signs and zero: the bins are as wide as they get."""
    generator = np.random.default_rng(7)
    images = []
    for index in range(n_images):
        mask = np.zeros((128, 128), bool)
        if index % 2:
            mask[20:60, 30:44] = mask[100:103, 90:120] = True
        scores = generator.normal(size=mask.shape) + 0.8 * mask
        images.append((scores.astype(np.float32), mask))
    return images


def test_auroc_of_large_maps_is_within_its_bound_of_scikit_learn():
    images = _wide_images()
    report = _measure(images)
    exact = roc_auc_score(
        np.concatenate([mask.ravel() for _, mask in images]),
        np.concatenate([scores.ravel() for scores, _ in images]).astype(np.float64),
    )
    bound = report["pixel_auroc_error_bound"]
    assert 0 < abs(report["pixel_auroc"] - exact) <= bound
    assert bound < 1e-4  # measured 3e-5, with an error of 6e-8


def test_bounds_of_smooth_positive_maps_are_negligible():
    images = [(1 + np.abs(scores), mask) for scores, mask in _wide_images()]
    report = _measure(images)
    for key in BINNED:
        assert report[f"{key}_error_bound"] < 2e-6, key  # measured 5e-7


def test_scores_far_from_zero_keep_their_resolution():
    # 20 top bits of a float32 would make bins of 0.25 at 1000.
    images = [(1000 + scores, mask) for scores, mask in _wide_images()]
    report = _measure(images)
    expected = roc_auc_score(
        np.concatenate([mask.ravel() for _, mask in images]),
        np.concatenate([scores.ravel() for scores, _ in images]).astype(np.float64),
    )
    assert report["pixel_auroc"] == pytest.approx(expected, abs=ROUNDING)
    assert report["pixel_auroc_error_bound"] == 0


def test_the_order_of_the_images_does_not_matter():
    # The ranges 1..2, tiny, and large make the bins wider in different steps.
    generator = np.random.default_rng(3)
    images = []
    for scale in (1.0, 1e-20, -1e10):
        mask = generator.random((16, 16)) < 0.3
        scores = scale * (1 + generator.random((16, 16)))
        images.append((scores.astype(np.float32), mask))
    first = _measure(images)
    assert first["pixel_auroc_error_bound"] > 0
    for order in ([2, 1, 0], [1, 0, 2], [1, 2, 0]):
        assert _measure([images[i] for i in order]) == pytest.approx(
            first, abs=ROUNDING
        )


def test_a_result_can_be_asked_for_in_between():
    images = _random_images(0)
    metrics = PixelMetrics()
    for scores, mask in images:
        metrics.add(scores, mask)
        metrics.result()
    assert metrics.result().to_json() == _measure(images)


def test_touching_corners_are_one_region():
    report = _measure([([[1, 0], [0, 1]], [[1, 0], [0, 1]])])
    assert report["n_defect_regions"] == 1


def test_a_small_region_counts_as_much_as_a_large_one():
    # The large region is found at once, the one-pixel region with the last pixel.
    scores = np.zeros((10, 10))
    mask = np.zeros((10, 10), bool)
    mask[:5] = mask[9, 9] = True
    scores[:5] = 2
    scores[9, 9] = -1
    report = _measure([(scores, mask)])
    assert report["aupro_0.3"] == pytest.approx(0.5)
    assert report["pixel_auroc"] == pytest.approx(50 / 51)


def test_normal_pixels_of_normal_images_count_as_false_alarms():
    defective = ([[5, 1, 1, 1]], [[1, 0, 0, 0]])
    alone = _measure([defective])
    with_normal = _measure([defective, ([[9, 9, 9, 9]], [[0, 0, 0, 0]])])
    assert alone["pixel_auroc"] == alone["aupro_0.3"] == 1.0
    assert with_normal["pixel_auroc"] == pytest.approx(3 / 7)
    assert with_normal["aupro_0.3"] == 0.0


def test_a_constant_map_is_chance_and_exact():
    report = _measure([(np.full((4, 5), 3.0), np.arange(20).reshape(4, 5) < 3)])
    assert report["pixel_auroc"] == 0.5
    assert report["aupro_0.3"] == pytest.approx(0.15)
    assert report["pixel_auroc_error_bound"] == report["aupro_0.3_error_bound"] == 0


def test_both_zeros_are_one_score():
    report = _measure([([[0.0, -0.0]], [[1, 0]])])
    assert report["pixel_auroc"] == 0.5
    report = _measure([([[-0.0, 0.0]], [[1, 0]])])
    assert report["pixel_auroc"] == 0.5


def test_negative_scores_and_the_whole_float32_range_keep_their_order():
    tiny, largest = 1e-30, np.finfo(np.float32).max
    rising = np.float32([[-largest, -2, -1, -tiny, 0, tiny, 1, 2, largest]])
    for split in range(1, 9):
        mask = np.arange(9)[None] >= split
        assert _measure([(rising, mask)])["pixel_auroc"] == 1.0


def test_strided_maps_and_masks_are_read_as_they_look():
    scores, mask = _random_images(4)[0]
    assert _measure([(scores, mask)]) == pytest.approx(_measure([(scores.T, mask.T)]))
    metrics = PixelMetrics()
    metrics.add(scores[::-2, ::2], mask[::-2, ::2])
    copied = _measure([(scores[::-2, ::2].copy(), mask[::-2, ::2].copy())])
    assert metrics.result().to_json() == copied


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_and_leaves_nothing(bad):
    metrics = PixelMetrics()
    for scores, mask in _random_images(0):
        metrics.add(scores, mask)
    before = metrics.result()
    with pytest.raises(ValueError, match="1 of 2 scores"):
        metrics.add(np.float32([[1e30, bad]]), np.array([[True, False]]))
    assert metrics.result() == before


@pytest.mark.parametrize(
    ("map_shape", "mask_shape"), [((2, 3), (3, 2)), ((6,), (6,)), ((0, 3), (0, 3))]
)
def test_shapes_that_do_not_fit_are_refused(map_shape, mask_shape):
    with pytest.raises(ValueError, match="shape"):
        PixelMetrics().add(np.zeros(map_shape, np.float32), np.zeros(mask_shape, bool))


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="found float64 and bool"):
        PixelMetrics().add(np.zeros((2, 2)), np.zeros((2, 2), bool))
    with pytest.raises(TypeError, match="found float32 and uint8"):
        PixelMetrics().add(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ([], "no image was added"),
        ([[[0, 0]], [[0, 0]]], "no defect pixel in the masks of 2 images"),
        ([[[1, 1]]], "no normal pixel in the masks of 1 images"),
    ],
)
def test_undefined_metrics_are_none_with_a_reason(masks, reason):
    metrics = PixelMetrics()
    for mask in masks:
        metrics.add(np.float32([[1, 2]]), np.array(mask, bool))
    result = metrics.result()
    report = result.to_json()
    for key in BINNED:
        assert report[key] is None
        assert report[f"{key}_error_bound"] is None
        assert result.reasons[key] == reason
    assert report["n_images"] == len(masks)


def test_the_report_holds_plain_numbers():
    report = _measure(_random_images(0), 0.5)
    assert {key: type(value) for key, value in report.items()} == {
        "pixel_auroc": float,
        "pixel_auroc_error_bound": float,
        "aupro_0.3": float,
        "aupro_0.3_error_bound": float,
        "aupro_0.05": float,
        "aupro_0.05_error_bound": float,
        "oracle_seg_f1": float,
        "oracle_seg_f1_error_bound": float,
        "seg_f1": float,
        "n_images": int,
        "n_defect_regions": int,
    }


def test_memory_does_not_grow_with_the_number_of_images():
    generator = np.random.default_rng(0)
    metrics = PixelMetrics()
    mask = np.zeros((128, 128), bool)
    mask[5:50, 5:100] = True
    # Neighbouring float32 numbers, each a bin of its own, until there are too many.
    first_code = np.float32(1).view(np.uint32)
    neighbours = np.arange(first_code, first_code + 3 * 2**19, dtype=np.uint32)
    runs = neighbours.view(np.float32).reshape(-1, 128, 128)
    held = []
    tracemalloc.start()
    try:
        for run in runs:
            metrics.add(run, mask)
            held.append(tracemalloc.get_traced_memory()[0])
        for index in range(60):
            scores = generator.normal(size=mask.shape) * 1.5**index
            metrics.add(scores.astype(np.float32), mask)
            held.append(tracemalloc.get_traced_memory()[0])
        metrics.result()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 25e6 < max(held) < 26e6  # 3 * 2**20 float64
    assert peak < 100e6  # measured 75 MB
    assert metrics.result().n_images == len(held)


def test_a_large_map_needs_little_more_memory_than_twice_its_own():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((4096, 4096), dtype=np.float32)
    mask = np.zeros(scores.shape, bool)
    mask[100:3000, 50:2000] = True
    metrics = PixelMetrics(0.5)
    tracemalloc.start()
    try:
        metrics.add(scores, mask)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6 + 2 * scores.nbytes  # 234 MB; measured 109
