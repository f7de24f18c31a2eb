"""Pictures as a line gives them on a worse day: nine changes, three strengths each.

    worse = corrupt(image_u8, "blur", 2, seed_name="images/007.png")

Level 1 is mild: a lamp that ages, a part that lies a hair aside. Level 3 is strong:
somebody would look at the camera. Lengths are shares of the picture's side, so that a
level means the same at any resolution. The same picture, change and level always give
the same pixels; JPEG only with the same OpenCV.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.errors import DatasetError

from .images import Image

LEVELS: Final = (1, 2, 3)  # mild .. strong

# apply(image (H, W, 3) uint8 RGB, strength, generator) -> the same shape and type
Apply = Callable[[Image, float, np.random.Generator], Image]


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way in which pictures get worse."""

    name: str
    unit: str  # of the strengths, in words that follow a number
    strengths: tuple[float, float, float]  # of levels 1, 2 and 3
    apply: Apply


def corrupt(image_u8: Image, name: str, level: int, *, seed_name: str) -> Image:
    """Give a changed copy of a picture, (H, W, 3) uint8 RGB like the picture.

    Args:
        image_u8: (H, W, 3) uint8 RGB; not written to.
        name: one of `CORRUPTIONS`.
        level: 1 mild, 2 or 3 strong.
        seed_name: the picture's stable name; noise is drawn from it alone, so that a
            picture has the same grain at every level and in every run.

    Raises:
        DatasetError: the picture is too long to be a JPEG.
        ValueError: an unknown name or level.
    """
    corruption = CORRUPTIONS.get(name)
    if corruption is None or level not in LEVELS:
        raise ValueError(
            f"found {name!r} at level {level!r}, expected one of "
            f"{', '.join(CORRUPTIONS)} at level 1, 2 or 3"
        )
    # hash() of a text differs from process to process.
    digest = hashlib.sha256(seed_name.encode("utf-8", "surrogateescape")).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    try:
        return corruption.apply(image_u8, corruption.strengths[level - 1], generator)
    except DatasetError as error:
        raise DatasetError(f"{seed_name}: {name}: {error}") from error


def _brighter(image: Image, percent: float, _: np.random.Generator) -> Image:
    return _mapped(image, _GREYS * (1 + percent / 100))


def _darker(image: Image, percent: float, _: np.random.Generator) -> Image:
    return _mapped(image, _GREYS * (1 - percent / 100))


def _more_contrast(image: Image, percent: float, _: np.random.Generator) -> Image:
    return _stretched(image, 1 + percent / 100)


def _less_contrast(image: Image, percent: float, _: np.random.Generator) -> Image:
    return _stretched(image, 1 - percent / 100)


def _blur(image: Image, percent: float, _: np.random.Generator) -> Image:
    import cv2

    sigma_px = percent / 100 * min(image.shape[:2])
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


def _noise(image: Image, sigma: float, generator: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    # A monochrome camera gives three equal channels, and so does its noise.
    grey = bool((image[..., :1] == image[..., 1:]).all())
    grain = generator.standard_normal((height, width, 1 if grey else 3), np.float32)
    grain *= np.float32(sigma)
    return _as_u8(grain + image)


def _jpeg(image: Image, quality: float, _: np.random.Generator) -> Image:
    import cv2

    if max(image.shape) > _JPEG_LONGEST:
        raise DatasetError(
            f"found {image.shape[0]}x{image.shape[1]} pixels (height x width); a JPEG "
            f"holds {_JPEG_LONGEST} on a side; measure robustness on smaller pictures"
        )
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    data = cv2.imencode(".jpg", bgr, options)[1]
    again = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(again, cv2.COLOR_BGR2RGB), np.uint8)


def _shift(image: Image, percent: float, _: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    # Whole pixels: a part of one would blur, which is another change.
    down, right = (max(1, round(percent / 100 * side)) for side in (height, width))
    padded = np.pad(image, ((down, 0), (right, 0), (0, 0)), mode="symmetric")
    return np.ascontiguousarray(padded[:height, :width])


def _rotation(image: Image, degrees: float, _: np.random.Generator) -> Image:
    import cv2

    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)  # x, y
    turn = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    turned = cv2.warpAffine(
        image,
        turn,
        (width, height),
        flags=cv2.INTER_CUBIC,  # linear would blur, which is another change
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(turned, np.uint8)


def _stretched(image: Image, factor: float) -> Image:
    """Grey levels drawn away from the picture's mean, or towards it."""
    mean = float(image.mean())
    return _mapped(image, mean + (_GREYS - mean) * factor)


def _mapped(image: Image, levels: npt.NDArray[np.floating]) -> Image:
    """Each grey level replaced: `levels` (256,)."""
    return np.asarray(_as_u8(levels)[image], np.uint8)


def _as_u8(values: npt.NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


_GREYS: Final = np.arange(256, dtype=np.float64)
_JPEG_LONGEST: Final = 65_500  # libjpeg's own limit

_TABLE: Final = (
    Corruption("brighter", "%", (5, 10, 20), _brighter),
    Corruption("darker", "%", (5, 10, 20), _darker),
    Corruption("more_contrast", "%", (5, 10, 20), _more_contrast),
    Corruption("less_contrast", "%", (5, 10, 20), _less_contrast),
    Corruption("blur", "% of the shorter side", (0.1, 0.2, 0.4), _blur),
    Corruption("noise", "grey levels", (3, 6, 12), _noise),
    Corruption("jpeg", "quality", (90, 70, 50), _jpeg),
    Corruption("shift", "% of each side", (1, 2, 4), _shift),
    Corruption("rotation", "degrees", (1, 2, 5), _rotation),
)
CORRUPTIONS: Final[dict[str, Corruption]] = {each.name: each for each in _TABLE}
