"""Where the cells of a map lie in the picture, and which of them are judged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .geometry import MAP_MODES, letterbox_canvas
from .quick_dataclass import dataclass
from .region_rules import Roi

Mask = npt.NDArray[np.bool_]


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

    def covered_pixels(
        self,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give how much of the picture each row (h,) and column (w,) of cells covers.

        In pixels along its axis; less than a cell's side where one lies partly outside.
        """
        rows, columns = (
            np.diff(np.clip(start + np.arange(n + 1) * cell, 0, pixels))
            for start, n, cell, pixels in zip(
                self.start, self.map_size, self.cell, self.image_size, strict=True
            )
        )
        return rows, columns

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
    inside: Mask = ((y >= border) & (y <= 1 - border))[:, None] & (
        (x >= border) & (x <= 1 - border)
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
