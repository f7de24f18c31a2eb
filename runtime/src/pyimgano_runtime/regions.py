"""Finds defect regions in a map and says where they lie in the picture.

    found = find_regions(map_f32, (height, width), threshold=..., rules=RegionRules())
    found.regions[0].bbox      # x0, y0, x1, y1 in pixels of the picture

The same function serves devices, training and `pyimgano defects`. Smoothing, shapes and
components are OpenCV's; what is judged of a map (`judged_cells`) needs numpy alone.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .geometry import MAP_MODES, letterbox_canvas
from .quick_dataclass import dataclass
from .region_rules import RegionRules, Roi

FloatMap = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

DEFAULT_RULES: Final = RegionRules()


@dataclass(frozen=True, slots=True)
class Region:
    """One region; places are pixels of the picture unless they say otherwise."""

    id: int  # 1, 2, ...: by falling max_score
    area: float  # pixels of the picture
    bbox: tuple[int, int, int, int]  # x0, y0, x1, y1: x1 and y1 lie just outside
    bbox_map: tuple[int, int, int, int]  # the same in cells of the map
    centroid: tuple[float, float]  # x, y
    fill_ratio: float  # area / area of the upright box, (0, 1]
    aspect: float  # longer / shorter side of the smallest turned box, >= 1
    solidity: float  # area / area of the convex hull, (0, 1]
    max_score: float  # of the smoothed map
    mean_score: float
    polygon: tuple[tuple[tuple[float, float], ...], ...] | None = None  # outlines

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object of a row; `polygon` only where outlines were asked."""
        whole: dict[str, Any] = {
            "id": self.id,
            "area": self.area,
            "bbox": list(self.bbox),
            "bbox_map": list(self.bbox_map),
            "centroid": list(self.centroid),
            "fill_ratio": self.fill_ratio,
            "aspect": self.aspect,
            "solidity": self.solidity,
            "max_score": self.max_score,
            "mean_score": self.mean_score,
        }
        if self.polygon is not None:
            whole["polygon"] = [[list(at) for at in line] for line in self.polygon]
        return whole


@dataclass(frozen=True, slots=True)
class FoundRegions:
    """The regions of one map."""

    regions: tuple[Region, ...]
    labels: npt.NDArray[np.int32]  # (h, w) the region's id, 0 outside of all
    left_out: int  # that passed the filters and are more than max_regions


