"""Turns picture files into the graph's pixels: uint8 (H, W, 3) RGB, one way only.

    image_u8 = read_image(Path("part.png"), rules)

Size, bit depth and colours are refused from the header, before a decoder can allocate
anything; a file that is cut off is refused rather than filled up with grey. `.npy`
files are always read here; all else by OpenCV where it is installed, and otherwise
BMP, PGM/PPM and plain 8-bit PNG by readers of our own that give equal pixels.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import numpy.typing as npt

from .errors import ImageError
from .image_formats import plain, png, tiff
from .image_formats.facts import ImageHeader, damaged, needs_opencv
from .image_header import check_whole, read_header
from .infer_config import InputRules
from .quiet_opencv import quiet_opencv

Image = npt.NDArray[np.uint8]
DecodeRules = InputRules  # the `input` block of infer_config.json

FILE_HEADROOM: Final = 64 * 1024 * 1024  # bytes of a file beyond 4 per pixel
_BUILT_IN: Final[dict[str, Callable[[bytes, str], Image]]] = {
    "PNG": png.read_pixels,
    "BMP": plain.read_bmp,
    "PNM": plain.read_pnm,
}


def read_image(path: str | os.PathLike[str], rules: DecodeRules) -> Image:
    """Give the pixels of a picture file, (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file cannot be read (stage "read") or is refused ("decode").
    """
    return decode_bytes(read_file(path, rules), rules, name=str(path))


def inspect_image(path: str | os.PathLike[str], rules: DecodeRules) -> ImageHeader:
    """Give a picture file's facts after every check that needs no decoding.

    Raises:
        ImageError: as `read_image`, but for damage that only a decoder meets.
    """
    data = read_file(path, rules)
    return inspect_bytes(data, rules, str(path))


def decode_bytes(data: bytes, rules: DecodeRules, *, name: str) -> Image:
    """Give the pixels of an encoded picture, (H, W, 3) uint8 RGB, C-contiguous.

    Args:
        data: the whole file; its content decides the format, not `name`.
        name: what error messages call the picture.

    Raises:
        ImageError: the picture is refused; `code` says why.
    """
    header = inspect_bytes(data, rules, name)
    if header.format == "NPY":
        pixels = plain.read_npy(data, name)
    elif _opencv() is not None:
        pixels = _decode_with_opencv(data, header, name)
    elif header.format in _BUILT_IN:
        pixels = _BUILT_IN[header.format](data, name)
    else:
        raise needs_opencv(name, f"a {header.format} file{_why_no_opencv()}")
    return _as_rgb(_turn(pixels, header.orientation))


def check_array(image: object, rules: DecodeRules, name: str) -> Image:
    """Give an array of pixels as (H, W, 3) uint8 RGB, C-contiguous, or refuse it.

    Args:
        image: uint8, (H, W, 3) RGB or (H, W) grey; not copied where it fits already.
        name: what error messages call the picture.

    Raises:
        ImageError: IMAGE_DTYPE, IMAGE_SHAPE, or a size that the rules refuse.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{name}: found a {type(image).__name__}, expected a numpy array of uint8; "
            "convert it by numpy.asarray",
            code="IMAGE_DTYPE",
        )
    if image.dtype != np.uint8:
        raise ImageError(
            f"{name}: found dtype {image.dtype}, expected uint8 pixels 0..255; "
            "convert them with one fixed scale for all pictures",
            code="IMAGE_DTYPE",
        )
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ImageError(
            f"{name}: found shape {image.shape}, expected (height, width, 3) RGB or "
            "(height, width) grey; reorder the axes or leave the alpha channel out",
            code="IMAGE_SHAPE",
        )
    _check_size(image.shape[0], image.shape[1], rules, name)
    return _as_rgb(image)


def decoder_name() -> str:
    """What reads pictures in this process: "opencv 5.0.0" or "builtin"."""
    cv2 = _opencv()
    return f"opencv {cv2.__version__}" if cv2 is not None else "builtin"


def largest_file(rules: DecodeRules) -> int:
    """Give the most bytes that a picture file may have."""
    return 4 * rules.max_pixels + FILE_HEADROOM


