"""Regions against cases that were measured by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.map_grid import MapGrid, judged_cells
from pyimgano_runtime.region_rules import RegionRules, Roi
from pyimgano_runtime.regions import (
    FoundRegions,
    find_regions,
    judged_values,
    label_of,
    region_mask,
)

RULES = RegionRules()
Cells = tuple[slice, slice]


def flat(*blocks: tuple[Cells, float], size: tuple[int, int] = (8, 8)) -> npt.NDArray:
    values = np.zeros(size, np.float32)
    for cells, value in blocks:
        values[cells] = value
    return values


def found(
    values: npt.NDArray,
    size: tuple[int, int] = (80, 80),
    *,
    threshold: float = 1.0,
    mode: str = "stretch",
    roi: Roi | None = None,
    **rules: object,
) -> FoundRegions:
    return find_regions(
        values,
        size,
        threshold=threshold,
        mode=mode,
        roi=roi,
        rules=replace(RULES, **rules),
    )


BAR = (slice(2, 4), slice(1, 5))  # rows, columns: 2 x 4 cells


def test_a_bar_is_measured_in_pixels_of_the_picture() -> None:
    values = flat((BAR, 2.0))
    values[2, 1] = 3.0
    (bar,) = found(values, (80, 160)).regions  # a cell is 10 high and 20 wide
    assert bar.bbox == (20, 20, 100, 40)
    assert bar.bbox_map == (1, 2, 5, 4)
    assert bar.area == 8 * 200
    assert bar.centroid == (60.0, 30.0)
    assert (bar.fill_ratio, bar.solidity) == (1.0, 1.0)
    assert bar.aspect == pytest.approx(80 / 20)
    assert bar.max_score == 3.0
    assert bar.mean_score == pytest.approx((3 + 7 * 2) / 8)


def test_a_value_at_the_threshold_is_in_and_one_below_is_not() -> None:
    below = np.nextafter(np.float32(1.0), np.float32(0))
    values = flat(
        ((slice(1, 2), slice(1, 2)), 1.0), ((slice(5, 6), slice(5, 6)), below)
    )
    (only,) = found(values).regions
    assert only.bbox == (10, 10, 20, 20)
    assert only.area == 100


def test_the_shape_of_an_l_is_told() -> None:
    values = flat(((slice(0, 6), slice(0, 1)), 2.0), ((slice(5, 6), slice(0, 6)), 2.0))
    (corner,) = found(values).regions
    assert corner.area == 11 * 100
    assert corner.fill_ratio == pytest.approx(11 / 36, abs=1e-4)
    hull = 36 - 5 * 5 / 2  # cells: the square less the triangle that the L leaves open
    assert corner.solidity == pytest.approx(11 / hull, abs=1e-3)
    assert corner.aspect == pytest.approx(1.0)


def test_a_turned_bar_is_as_long_as_it_is() -> None:
    values = np.eye(40, dtype=np.float32) * 2
    (line,) = found(values, (400, 400)).regions
    assert line.aspect > 10
    assert line.fill_ratio == pytest.approx(1 / 40)


def test_regions_are_numbered_by_their_highest_score() -> None:
    values = flat(
        ((slice(0, 1), slice(0, 1)), 2.0), (BAR, 5.0), ((7, slice(7, 8)), 3.0)
    )
    result = found(values)
    assert [(r.id, r.max_score) for r in result.regions] == [
        (1, 5.0),
        (2, 3.0),
        (3, 2.0),
    ]
    assert result.labels[2, 1] == 1
    assert result.labels[7, 7] == 2
    assert result.labels[5, 5] == 0
    fewer = found(values, max_regions=1)
    assert [r.max_score for r in fewer.regions] == [5.0]
    assert fewer.left_out == 2
    assert fewer.labels[7, 7] == 0


def test_cells_that_touch_at_a_corner_are_one_region() -> None:
    values = flat(((1, 1), 2.0), ((2, 2), 2.0))
    assert len(found(values).regions) == 1


def test_hysteresis_grows_a_region_from_its_peak() -> None:
    values = flat((BAR, 0.7), ((2, 1), 1.5), ((slice(6, 8), slice(6, 8)), 0.9))
    (grown,) = found(values, low_threshold=0.6).regions
    assert grown.bbox_map == (1, 2, 5, 4)
    assert found(values).regions[0].bbox_map == (1, 2, 2, 3)
    assert (
        len(found(values, low_threshold=5.0).regions) == 1
    )  # above: as if it were not


def test_opening_drops_what_is_thin_and_closing_bridges_a_gap() -> None:
    thin = flat((BAR, 2.0), ((5, slice(0, 8)), 2.0), size=(8, 8))
    square = flat(((slice(1, 6), slice(1, 6)), 2.0), ((7, slice(0, 8)), 2.0))
    assert len(found(thin).regions) == 2
    assert [r.bbox_map for r in found(square, open_cells=1).regions] == [(1, 1, 6, 6)]
    gap = flat(((slice(1, 6), slice(1, 3)), 2.0), ((slice(1, 6), slice(4, 6)), 2.0))
    assert len(found(gap).regions) == 2
    (closed,) = found(gap, close_cells=1).regions
    assert closed.bbox_map == (1, 1, 6, 6)


def test_a_ring_is_filled() -> None:
    values = flat(((slice(1, 6), slice(1, 6)), 2.0), ((slice(2, 5), slice(2, 5)), 0.0))
    (ring,) = found(values).regions
    assert ring.area == 16 * 100
    (disc,) = found(values, fill_holes=True).regions
    assert disc.area == 25 * 100


def test_near_regions_are_one_and_keep_their_own_cells() -> None:
    values = flat(((1, 1), 2.0), ((1, 4), 3.0))  # two cells between them
    assert len(found(values, merge_cells=1).regions) == 2
    (both,) = found(values, merge_cells=2).regions
    assert both.bbox_map == (1, 1, 5, 2)
    assert both.area == 200
    assert both.mean_score == 2.5


@pytest.mark.parametrize(
    ("rule", "kept", "dropped"),
    [
        ("min_area", 800.0, 801.0),
        ("min_fill_ratio", 1.0, None),
        ("max_aspect", 2.0, 1.9),
        ("min_solidity", 1.0, None),
        ("min_max_score", 2.0, 2.1),
        ("min_mean_score", 2.0, 2.1),
    ],
)
def test_a_filter_keeps_what_meets_it(
    rule: str, kept: float, dropped: float | None
) -> None:
    values = flat((BAR, 2.0))
    assert len(found(values, **{rule: kept}).regions) == 1
    if dropped is not None:
        assert found(values, **{rule: dropped}).regions == ()


def test_filters_of_shape_drop_an_l() -> None:
    values = flat(((slice(0, 6), slice(0, 1)), 2.0), ((slice(5, 6), slice(0, 6)), 2.0))
    assert found(values, min_fill_ratio=0.4).regions == ()
    assert found(values, min_solidity=0.9).regions == ()


@pytest.mark.parametrize(
    ("smoothing", "peak"), [("median", 0.0), ("box", 9 / 9), ("gaussian", 5.9)]
)
def test_smoothing_lowers_a_single_cell(smoothing: str, peak: float) -> None:
    values = flat(((3, 3), 9.0))
    rules = replace(RULES, smoothing=smoothing)
    highest = judged_values(values, (80, 80), mode="stretch", rules=rules, roi=None)
    assert highest.max() == pytest.approx(peak, abs=0.35)
    result = found(values, threshold=0.9, smoothing=smoothing)
    assert bool(result.regions) == (peak > 0)


def test_what_lies_outside_of_the_roi_or_at_the_border_is_not_judged() -> None:
    values = flat(((0, 0), 5.0), ((4, 4), 2.0), ((7, 7), 3.0))
    middle = Roi(rectangle=(0.25, 0.25, 0.75, 0.75))
    assert [r.max_score for r in found(values, roi=middle).regions] == [2.0]
    assert [r.max_score for r in found(values, border=0.2).regions] == [2.0]
    upper = Roi(polygon=((0, 0), (1, 0), (0, 1)))  # the triangle above the diagonal
    assert [r.max_score for r in found(values, roi=upper).regions] == [5.0]


def test_a_polygon_of_four_corners_is_its_rectangle() -> None:
    grid = MapGrid.of((40, 60), (400, 300), "stretch")
    x0, y0, x1, y1 = 0.21, 0.13, 0.83, 0.77
    square = Roi(polygon=((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    same = Roi(rectangle=(x0, y0, x1, y1))
    assert np.array_equal(judged_cells(grid, square, 0), judged_cells(grid, same, 0))


def test_nothing_grows_out_of_the_roi() -> None:
    values = flat(((slice(2, 6), slice(2, 6)), 2.0))
    roi = Roi(rectangle=(0.0, 0.0, 0.5, 1.0))
    (half,) = found(values, roi=roi, close_cells=3, merge_cells=3).regions
    assert half.bbox == (20, 20, 40, 60)


def test_a_letterboxed_map_is_placed_on_the_picture() -> None:
    # 40 x 80 on a square map of 8 x 8: the picture takes rows 2 to 5.
    values = flat(((slice(2, 4), slice(0, 2)), 2.0), ((0, 7), 9.0))
    (region,) = found(values, (40, 80), mode="letterbox").regions
    assert region.bbox == (0, 0, 20, 20)
    assert region.max_score == 2.0  # the 9 lies beside the picture


def test_the_mask_covers_the_same_pixels_as_the_box() -> None:
    values = flat((BAR, 2.0))
    result = found(values, (80, 160))
    mask = region_mask(result.labels, (80, 160), "stretch")
    assert mask.shape == (80, 160)
    assert set(np.unique(mask)) == {0, 255}
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert box == result.regions[0].bbox
    assert mask.astype(bool).sum() == result.regions[0].area


def test_the_outline_of_a_bar_is_its_four_corners() -> None:
    (bar,) = found(flat((BAR, 2.0)), polygons=True).regions
    assert bar.polygon is not None
    (line,) = bar.polygon
    assert set(line) == {(10, 20), (50, 20), (50, 40), (10, 40)}
    assert "polygon" not in found(flat((BAR, 2.0))).regions[0].to_json()


@pytest.mark.parametrize(
    ("policy", "by_score", "n", "label"),
    [
        ("image_threshold", True, 0, "anomaly"),
        ("image_threshold", False, 3, "normal"),
        ("any_region", True, 0, "normal"),
        ("any_region", False, 1, "anomaly"),
        ("both", True, 0, "normal"),
        ("both", False, 1, "normal"),
        ("both", True, 1, "anomaly"),
    ],
)
def test_one_policy_says_what_the_label_follows(
    policy: str, by_score: bool, n: int, label: str
) -> None:
    assert label_of(policy, by_score, n) == label


def test_a_map_that_is_below_the_threshold_has_no_region() -> None:
    result = found(np.zeros((5, 7), np.float32), (3, 3))
    assert result.regions == ()
    assert not result.labels.any()


def test_a_map_of_noise_is_measured_in_time_that_grows_with_it() -> None:
    noise = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    start = time.process_time()
    result = found(noise, (1024, 1024), threshold=float(np.quantile(noise, 0.9)))
    assert time.process_time() - start < 2.0  # measured 0.06; one mask each: 46
    assert len(result.regions) == 20
    assert result.left_out > 10_000
    assert result.regions[0].max_score == noise.max()


def test_area_counts_pixels_of_the_picture_alone() -> None:
    # A letterboxed cell is 2500 x 2500 pixels, of which 150 rows are the picture.
    whole = np.full((8, 8), 2.0, np.float32)
    with pytest.raises(ImageError, match="no cell of the map"):
        found(whole, (150, 20_000), mode="letterbox")
    (row,) = found(whole, (10_000, 20_000), mode="letterbox").regions
    assert row.area == 10_000 * 20_000
    tall = np.full((3, 8), 2.0, np.float32)
    (middle,) = found(tall, (40, 80), mode="letterbox").regions
    # Cells whose centre lies beside the picture are not judged.
    assert 0.99 * 40 * 80 < middle.area <= 40 * 80
    assert middle.bbox == (0, 0, 80, 40)


def test_filters_compare_exact_numbers() -> None:
    values = flat(((0, 0), 2.0), size=(100, 100))
    (tiny,) = found(values, (15, 15), min_area=0.0225).regions
    assert tiny.area == 0.0225
    assert found(values, (15, 15), min_area=0.0226).regions == ()


def test_a_region_between_pixel_centres_has_a_pixel_in_the_mask() -> None:
    values = flat(((99, 99), 2.0), size=(100, 100))
    result = found(values, (15, 15))
    mask = region_mask(result.labels, (15, 15), "stretch")
    assert np.argwhere(mask).tolist() == [[14, 14]]


def test_regions_of_equal_height_are_ordered_by_their_place() -> None:
    values = flat(((5, 1), 2.0), ((1, 5), 2.0), ((1, 1), 2.0))
    boxes = [r.bbox_map[:2] for r in found(values).regions]
    assert boxes == [(1, 1), (1, 5), (5, 1)]


def test_one_cell_and_one_pixel() -> None:
    (all_of_it,) = found(np.full((1, 1), 2.0, np.float32), (1, 1)).regions
    assert all_of_it.bbox == (0, 0, 1, 1)
    assert (all_of_it.area, all_of_it.solidity, all_of_it.aspect) == (1.0, 1.0, 1.0)