@dataclass(frozen=True, slots=True)
class MapGrid:
    """Where the cells of a map lie in the picture."""

    map_size: tuple[int, int]  # (h, w) cells
    image_size: tuple[int, int]  # (H, W) pixels
    cell: tuple[float, float]  # (height, width) of a cell in pixels
    start: tuple[float, float]  # (y, x) of the first cell's corner, in pixels

    @classmethod
    def of(
        cls, map_size: tuple[int, int], image_size: tuple[int, int], mode: str
    ) -> MapGrid:
        """Give the grid of a map that lies on a picture as `map_to_image` says.

        Raises:
            ValueError: an unknown mode.
        """
        if mode not in MAP_MODES:
            raise ValueError(f"found mode {mode!r}, expected one of {MAP_MODES}")
        canvas = image_size
        if mode == "letterbox":
            canvas = letterbox_canvas(image_size, map_size)
        cell = (canvas[0] / map_size[0], canvas[1] / map_size[1])
        start = (
            -float((canvas[0] - image_size[0]) // 2),
            -float((canvas[1] - image_size[1]) // 2),
        )
        return cls(map_size, image_size, cell, start)

    def centres(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give y (h,) and x (w,) of the cells' centres as shares of the picture."""
        y, x = (
            (start + (np.arange(n, dtype=np.float64) + 0.5) * cell) / pixels
            for start, n, cell, pixels in zip(
                self.start, self.map_size, self.cell, self.image_size, strict=True
            )
        )
        return y, x

    def to_pixels(
        self, corners_xy: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.float64]:
        """Give places (n, 2), x and y in cells from the map's corner, in pixels."""
        scale, start = self.cell[::-1], self.start[::-1]
        places = np.asarray(corners_xy, dtype=np.float64)
        return np.stack(
            [places[..., axis] * scale[axis] + start[axis] for axis in (0, 1)], axis=-1
        )


def judged_cells(grid: MapGrid, roi: Roi | None, border: float) -> Mask:
    """Give which cells (h, w) are judged: their centre is in the picture and the ROI.

    Args:
        border: share of each side, at the picture's edges, that is not.
    """
    y, x = grid.centres()
    inside: Mask = ((y >= border) & (y <= 1 - border) & (y > 0) & (y < 1))[:, None] & (
        (x >= border) & (x <= 1 - border) & (x > 0) & (x < 1)
    )[None]
    if roi is None:
        return inside
    if roi.rectangle is not None:
        x0, y0, x1, y1 = roi.rectangle
        rows, columns = (y >= y0) & (y <= y1), (x >= x0) & (x <= x1)
        return inside & rows[:, None] & columns[None]
    return inside & _in_polygon(y, x, roi.polygon or ())


def _in_polygon(
    y: npt.NDArray[np.float64],
    x: npt.NDArray[np.float64],
    corners: tuple[tuple[float, float], ...],
) -> Mask:
    """Give which of the places (h, w) lie in a polygon, by the even-odd rule."""
    inside = np.zeros((len(y), len(x)), dtype=np.bool_)
    for (xa, ya), (xb, yb) in zip(corners, (*corners[1:], corners[0]), strict=True):
        crosses = (ya > y) != (yb > y)  # (h,) rows that this edge crosses
        if not crosses.any():
            continue
        at = xa + (y[crosses] - ya) * (xb - xa) / (yb - ya)
        inside[crosses] ^= x[None] < at[:, None]
    return inside


def smoothed(map_f32: FloatMap, rules: RegionRules) -> FloatMap:
    """Give the map (h, w) that thresholds are compared with.

    Raises:
        ConfigError: a smoothing is asked for and OpenCV is missing.
    """
    if rules.smoothing == "none":
        return map_f32
    cv2 = _opencv()
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
    """
    cv2 = _opencv()
    h, w = map_f32.shape
    grid = MapGrid.of((h, w), image_size, mode)
    area = judged_cells(grid, roi, rules.border)
    values = smoothed(map_f32, rules)
    mask = _shaped(_above(values, area, threshold, rules), area, rules)
    n, parts = cv2.connectedComponents(_merged(mask, rules), connectivity=8)
    parts = np.where(mask, parts, 0)

    found = []
    for part in range(1, n):
        own = parts == part
        region = _measured(own, values, grid, rules)
        if _passes(region, rules):
            found.append((region, own))
    found.sort(key=lambda pair: (-pair[0].max_score, pair[0].bbox_map))
    kept = found[: rules.max_regions]
    labels = np.zeros((h, w), dtype=np.int32)
    regions = []
    for number, (region, own) in enumerate(kept, start=1):
        labels[own] = number
        regions.append(_numbered(region, number))
    return FoundRegions(tuple(regions), labels, len(found) - len(kept))


def region_mask(
    labels: npt.NDArray[np.int32], image_size: tuple[int, int], mode: str
) -> npt.NDArray[np.uint8]:
    """Give regions at the picture's size (H, W): 255 in them, 0 elsewhere.

    A pixel belongs to the cell that its centre lies in.
    """
    h, w = labels.shape
    grid = MapGrid.of((h, w), image_size, mode)
    rows, columns = (
        np.clip(((np.arange(pixels) + 0.5 - start) / cell).astype(np.intp), 0, n - 1)
        for pixels, start, cell, n in zip(
            image_size, grid.start, grid.cell, (h, w), strict=True
        )
    )
    return np.where(labels[rows][:, columns] > 0, 255, 0).astype(np.uint8)


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
    _, parts = _opencv().connectedComponents(low, connectivity=8)
    seeds = np.unique(parts[high])
    return (np.isin(parts, seeds) & (low > 0)).astype(np.uint8)


def _shaped(
    mask: npt.NDArray[np.uint8], area: Mask, rules: RegionRules
) -> npt.NDArray[np.uint8]:
    """Open, close, fill; nothing grows out of the judged cells."""
    cv2 = _opencv()
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
    return np.asarray(_opencv().dilate(mask, window), dtype=np.uint8)


def _measured(own: Mask, values: FloatMap, grid: MapGrid, rules: RegionRules) -> Region:
    cv2 = _opencv()
    rows, columns = np.nonzero(own)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    cell_area = grid.cell[0] * grid.cell[1]
    area = len(rows) * cell_area
    outlines = _outlines(own[top:bottom, left:right], (left, top))
    corners = grid.to_pixels(np.concatenate(outlines)).astype(np.float32)
    _, sides, _ = cv2.minAreaRect(corners)
    hull = float(cv2.contourArea(cv2.convexHull(corners)))
    inside = values[own]
    x0, y0 = np.floor(grid.to_pixels(np.asarray([left, top]))).astype(int)
    x1, y1 = np.ceil(grid.to_pixels(np.asarray([right, bottom]))).astype(int)
    height, width = grid.image_size
    centre = grid.to_pixels(np.asarray([columns.mean() + 0.5, rows.mean() + 0.5]))
    return Region(
        id=0,
        area=round(area, 1),
        bbox=(
            *(max(0, int(x0)), max(0, int(y0))),
            *(min(width, int(x1)), min(height, int(y1))),
        ),
        bbox_map=(left, top, right, bottom),
        centroid=(round(float(centre[0]), 1), round(float(centre[1]), 1)),
        fill_ratio=round(len(rows) / ((right - left) * (bottom - top)), 4),
        aspect=round(max(sides) / min(sides), 3),
        solidity=round(min(1.0, area / hull), 4),
        max_score=float(inside.max()),
        mean_score=float(np.float32(inside.mean(dtype=np.float64))),
        polygon=_polygons(outlines, grid) if rules.polygons else None,
    )


def _outlines(own: Mask, start_xy: tuple[int, int]) -> list[npt.NDArray[np.float64]]:
    """Give the outer outlines of a mask along its cells' corners, (n, 2) x and y each.

    Each cell is drawn as 2 x 2 pixels: an even pixel stands for a cell's first edge,
    an odd one for its last.
    """
    cv2 = _opencv()
    doubled = own.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    lines, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [(line[:, 0] + 1) // 2 + np.asarray(start_xy, np.float64) for line in lines]


def _polygons(
    outlines: list[npt.NDArray[np.float64]], grid: MapGrid
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Give outlines in pixels, at most half a cell off, with few points."""
    cv2 = _opencv()
    short = [
        cv2.approxPolyDP(line.astype(np.float32), 0.5, True)[:, 0] for line in outlines
    ]
    return tuple(
        tuple((round(float(x), 1), round(float(y), 1)) for x, y in grid.to_pixels(line))
        for line in short
    )


def _passes(region: Region, rules: RegionRules) -> bool:
    return (
        region.area >= rules.min_area
        and region.fill_ratio >= rules.min_fill_ratio
        and (rules.max_aspect is None or region.aspect <= rules.max_aspect)
        and region.solidity >= rules.min_solidity
        and (rules.min_max_score is None or region.max_score >= rules.min_max_score)
        and (rules.min_mean_score is None or region.mean_score >= rules.min_mean_score)
    )


def _numbered(region: Region, number: int) -> Region:
    from dataclasses import replace

    return replace(region, id=number)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as cause:
        raise ConfigError(
            f"regions need OpenCV ({cause}): pip install opencv-python-headless"
        ) from cause
    return cv2