def read_file(path: str | os.PathLike[str], rules: DecodeRules) -> bytes:
    """Give a picture file's bytes; a FIFO or device is refused, not waited for.

    Raises:
        ImageError: of the stage "read".
    """
    limit = largest_file(rules)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Not by pathlib, which keeps the parts of every path for good.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - see above
            raise _not_a_file(path)
        with os.fdopen(os.open(path, flags), "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):  # it may have been replaced since
                raise _not_a_file(path)
            # read(n) takes n bytes at once: never more than the file says it holds.
            data = stream.read(min(facts.st_size, limit) + 1)
    except FileNotFoundError as cause:
        raise ImageError(
            f"{path}: no such file; check the path",
            code="IMAGE_MISSING",
            stage="read",
        ) from cause
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise ImageError(
            f"{path}: cannot be read ({getattr(cause, 'strerror', None) or cause}); "
            "check the path and its permissions",
            code="IMAGE_READ_FAILED",
            stage="read",
        ) from cause
    if len(data) > limit:
        raise ImageError(
            f"{path}: more than {limit:,} bytes, too many for a picture of at most "
            f"{rules.max_pixels:,} pixels; save it without extra data",
            code="IMAGE_TOO_LARGE",
            stage="read",
        )
    return data


def _not_a_file(path: str | os.PathLike[str]) -> ImageError:
    kind = "a folder" if Path(path).is_dir() else "no regular file"
    return ImageError(
        f"{path}: is {kind}, expected a picture file; name the file itself",
        code="IMAGE_NOT_A_FILE",
        stage="read",
    )


def inspect_bytes(data: bytes, rules: DecodeRules, name: str) -> ImageHeader:
    """Give an encoded picture's facts after every check that needs no decoding.

    Raises:
        ImageError: as `decode_bytes`, but for damage that only a decoder meets.
    """
    header = read_header(data, name)
    _check_size(*header.size, rules, name)
    if header.bit_depth > 8:
        raise ImageError(
            f"{name}: {header.format} with {header.bit_depth} bits per channel, "
            "expected 8; convert it with one fixed scale for all pictures, such as "
            "pixel // 256, in training and in use alike",
            code="IMAGE_BIT_DEPTH",
        )
    if header.colours:
        raise ImageError(
            f"{name}: {header.format} in {header.colours}, expected RGB or grey; "
            "convert it to RGB",
            code="IMAGE_COLOR_SPACE",
        )
    if header.frames > 1:
        raise ImageError(
            f"{name}: {header.format} with several pictures, expected one; "
            "save each as a file of its own",
            code="IMAGE_FRAMES",
        )
    check_whole(data, header, name)
    return header


def _check_size(height: int, width: int, rules: DecodeRules, name: str) -> None:
    if height * width > rules.max_pixels:
        raise ImageError(
            f"{name}: {height} x {width} pixels (height x width), expected at most "
            f"{rules.max_pixels:,} in all; crop or shrink the picture",
            code="IMAGE_TOO_LARGE",
        )
    if min(height, width) < max(rules.min_side, 1):
        raise ImageError(
            f"{name}: {height} x {width} pixels (height x width), expected at least "
            f"{max(rules.min_side, 1)} on each side; use a larger picture",
            code="IMAGE_TOO_SMALL",
        )
    if rules.expected_size is not None and (height, width) != rules.expected_size:
        raise ImageError(
            f"{name}: {height} x {width} pixels (height x width), expected exactly "
            f"{rules.expected_size[0]} x {rules.expected_size[1]}; use the camera "
            "setting that the model was trained with",
            code="IMAGE_SIZE",
        )


def _decode_with_opencv(data: bytes, header: ImageHeader, name: str) -> Image:
    import cv2

    if header.format == "TIFF":
        data = tiff.as_stored(data, name)
    # ANYDEPTH keeps 16 bits visible; orientation is ours, so that it is applied once.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        with quiet_opencv():
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as cause:
        if cause.code == cv2.Error.StsNoMem:
            raise MemoryError(cause.err) from cause  # no fault of the file
        raise damaged(
            name, f"{header.format} file that OpenCV refuses ({cause.err})"
        ) from cause
    if bgr is None or bgr.shape != (header.height, header.width, 3):
        raise damaged(
            name, f"{header.format} file that OpenCV {cv2.__version__} cannot decode"
        )
    if bgr.dtype != np.uint8:
        raise damaged(name, f"{header.format} file decoded as {bgr.dtype}, not uint8")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr), dtype=np.uint8)


def _turn(pixels: Image, orientation: int) -> Image:
    """Give the picture upright: EXIF orientation 1..8 undone."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _as_rgb(pixels: Image) -> Image:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    pixels = np.ascontiguousarray(pixels)
    return pixels if pixels.flags.writeable else pixels.copy()


def _opencv() -> ModuleType | None:
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def _why_no_opencv() -> str:
    """Say what is wrong with an OpenCV that is installed but does not load."""
    try:
        import cv2  # noqa: F401 - only whether it loads
    except ModuleNotFoundError:
        return ""
    except ImportError as cause:
        return f" (the installed cv2 does not load: {cause})"
    return ""
