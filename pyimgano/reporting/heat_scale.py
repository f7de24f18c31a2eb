"""The colours of heat maps on pages: one meaning in all pictures of a category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.infer_config import CategorySettings
from pyimgano_runtime.pictures import MOST_OPAQUE, heat_overlay, overlay_range

from ..datasets.images import Image
from .overview_facts import score_text


@dataclass(frozen=True, slots=True)
class HeatScale:
    """From which map value to which the colours run, and where the line is drawn."""

    low: float
    high: float
    threshold: float

    @classmethod
    def of(
        cls, settings: CategorySettings, image_threshold: float | None = None
    ) -> HeatScale:
        """Give the scale of the runtime's own overlays.

        Args:
            image_threshold: in place of the settings' one; it counts where there is no
                pixel threshold.
        """
        threshold = settings.thresholds.pixel
        if threshold is None:
            threshold = image_threshold
        if threshold is None:
            threshold = settings.thresholds.image
        low, high = overlay_range(threshold, settings.calibration.image_scores)
        return cls(low, high, threshold)

    def over(
        self, image: Image, anomaly_map: npt.NDArray[np.float32], *, mode: str
    ) -> Image:
        """Give the picture (H, W, 3) with its map (h, w) over it.

        Args:
            mode: how the map lies on the picture; see `map_to_image`.
        """
        size = (image.shape[0], image.shape[1])
        return heat_overlay(
            image,
            map_to_image(anomaly_map, size, mode=mode),
            low=self.low,
            high=self.high,
            threshold=self.threshold,
        )

    def bar(self) -> dict[str, Any]:
        """Give the colour bar as the templates draw it."""
        at = 100 * (self.threshold - self.low) / (self.high - self.low)
        return {
            "colours": _bar_colours(),
            "threshold_at": at,
            "threshold": score_text(self.threshold),
            "low": score_text(self.low),
            "high": score_text(self.high),
        }


def _bar_colours() -> list[str]:
    """The colour bar of the heat maps, on a mid grey, as CSS colours."""
    import cv2

    steps = np.linspace(0, 1, 12)
    levels = np.rint(steps * 255).astype(np.uint8).reshape(-1, 1)
    table = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO).reshape(-1, 3)[:, ::-1]
    opacity = (MOST_OPAQUE * np.minimum(2 * steps, 1))[:, None]
    mixed = np.rint(150 + opacity * (table.astype(np.float64) - 150)).astype(int)
    return [f"rgb({r} {g} {b})" for r, g, b in mixed.tolist()]
