"""What a picture's header says, and the errors that every format shares."""

from __future__ import annotations

from ..errors import ImageError
from ..quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a picture file says of itself; `width` and `height` as stored."""

    format: str  # "PNG", "JPEG", "BMP", "PNM", "NPY", "TIFF", "WebP", "GIF"
    width: int
    height: int
    channels: int  # per pixel, as shown: 1 grey, 2 with alpha, 3 colour, 4 with alpha
    bit_depth: int  # bits per stored sample
    orientation: int = 1  # EXIF, 1..8
    frames: int = 1  # 2 stands for "more than one"
    colours: str = ""  # what cannot be RGB, in words: "CMYK"; empty for all others

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the decoded picture, EXIF orientation applied."""
        if self.orientation >= 5:
            return self.width, self.height
        return self.height, self.width


def damaged(name: str, found: str) -> ImageError:
    """Give the error for bytes that are no picture of a known format."""
    return ImageError(
        f"{name}: {found}; the file is damaged or no picture, save it again",
        code="IMAGE_UNREADABLE",
    )


def truncated(name: str, found: str) -> ImageError:
    """Give the error for a picture that ends too early."""
    return ImageError(
        f"{name}: {found}; the file is cut off or damaged, copy it again",
        code="IMAGE_TRUNCATED",
    )


def needs_opencv(name: str, found: str) -> ImageError:
    """Give the error for what the built-in readers cannot decode."""
    return ImageError(
        f"{name}: {found} needs OpenCV: pip install opencv-python-headless",
        code="DECODER_MISSING",
    )
