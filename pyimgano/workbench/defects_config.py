"""`defects` of a training config: which regions of a map are reported, and how."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pyimgano_runtime.infer_config import FLOAT32_MAX, Thresholds
from pyimgano_runtime.region_rules import (
    FULL_AREA,
    MAX_ASPECT,
    MAX_CELLS_MOVED,
    MAX_REGIONS,
    MAX_WINDOW,
    POLICIES,
    SMOOTHINGS,
    RegionRules,
    Roi,
    polygon_problem,
    rectangle_problem,
    window_problems,
)

from ..option_fields import option


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectsConfig:
    """What makes a region; the pixel threshold is calibrated on the same values.

    `docs/regions.md` shows the steps. Cells are those of the anomaly map.
    """

    policy: str = option(
        "image_threshold",
        'what the label follows: "image_threshold": the score; "any_region": a region '
        'is enough; "both"',
        choices=POLICIES,
    )
    roi_rectangle: tuple[float, ...] | None = option(
        None,
        "[x0, y0, x1, y1]: only this part of a picture makes regions, in shares of its "
        "sides",
    )
    roi_polygon: tuple[float, ...] | None = option(
        None, "[x, y, x, y, ...]: the same for a polygon, corner by corner"
    )
    border: float = option(
        0.0, "share of each side, at the edges, that makes none", low=0.0, high=0.49
    )
    smoothing: str = option(
        "none", "of the map, before the threshold", choices=SMOOTHINGS
    )
    smoothing_cells: int = option(
        3, "side of its window, odd; median: 3 or 5", low=3, high=MAX_WINDOW
    )
    hysteresis: float | None = option(
        None,
        "a region grows down to this share of the way from the median of normals (0) "
        "to the pixel threshold (1)",
        low=0.0,
        high=1.0,
    )
    open_cells: int = option(
        0, "radius: thinner parts than twice that go", low=0, high=MAX_CELLS_MOVED
    )
    close_cells: int = option(
        0, "radius: narrower gaps than twice that close", low=0, high=MAX_CELLS_MOVED
    )
    fill_holes: bool = option(False, "holes belong to the region around them")
    merge_cells: int = option(
        0,
        "regions with so many cells between them, or less, are one",
        low=0,
        high=MAX_CELLS_MOVED,
    )
    min_area: float = option(0.0, "pixels of the picture", low=0.0, high=FULL_AREA)
    min_fill_ratio: float = option(
        0.0, "least area / area of the upright box", low=0.0, high=1.0
    )
    max_aspect: float | None = option(
        None,
        "largest longer / shorter side of the smallest turned box",
        low=1.0,
        high=MAX_ASPECT,
    )
    min_solidity: float = option(
        0.0, "least area / area of the convex hull", low=0.0, high=1.0
    )
    min_max_score: float | None = option(
        None, "least highest value", low=-FLOAT32_MAX, high=FLOAT32_MAX
    )
    min_mean_score: float | None = option(
        None, "least mean value", low=-FLOAT32_MAX, high=FLOAT32_MAX
    )
    max_regions: int = option(
        20, "of a picture, those with the highest values", low=1, high=MAX_REGIONS
    )
    polygons: bool = option(False, "give the outlines too")

    @property
    def roi(self) -> Roi | None:
        """The part of a picture that makes regions; None: all of it."""
        if self.roi_rectangle is not None:
            x0, y0, x1, y1 = self.roi_rectangle
            return Roi(rectangle=(x0, y0, x1, y1))
        if self.roi_polygon is not None:
            return Roi(polygon=tuple(_pairs(self.roi_polygon)))
        return None

    def rules(self, thresholds: Thresholds | None) -> RegionRules:
        """Give the runtime's rules.

        Args:
            thresholds: the calibrated ones, which hysteresis needs; None: before them.
        """
        own = {item.name for item in fields(RegionRules)} - {"low_threshold"}
        low = None if thresholds is None else self._low_threshold(thresholds)
        return RegionRules(
            low_threshold=low, **{name: getattr(self, name) for name in own}
        )

    def _low_threshold(self, thresholds: Thresholds) -> float | None:
        if self.hysteresis is None or thresholds.pixel is None:
            return None
        middle = thresholds.provenance["pixel"].score_summary["median"]
        return middle + self.hysteresis * (thresholds.pixel - middle)

    def problems(self, method: str, pixel_method: str) -> list[tuple[str, str]]:
        """Give (option, what is wrong) of options that are wrong together.

        Args:
            method, pixel_method: how thresholds are set.
        """
        found = []
        if self.roi_rectangle is not None and self.roi_polygon is not None:
            found.append(("roi_polygon", "roi_rectangle is there too; remove one"))
        if self.roi_rectangle is not None:
            reason = rectangle_problem(list(self.roi_rectangle))
            found += [("roi_rectangle", reason)] if reason else []
        if self.roi_polygon is not None:
            odd = len(self.roi_polygon) % 2
            reason = polygon_problem(_pairs(self.roi_polygon))
            if odd:
                reason = f"found {len(self.roi_polygon)} numbers, expected pairs x, y"
            found += [("roi_polygon", reason)] if reason else []
        found += [
            ("smoothing_cells", reason)
            for reason in window_problems(self.smoothing, self.smoothing_cells)
        ]
        if self.hysteresis is not None and method == "fixed":
            found.append(
                (
                    "hysteresis",
                    'needs the scores of normals, which calibration.method "fixed" '
                    "does not take; remove it",
                )
            )
        elif self.hysteresis is not None and pixel_method != "image_max":
            found.append(
                (
                    "hysteresis",
                    "needs the median of the normals' largest values, which "
                    f'calibration.pixel_method "{pixel_method}" does not keep; remove '
                    "one of them",
                )
            )
        return found


def _pairs(numbers: tuple[float, ...]) -> list[tuple[float, float]]:
    return list(zip(numbers[::2], numbers[1::2], strict=False))
