"""What counts as a defect region of a map, and what regions say about the label."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ._reader import FLOAT32_MAX
from .quick_dataclass import dataclass

if TYPE_CHECKING:
    from ._reader import Fields

POLICIES: Final = ("image_threshold", "any_region", "both")
SMOOTHINGS: Final = ("none", "median", "gaussian", "box")
MAX_WINDOW: Final = 31  # cells a side
MEDIAN_WINDOWS: Final = (3, 5)  # those that OpenCV has for float32
MAX_CELLS_MOVED: Final = 64
MAX_REGIONS: Final = 1000
MAX_CORNERS: Final = 200
MAX_ASPECT: Final = 1_000_000.0
FULL_AREA: Final = 2_000_000_000.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Roi:
    """The part of a picture that is judged: one of a rectangle and a polygon.

    Normalised: (0, 0) is the picture's upper left corner, (1, 1) its lower right one.
    """

    rectangle: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1
    polygon: tuple[Point, ...] | None = None  # (x, y) of its corners, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRules:
    """How regions are made of a map. Cells are those of the map, areas are in pixels.

    The steps stand in the order in which they are done.
    """

    policy: str = "image_threshold"  # what the label follows: one of POLICIES
    smoothing: str = "none"  # of the map, one of SMOOTHINGS
    smoothing_cells: int = 3  # side of its window, odd; a gaussian's sigma is a sixth
    border: float = 0.0  # share of each side of the picture, at its edges, not judged
    low_threshold: float | None = None  # a region grows down to it (hysteresis)
    open_cells: int = 0  # radius: thinner than twice that goes
    close_cells: int = 0  # radius: gaps narrower than twice that are filled
    fill_holes: bool = False
    merge_cells: int = 0  # regions with so many cells between them, or less, are one
    min_area: float = 0.0  # pixels of the picture
    min_fill_ratio: float = 0.0  # area / area of the upright box
    max_aspect: float | None = None  # longer / shorter side of the smallest turned box
    min_solidity: float = 0.0  # area / area of the convex hull
    min_max_score: float | None = None  # of the smoothed map
    min_mean_score: float | None = None
    max_regions: int = 20  # those with the highest scores are kept
    polygons: bool = False  # give the outlines too

    @property
    def sets_label(self) -> bool:
        """Whether the label cannot be told without regions."""
        return self.policy != "image_threshold"


def read_region_rules(fields: Fields) -> RegionRules:
    """Read the `regions` of a category."""
    score = partial(fields.number, low=-FLOAT32_MAX, high=FLOAT32_MAX)
    rules = RegionRules(
        policy=fields.text("policy", "image_threshold", choices=POLICIES),
        smoothing=fields.text("smoothing", "none", choices=SMOOTHINGS),
        smoothing_cells=fields.integer("smoothing_cells", 3, low=3, high=MAX_WINDOW),
        border=fields.number("border", 0.0, low=0.0, high=0.49),
        low_threshold=fields.maybe("low_threshold", score),
        open_cells=fields.integer("open_cells", 0, low=0, high=MAX_CELLS_MOVED),
        close_cells=fields.integer("close_cells", 0, low=0, high=MAX_CELLS_MOVED),
        fill_holes=fields.flag("fill_holes", False),
        merge_cells=fields.integer("merge_cells", 0, low=0, high=MAX_CELLS_MOVED),
        min_area=fields.number("min_area", 0.0, low=0.0, high=FULL_AREA),
        min_fill_ratio=fields.number("min_fill_ratio", 0.0, low=0.0, high=1.0),
        max_aspect=fields.maybe(
            "max_aspect", lambda key: fields.number(key, low=1.0, high=MAX_ASPECT)
        ),
        min_solidity=fields.number("min_solidity", 0.0, low=0.0, high=1.0),
        min_max_score=fields.maybe("min_max_score", score),
        min_mean_score=fields.maybe("min_mean_score", score),
        max_regions=fields.integer("max_regions", 20, low=1, high=MAX_REGIONS),
        polygons=fields.flag("polygons", False),
    )
    for problem in window_problems(rules.smoothing, rules.smoothing_cells):
        fields.problem("smoothing_cells", problem)
    fields.finish()
    return rules


def window_problems(smoothing: str, cells: int) -> list[str]:
    """Why a window is refused, in words."""
    if smoothing == "median" and cells not in MEDIAN_WINDOWS:
        return [f'found {cells}, expected 3 or 5 for smoothing "median"']
    if cells % 2 == 0:
        return [f"found {cells}, expected an odd number"]
    return []


def read_roi(fields: Fields) -> Roi:
    """Read the `roi` of a category."""
    roi = Roi(
        rectangle=fields.maybe("rectangle", lambda key: _rectangle(fields, key)),
        polygon=fields.maybe("polygon", lambda key: _polygon(fields, key)),
    )
    if (roi.rectangle is None) == (roi.polygon is None):
        given = "both" if roi.rectangle else "none"
        fields.problem(
            "rectangle", f"found {given} of rectangle and polygon, expected one of them"
        )
    fields.finish()
    return roi


def _rectangle(fields: Fields, key: str) -> tuple[float, float, float, float]:
    corners = fields.array(key)
    reason = rectangle_problem(corners)
    if reason is not None:
        fields.problem(key, reason)
        return (0.0, 0.0, 1.0, 1.0)
    x0, y0, x1, y1 = (float(value) for value in corners)
    return (x0, y0, x1, y1)


def rectangle_problem(corners: Any) -> str | None:
    """Why this is no rectangle, in words; None if it is one."""
    expected = "expected [x0, y0, x1, y1] with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
    if len(corners) != 4 or not all(_is_share(value) for value in corners):
        return f"found {list(corners)[:6]}, {expected}"
    x0, y0, x1, y1 = corners
    return None if x0 < x1 and y0 < y1 else f"found {list(corners)}, {expected}"


def _polygon(fields: Fields, key: str) -> tuple[Point, ...]:
    corners = fields.array(key)
    reason = polygon_problem(corners)
    if reason is not None:
        fields.problem(key, reason)
        return ()
    return tuple((float(x), float(y)) for x, y in corners)


def polygon_problem(corners: Any) -> str | None:
    """Why this is no polygon, in words; None if it is one."""
    if not 3 <= len(corners) <= MAX_CORNERS:
        return f"found {len(corners)} corners, expected 3 to {MAX_CORNERS}"
    for corner in corners:
        if not isinstance(corner, (list, tuple)) or len(corner) != 2:
            return f"found {str(corner)[:60]}, expected corners [x, y]"
        if not all(_is_share(value) for value in corner):
            return f"found the corner {list(corner)}, expected numbers from 0 to 1"
    return None


def _is_share(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value <= 1
