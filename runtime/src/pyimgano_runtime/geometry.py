"""Where an anomaly map lies on its image: the one resize after the graph."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]

MAP_MODES: Final = ("stretch", "letterbox", "tiles")


class _Taps(NamedTuple):
    """For each output position: its two neighbours, and the share of the second."""

    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    share: FloatMap


def letterbox_canvas(
    size: tuple[int, int], model_size: tuple[int, int]
) -> tuple[int, int]:
    """Give the (height, width) of the canvas that a letterboxed image lies on.

    The smallest one of the model's aspect ratio that holds the image, in image pixels
    (rounded up); the image lies in its middle, the odd pixel below and to the right.
    """
    height, width = size
    model_height, model_width = model_size
    return (
        max(height, -(-width * model_height // model_width)),
        max(width, -(-height * model_width // model_height)),
    )


def map_to_image(
    map_f32: npt.NDArray[np.floating], size: tuple[int, int], *, mode: str = "stretch"
) -> FloatMap:
    """Give a map resized to an image's size: bilinear, half-pixel centres.

    Output centre `i` lies at `(i + 0.5) * h / H - 0.5` on the map (computed in
    float64); beyond the outermost centres the edge value holds. This is torch's
    `interpolate(mode="bilinear", align_corners=False)`. A size smaller than the map's
    samples it at the same places: values between the samples are skipped, not
    averaged, so a small peak may vanish. Resize thresholded masks upwards only.

    Args:
        map_f32: (h, w), finite.
        size: (height, width) of the image in pixels.
        mode: of the map geometry. "letterbox": the map covers the canvas of
            `letterbox_canvas`, and the part over the image is given. "stretch",
            "tiles": it covers the image.

    Raises:
        ValueError: not two axes, a side below 1, or an unknown mode.
    """
    if map_f32.ndim != 2 or 0 in map_f32.shape:
        raise ValueError(f"found a map of shape {map_f32.shape}, expected (h, w)")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"found size {size}, expected (height, width) of at least 1")
    if mode not in MAP_MODES:
        raise ValueError(f"found mode {mode!r}, expected one of {MAP_MODES}")
    source = map_f32.astype(np.float32, copy=False)
    height, width = source.shape
    canvas = letterbox_canvas(size, (height, width)) if mode == "letterbox" else size
    y = _taps(height, size[0], canvas[0])
    x = _taps(width, size[1], canvas[1])

    # a + share * (b - a) keeps a constant map constant to the last bit.
    wide = source[:, x.low]  # (h, W)
    wide += x.share * (source[:, x.high] - wide)
    result = wide[y.low]  # (H, W)
    step = wide[y.high]
    step -= result
    step *= y.share[:, None]
    result += step
    return result


def _taps(n_in: int, n_out: int, n_canvas: int) -> _Taps:
    start = (n_canvas - n_out) // 2  # of the image on its canvas
    centres = np.arange(start, start + n_out, dtype=np.float64) + 0.5
    centres = centres * (n_in / n_canvas) - 0.5
    centres = np.clip(centres, 0.0, n_in - 1)
    low = centres.astype(np.intp)
    return _Taps(low, np.minimum(low + 1, n_in - 1), (centres - low).astype(np.float32))
