"""Where an anomaly map lies on its image: the one resize after the graph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]


class _Taps(NamedTuple):
    """For each output position: its two neighbours, and the share of the second."""

    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    share: FloatMap


def map_to_image(map_f32: npt.NDArray[np.floating], size: tuple[int, int]) -> FloatMap:
    """Give a map resized to an image's size: bilinear, half-pixel centres.

    Output centre `i` lies at `(i + 0.5) * h / H - 0.5` on the map (computed in
    float64); beyond the outermost centres the edge value holds. This is torch's
    `interpolate(mode="bilinear", align_corners=False)`. A size smaller than the map's
    samples it at the same places: values between the samples are skipped, not
    averaged, so a small peak may vanish. Resize thresholded masks upwards only.

    Args:
        map_f32: (h, w), finite.
        size: (height, width) of the image in pixels.

    Raises:
        ValueError: not two axes, or a side below 1.
    """
    if map_f32.ndim != 2 or 0 in map_f32.shape:
        raise ValueError(f"found a map of shape {map_f32.shape}, expected (h, w)")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"found size {size}, expected (height, width) of at least 1")
    source = map_f32.astype(np.float32, copy=False)
    x = _taps(source.shape[1], size[1])
    y = _taps(source.shape[0], size[0])

    # a + share * (b - a) keeps a constant map constant to the last bit.
    wide = source[:, x.low]  # (h, W)
    wide += x.share * (source[:, x.high] - wide)
    result = wide[y.low]  # (H, W)
    step = wide[y.high]
    step -= result
    step *= y.share[:, None]
    result += step
    return result


def _taps(n_in: int, n_out: int) -> _Taps:
    centres = (np.arange(n_out, dtype=np.float64) + 0.5) * (n_in / n_out) - 0.5
    centres = np.clip(centres, 0.0, n_in - 1)
    low = centres.astype(np.intp)
    return _Taps(low, np.minimum(low + 1, n_in - 1), (centres - low).astype(np.float32))
