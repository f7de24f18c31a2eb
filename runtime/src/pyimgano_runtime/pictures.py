"""Pictures for people: the anomaly map as colours over the image, and map files.

Colours have a fixed meaning: the caller gives the range of values, so that two
pictures of one bundle can be compared. Nothing is stretched to the single picture.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .atomic import write_bytes
from .errors import ConfigError
from .geometry import map_to_image
from .regions import region_mask

if TYPE_CHECKING:
    from .predictor import Prediction, Predictor

Image = npt.NDArray[np.uint8]
FloatMap = npt.NDArray[np.float32]

MOST_OPAQUE: Final = 0.7  # of the colours, from the middle of the range on
CONTOUR_RGB: Final = (0, 255, 255)  # cyan: a hue that the colour map does not have
OUTLINE_RGB: Final = (0, 0, 0)
PIXELS_PER_LINE_WIDTH: Final = 400  # a 1,000 pixel picture gets lines of 2 pixels


def require_opencv() -> None:
    """Refuse now, rather than after the first picture, where OpenCV is missing.

    Raises:
        ConfigError: cv2 does not load.
    """
    try:
        import cv2  # noqa: F401 - only whether it loads
    except ImportError as cause:
        raise ConfigError(
            f"overlays need OpenCV ({cause}): pip install opencv-python-headless"
        ) from cause


def heat_overlay(
    image_u8: Image,
    map_f32: FloatMap,
    *,
    low: float,
    high: float,
    threshold: float | None,
    mask: npt.NDArray[np.uint8] | None = None,
) -> Image:
    """Give the image with the map's colours over it, (H, W, 3) uint8 RGB.

    Args:
        image_u8: (H, W, 3) RGB.
        map_f32: (H, W), finite, at the image's size (see `map_to_image`).
        low: values up to here leave the image as it is.
        high: values from here on have the last colour.
        threshold: a line is drawn around all pixels with map >= threshold.
        mask: (H, W), the line is drawn around what is not 0 instead.

    Raises:
        ConfigError: OpenCV is missing.
        ValueError: shapes, dtypes or range do not fit.
    """
    if image_u8.dtype != np.uint8 or image_u8.shape != (*map_f32.shape, 3):
        raise ValueError(
            f"found an image {image_u8.shape} {image_u8.dtype} and a map "
            f"{map_f32.shape}, expected (H, W, 3) uint8 and (H, W)"
        )
    if not (low < high and np.isfinite([low, high]).all()):
        raise ValueError(f"found the range {low} to {high}, expected low < high")
    if not np.isfinite(map_f32).all():
        raise ValueError("found a map with NaN or infinite values")
    require_opencv()
    import cv2

    strength = np.clip((map_f32 - np.float32(low)) / np.float32(high - low), 0, 1)
    steps = np.arange(256, dtype=np.uint8).reshape(256, 1)
    table = cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO).reshape(256, 3)  # BGR
    colours = table[:, ::-1][np.rint(strength * 255).astype(np.uint8)]  # (H, W, 3)
    opacity = (MOST_OPAQUE * np.minimum(2 * strength, 1))[..., None]
    blended = image_u8 + opacity * (colours - image_u8.astype(np.float32))
    overlay: Image = np.rint(blended).astype(np.uint8)

    if mask is None and threshold is not None:
        mask = (map_f32 >= np.float32(threshold)).astype(np.uint8)
    if mask is not None:
        lines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        width = max(1, round(min(mask.shape) / PIXELS_PER_LINE_WIDTH))
        for colour, thickness in ((OUTLINE_RGB, width + 2), (CONTOUR_RGB, width)):
            cv2.drawContours(overlay, lines, -1, colour, thickness)
    return overlay


def overlay_range(
    threshold: float, normal_scores: Sequence[float]
) -> tuple[float, float]:
    """Give the (low, high) of a bundle's overlays: the same for all its pictures.

    The colours start at the median score of normal pictures and reach the threshold
    after a third of the range, so that what is flagged stands out.
    """
    typical = float(np.median(normal_scores)) if len(normal_scores) else 0.0
    step = threshold - typical
    if step <= 0:
        step = abs(threshold) or 1.0
    return threshold - step, threshold + 2 * step


def save_overlay(
    path: Path, image_u8: Image, prediction: Prediction, predictor: Predictor
) -> None:
    """Write a picture with its map over it, PNG or JPEG by the path's suffix.

    Raises:
        ConfigError: OpenCV is missing, or cannot write this kind of file.
        ValueError: the prediction has no map.
    """
    if prediction.anomaly_map is None:
        raise ValueError("found a prediction without a map, expected one with it")
    require_opencv()
    import cv2

    pixel_threshold = predictor.settings.thresholds.pixel
    threshold = prediction.threshold if pixel_threshold is None else pixel_threshold
    low, high = overlay_range(threshold, predictor.settings.calibration.image_scores)
    size = (image_u8.shape[0], image_u8.shape[1])
    mask = None
    if prediction.found is not None:
        mask = region_mask(prediction.found.labels, size, prediction.map_mode)
    overlay = heat_overlay(
        image_u8,
        map_to_image(prediction.anomaly_map, size, mode=prediction.map_mode),
        low=low,
        high=high,
        threshold=threshold,
        mask=mask,
    )
    bgr = cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR)
    try:
        done, encoded = cv2.imencode(path.suffix, bgr)
    except cv2.error:
        done = False
    if not done:
        raise ConfigError(f"{path}: cannot be written; end the name with .png or .jpg")
    write_bytes(path, encoded.tobytes())


def save_mask(path: Path, prediction: Prediction, size: tuple[int, int]) -> None:
    """Write a prediction's regions as a PNG of the picture's size: 255 in them, else 0.

    Raises:
        ValueError: no regions were looked for.
    """
    if prediction.found is None:
        raise ValueError("found a prediction without regions, expected one with them")
    write_mask(path, region_mask(prediction.found.labels, size, prediction.map_mode))


def write_mask(path: Path, mask: npt.NDArray[np.uint8]) -> None:
    """Write a mask (H, W) as a PNG, complete or absent."""
    import cv2

    _, encoded = cv2.imencode(".png", mask)
    write_bytes(path, encoded.tobytes())


def save_map(path: Path, map_f32: FloatMap) -> None:
    """Write a map as an .npy file, (h, w) float32 as the graph gave it."""
    stream = io.BytesIO()
    np.save(stream, map_f32.astype(np.float32, copy=False), allow_pickle=False)
    write_bytes(path, stream.getvalue())
