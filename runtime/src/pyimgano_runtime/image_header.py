"""Size, channels, bit depth and orientation of a picture, before it is decoded.

    header = read_header(data, "part.png")
    height, width = header.size

The content decides, not the file's name. The facts are enough to refuse a picture
that is too large without giving a decoder the chance to allocate for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .errors import ImageError
from .image_formats import jpeg, plain, png, tiff, web
from .image_formats.facts import ImageHeader, damaged

__all__ = ["FORMATS", "ImageHeader", "check_whole", "read_header"]

FORMATS: Final = ("PNG", "JPEG", "BMP", "PNM", "NPY", "TIFF", "WebP", "GIF")

_HEADERS: Final[dict[str, Callable[[bytes, str], ImageHeader]]] = {
    "PNG": png.read_header,
    "JPEG": jpeg.read_header,
    "BMP": plain.read_bmp_header,
    "PNM": plain.read_pnm_header,
    "NPY": plain.read_npy_header,
    "TIFF": tiff.read_header,
    "WebP": web.read_webp_header,  # sees a cut-off file on its way through the chunks
    "GIF": web.read_gif_header,  # the same
}
_WHOLE: Final[dict[str, Callable[[bytes, str], None]]] = {
    "PNG": png.check_whole,
    "JPEG": jpeg.check_whole,
    "BMP": plain.check_whole_bmp,
    "PNM": plain.check_whole_pnm,
    "NPY": plain.check_whole_npy,
    "TIFF": tiff.check_whole,
}


def read_header(data: bytes, name: str) -> ImageHeader:
    """Give what a picture file says of itself.

    Args:
        data: the whole file.
        name: what error messages call it.

    Raises:
        ImageError: no known format (IMAGE_UNREADABLE), or it ends too early
            (IMAGE_TRUNCATED, IMAGE_EMPTY).
    """
    if not data:
        raise ImageError(
            f"{name}: 0 bytes, expected a picture; it may still be being written, "
            "read it again later or copy it again",
            code="IMAGE_EMPTY",
        )
    header = _HEADERS[_format(data, name)](data, name)
    if header.width == 0 or header.height == 0:
        raise damaged(
            name,
            f"{header.format} header says {header.width} x {header.height} pixels",
        )
    return header


def check_whole(data: bytes, header: ImageHeader, name: str) -> None:
    """Refuse a file that is cut off, as far as its own marks tell.

    Raises:
        ImageError: IMAGE_TRUNCATED.
    """
    check = _WHOLE.get(header.format)
    if check is not None:
        check(data, name)


def _format(data: bytes, name: str) -> str:
    if data.startswith(png.SIGNATURE):
        return "PNG"
    if data.startswith(jpeg.SIGNATURE):
        return "JPEG"
    if data.startswith(plain.BMP_SIGNATURE):
        return "BMP"
    if data.startswith(plain.PNM_SIGNATURES):
        return "PNM"
    if data.startswith(plain.NPY_SIGNATURE):
        return "NPY"
    if data.startswith(tiff.SIGNATURES):
        return "TIFF"
    if web.is_webp(data):
        return "WebP"
    if data.startswith(web.GIF_SIGNATURES):
        return "GIF"
    raise damaged(
        name, f"starts with {data[:8]!r}, which is none of {', '.join(FORMATS)}"
    )
