"""Finds defect regions in a map and says where they lie in the picture.

    found = find_regions(map_f32, (height, width), threshold=..., rules=RegionRules())
    found.regions[0].bbox      # x0, y0, x1, y1 in pixels of the picture

The same function serves devices, training and `pyimgano defects`. Smoothing, shapes and
components are OpenCV's; what is judged of a map (`judged_cells`) needs numpy alone.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from .errors import ConfigError, ImageError
from .map_grid import MapGrid, Mask, judged_cells
from .quick_dataclass import dataclass
from .region_rules import RegionRules, Roi
from .region_shapes import Region, components_of, opencv, passing

FloatMap = npt.NDArray[np.float32]

DEFAULT_RULES: Final = RegionRules()


@dataclass(frozen=True, slots=True)
class FoundRegions:
    """The regions of one map."""

    regions: tuple[Region, ...]
    labels: npt.NDArray[np.int32]  # (h, w) the region's id, 0 outside of all
    left_out: int  # lower ones that nobody measured, as there are max_regions already


def smoothed(map_f32: FloatMap, rules: RegionRules) -> FloatMap:
    """Give the map (h, w) that thresholds are compared with.

    Raises:
        ConfigError: a smoothing is asked for and OpenCV is missing.
    """
    if rules.smoothing == "none":
        return map_f32
    cv2 = opencv()
    window = rules.smoothing_cells
    if rules.smoothing == "median":
        found = cv2.medianBlur(np.ascontiguousarray(map_f32), window)
    elif rules.smoothing == "box":
        edge = cv2.BORDER_REPLICATE
        found = cv2.blur(map_f32, (window, window), borderType=edge)
    else:
        edge, sigma = cv2.BORDER_REPLICATE, window / 6
        found = cv2.GaussianBlur(map_f32, (window, window), sigma, borderType=edge)
    return np.asarray(found, dtype=np.float32)


def judged_values(
    map_f32: FloatMap,
    image_size: tuple[int, int],
    *,
    mode: str,
    rules: RegionRules | None,
    roi: Roi | None,
) -> FloatMap:
    """Give the values (n,) of a map that can make a region, smoothed.

    A pixel threshold set on their maximum bounds how many normals have a region.

    Args:
        rules: None: no regions are looked for, so without a ROI every value counts.

    Raises:
        ConfigError: no cell is judged.
    """
    if rules is None and roi is None:
        return map_f32.ravel()
    rules = rules or DEFAULT_RULES
    h, w = map_f32.shape
    cells = judged_cells(MapGrid.of((h, w), image_size, mode), roi, rules.border)
    if not cells.any():
        raise ConfigError(
            f"roi, regions.border: no cell of the map ({h} x {w}) is left to judge; "
            "make the region of interest larger"
        )
    return smoothed(map_f32, rules)[cells]


def find_regions(
    map_f32: FloatMap,
    image_size: tuple[int, int],
    *,
    threshold: float,
    mode: str = "stretch",
    rules: RegionRules = DEFAULT_RULES,
    roi: Roi | None = None,
) -> FoundRegions:
    """Give the regions of a map.

    Args:
        map_f32: (h, w), finite.
        image_size: (height, width) of the picture in pixels.
        threshold: cells with a (smoothed) value >= it belong to a region.
        mode: how the map lies on the picture, see `geometry.map_to_image`.

    Raises:
        ConfigError: OpenCV is missing.
        ImageError: no cell is judged.
    """
    cv2 = opencv()
    h, w = map_f32.shape
    grid = MapGrid.of((h, w), image_size, mode)
    area = judged_cells(grid, roi, rules.border)
    if not area.any():
        raise ImageError(
            f"no cell of the map ({h} x {w}) lies in the part of the picture that is "
            f"judged ({image_size[0]} x {image_size[1]} pixels); the picture is too "
            "narrow for this model, or the region of interest too small",
            code="NOTHING_JUDGED",
            stage="infer",
        )
    values = smoothed(map_f32, rules)
    mask = _shaped(_above(values, area, threshold, rules), area, rules)
    _, parts = cv2.connectedComponents(_merged(mask, rules), connectivity=8)
    parts = np.where(mask, parts, 0)

    found = components_of(parts, values, grid)
    labels = np.zeros((h, w), dtype=np.int32)
    regions: list[Region] = []
    last = -1
    for last, region in islice(passing(found, parts, grid, rules), rules.max_regions):
        regions.append(_numbered(region, len(regions) + 1))
        labels[parts == found.part[last]] = len(regions)
    full = len(regions) == rules.max_regions
    return FoundRegions(
        tuple(regions), labels, len(found.part) - 1 - last if full else 0
    )


def region_mask(
    labels: npt.NDArray[np.int32], image_size: tuple[int, int], mode: str
) -> npt.NDArray[np.uint8]:
    """Give regions at the picture's size (H, W): 255 in them, 0 elsewhere.

    A pixel belongs to the cell that its centre lies in; a region between all centres
    takes the pixel below its middle.
    """
    h, w = labels.shape
    grid = MapGrid.of((h, w), image_size, mode)
    rows, columns = (
        np.clip(((np.arange(pixels) + 0.5 - start) / cell).astype(np.intp), 0, n - 1)
        for pixels, start, cell, n in zip(
            image_size, grid.start, grid.cell, (h, w), strict=True
        )
    )
    at_pixels = labels[rows][:, columns]
    mask = np.where(at_pixels > 0, 255, 0).astype(np.uint8)
    for number in np.setdiff1d(labels[labels > 0], at_pixels):
        middle = np.argwhere(labels == number).mean(axis=0)[::-1] + 0.5
        x, y = grid.to_pixels(middle).astype(int)
        height, width = image_size
        mask[min(max(y, 0), height - 1), min(max(x, 0), width - 1)] = 255
    return mask


def label_of(policy: str, by_score: bool, n_regions: int) -> str:
    """Give "anomaly" or "normal" by one policy of `region_rules.POLICIES`.

    Args:
        by_score: whether the score reaches the image threshold.
    """
    anomalous = {
        "image_threshold": by_score,
        "any_region": n_regions > 0,
        "both": by_score and n_regions > 0,
    }[policy]
    return "anomaly" if anomalous else "normal"


def _above(
    values: FloatMap, area: Mask, threshold: float, rules: RegionRules
) -> npt.NDArray[np.uint8]:
    """Give the cells (h, w) of regions before their shape is looked at, as 0 and 1."""
    high = (values >= np.float32(threshold)) & area
    low_threshold = rules.low_threshold
    if low_threshold is None or low_threshold >= threshold:
        return high.astype(np.uint8)
    low = ((values >= np.float32(low_threshold)) & area).astype(np.uint8)
    _, parts = opencv().connectedComponents(low, connectivity=8)
    seeds = np.unique(parts[high])
    return (np.isin(parts, seeds) & (low > 0)).astype(np.uint8)


def _shaped(
    mask: npt.NDArray[np.uint8], area: Mask, rules: RegionRules
) -> npt.NDArray[np.uint8]:
    """Open, close, fill; nothing grows out of the judged cells."""
    cv2 = opencv()
    for radius, step in (
        (rules.open_cells, cv2.MORPH_OPEN),
        (rules.close_cells, cv2.MORPH_CLOSE),
    ):
        if radius:
            side = 2 * radius + 1
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
            wide = cv2.copyMakeBorder(mask, *[radius] * 4, cv2.BORDER_CONSTANT, value=0)
            wide = cv2.morphologyEx(wide, step, disc)
            mask = np.ascontiguousarray(wide[radius:-radius, radius:-radius])
    if rules.fill_holes:
        wide = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        cv2.floodFill(wide, None, (0, 0), 1, flags=4)  # 1 now: region or open outside
        mask = mask | (1 - wide[1:-1, 1:-1])
    return (mask & area).astype(np.uint8)


def _merged(mask: npt.NDArray[np.uint8], rules: RegionRules) -> npt.NDArray[np.uint8]:
    """Give a mask whose components are regions: gaps of merge_cells are bridged."""
    if not rules.merge_cells:
        return mask
    window = np.ones((rules.merge_cells + 1, rules.merge_cells + 1), np.uint8)
    return np.asarray(opencv().dilate(mask, window), dtype=np.uint8)


def _numbered(region: Region, number: int) -> Region:
    from dataclasses import replace

    return replace(region, id=number)
