"""Measures the components of a mask, and keeps those that the filters let pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .map_grid import MapGrid, Mask
from .quick_dataclass import dataclass
from .region_rules import RegionRules

FloatMap = npt.NDArray[np.float32]
Numbers = npt.NDArray[Any]


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


class Components(NamedTuple):
    """Components of a mask, an entry each in arrays (n,): by falling highest value."""

    part: Numbers  # its number in the array of labels
    cells: Numbers
    area: Numbers  # pixels of the picture
    boxes: Numbers  # (n, 4) left, top, right, bottom in cells; the last two outside
    centres: Numbers  # (n, 2) x, y in cells from the map's corner
    highest: Numbers
    mean: Numbers


def components_of(
    parts: npt.NDArray[np.int32], values: FloatMap, grid: MapGrid
) -> Components:
    """Measure all components of a labelled map (h, w) at once.

    Args:
        parts: 0 outside of all; a map of noise has tens of thousands.
    """
    rows, columns = np.nonzero(parts)
    order = np.argsort(parts[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    labels = parts[rows, columns]
    starts = np.flatnonzero(np.diff(labels, prepend=0))
    if not len(starts):
        none, ints = np.empty(0), np.empty(0, np.int64)
        boxes_of_none, centres_of_none = np.empty((0, 4)), np.empty((0, 2))
        return Components(
            *(ints, ints, none, boxes_of_none, centres_of_none, none, none)
        )
    cells = np.diff(np.append(starts, len(labels)))
    inside = values[rows, columns]
    high, wide = grid.covered_pixels()
    boxes = [
        np.minimum.reduceat(columns, starts),
        np.minimum.reduceat(rows, starts),
        np.maximum.reduceat(columns, starts) + 1,
        np.maximum.reduceat(rows, starts) + 1,
    ]
    centres = [np.add.reduceat(at + 0.5, starts) / cells for at in (columns, rows)]
    highest = np.maximum.reduceat(inside, starts)
    ranked = np.lexsort([*boxes[::-1], -highest])
    return Components(
        part=labels[starts][ranked],
        cells=cells[ranked],
        area=np.add.reduceat(high[rows] * wide[columns], starts)[ranked],
        boxes=np.stack(boxes, axis=1)[ranked],
        centres=np.stack(centres, axis=1)[ranked],
        highest=highest[ranked],
        mean=(np.add.reduceat(inside.astype(np.float64), starts) / cells)[ranked],
    )


def passing(
    found: Components,
    parts: npt.NDArray[np.int32],
    grid: MapGrid,
    rules: RegionRules,
) -> Iterator[tuple[int, Region]]:
    """Give the number in `found` and the region of each that passes the filters.

    In order, and no further than is asked for: boxes and hulls are costly, and a map
    of noise has many. Filters compare exact numbers; the region's are rounded.
    """
    fill = found.cells / np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    wanted = (found.area >= rules.min_area) & (fill >= rules.min_fill_ratio)
    if rules.min_max_score is not None:
        wanted &= found.highest >= rules.min_max_score
    if rules.min_mean_score is not None:
        wanted &= found.mean >= rules.min_mean_score
    cell_area = grid.cell[0] * grid.cell[1]
    for index in np.flatnonzero(wanted).tolist():
        left, top, right, bottom = found.boxes[index].tolist()
        own = parts[top:bottom, left:right] == found.part[index]
        outlines = _outlines(own, (left, top))
        aspect, hull = _turned_box_and_hull(outlines, grid)
        solidity = min(1.0, int(found.cells[index]) * cell_area / hull)
        if solidity < rules.min_solidity:
            continue
        if rules.max_aspect is not None and aspect > rules.max_aspect:
            continue
        corners = grid.to_pixels(np.asarray([[left, top], [right, bottom]]))
        x0, y0 = np.floor(corners[0]).astype(int).tolist()
        x1, y1 = np.ceil(corners[1]).astype(int).tolist()
        height, width = grid.image_size
        x, y = grid.to_pixels(found.centres[index]).tolist()
        yield (
            index,
            Region(
                id=0,
                area=_short(found.area[index]),
                bbox=(max(0, x0), max(0, y0), min(width, x1), min(height, y1)),
                bbox_map=(left, top, right, bottom),
                centroid=(round(x, 1), round(y, 1)),
                fill_ratio=_short(fill[index]),
                aspect=_short(aspect),
                solidity=_short(solidity),
                max_score=float(found.highest[index]),
                mean_score=float(np.float32(found.mean[index])),
                polygon=_polygons(outlines, grid) if rules.polygons else None,
            ),
        )


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _turned_box_and_hull(
    outlines: list[npt.NDArray[np.float64]], grid: MapGrid
) -> tuple[float, float]:
    """Give longer / shorter side of the smallest turned box, and the hull's pixels."""
    cv2 = opencv()
    corners = grid.to_pixels(np.concatenate(outlines)).astype(np.float32)
    _, sides, _ = cv2.minAreaRect(corners)
    hull = float(cv2.contourArea(cv2.convexHull(corners)))
    return max(sides) / min(sides), hull


def _outlines(own: Mask, start_xy: tuple[int, int]) -> list[npt.NDArray[np.float64]]:
    """Give the outer outlines of a mask along its cells' corners, (n, 2) x and y each.

    Each cell is drawn as 2 x 2 pixels: an even pixel stands for a cell's first edge,
    an odd one for its last.
    """
    cv2 = opencv()
    doubled = own.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    lines, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [(line[:, 0] + 1) // 2 + np.asarray(start_xy, np.float64) for line in lines]


def _polygons(
    outlines: list[npt.NDArray[np.float64]], grid: MapGrid
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Give outlines in pixels, at most half a cell off, with few points."""
    cv2 = opencv()
    short = [
        cv2.approxPolyDP(line.astype(np.float32), 0.5, True)[:, 0] for line in outlines
    ]
    return tuple(
        tuple((round(float(x), 1), round(float(y), 1)) for x, y in grid.to_pixels(line))
        for line in short
    )


def opencv() -> Any:
    """Give cv2.

    Raises:
        ConfigError: it does not load.
    """
    try:
        import cv2
    except ImportError as cause:
        raise ConfigError(
            f"regions need OpenCV ({cause}): pip install opencv-python-headless"
        ) from cause
    return cv2
