"""Pictures of manifest rows: inspected first, then batches decoded by threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.decode import inspect_image, read_image
from pyimgano_runtime.errors import DatasetError, ImageError
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.ordered_threads import in_order

from .issues import raise_listed
from .layouts.folder_pictures import picture_names
from .rows import MASK_ABOVE, ManifestRow

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

DECODE_THREADS: Final = 2


def inspect_pictures(rows: Sequence[ManifestRow], rules: InputRules) -> None:
    """Refuse rows whose picture or mask cannot be used, without decoding any.

    What only a decoder meets is found by preflight or later.

    Raises:
        DatasetError: unreadable, cut off or refused files, masks of another size than
            their picture; all problems, the first 20 in words.
    """
    problems: list[str] = []
    for row in rows:
        picture = None
        try:
            picture = inspect_image(row.image_path, rules)
        except ImageError as error:
            problems.append(_picture_problem(row, error))
        for path in mask_files(row.mask_path):
            try:
                mask = inspect_image(path, rules)
            except ImageError as error:
                problems.append(f"{row_prefix(row)}{mask_problem(error)}")
                continue
            if picture is not None and row.label == 1 and mask.size != picture.size:
                found = size_problem(path, mask.size, picture.size)
                problems.append(f"{row_prefix(row)}{found}")
    raise_listed(problems)


def read_training_image(row: ManifestRow, rules: InputRules) -> Image:
    """Give the pixels (H, W, 3) uint8 RGB of a row.

    Raises:
        DatasetError: the picture cannot be read; training needs every one.
    """
    try:
        return read_image(row.image_path, rules)
    except ImageError as cause:
        raise DatasetError(_picture_problem(row, cause)) from cause


def shrunk(pixels: Image, longest_side: int) -> Image:
    """Give a picture (H, W) or (H, W, 3), its longer side at most so many pixels."""
    import cv2

    height, width = pixels.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return pixels
    # A strip of one pixel's height keeps it.
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def mask_files(path: Path | None) -> list[Path]:
    """Give the files of a mask: none, one, or all those of a folder."""
    if path is None:
        return []
    if not path.is_dir():
        return [path]
    return [path / name for name in picture_names(path)]


def read_mask(
    path: Path | None,
    size: tuple[int, int],
    rules: InputRules,
    *,
    above: int = MASK_ABOVE,
) -> Mask | None:
    """Give a mask (H, W): true where the picture is brighter than `above`.

    The pictures of a folder are joined. None where there is no mask, or where it marks
    nothing.

    Raises:
        DatasetError: unreadable, or not of the picture's size.
    """
    joined: Mask | None = None
    for file in mask_files(path):
        try:
            pixels = read_image(file, rules)
        except ImageError as cause:
            raise DatasetError(mask_problem(cause)) from cause
        if pixels.shape[:2] != size:
            raise DatasetError(size_problem(file, pixels.shape[:2], size))
        marked: Mask = pixels.max(axis=2) > above
        joined = marked if joined is None else joined | marked
    return joined if joined is not None and joined.any() else None


def _picture_problem(row: ManifestRow, error: ImageError) -> str:
    return f"{row_prefix(row)}{error}; replace the picture or remove the row"


def row_prefix(row: ManifestRow) -> str:
    """Give what messages about a file begin with: the line that names it."""
    return f"manifest line {row.line}: " if row.line else ""


def mask_problem(error: ImageError) -> str:
    """Say that a mask cannot be read."""
    return f"mask {error}; replace the mask"


def size_problem(path: Path, found: tuple[int, ...], picture: tuple[int, int]) -> str:
    """Say that a mask is not of its picture's size."""
    return (
        f"{path}: mask is {found[0]}x{found[1]}, its picture is "
        f"{picture[0]}x{picture[1]} (height x width); make them the same size"
    )


def read_ahead(rows: Sequence[ManifestRow], rules: InputRules) -> Iterator[Image]:
    """Give the pictures of rows in order, decoded by threads a few ahead."""
    return in_order(
        lambda index: read_training_image(rows[index], rules),
        len(rows),
        threads=DECODE_THREADS,
    )


def batches_of_one_size(
    images: Iterator[Image], *, batch_size: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Give (B, H, W, 3): neighbours of equal size share a batch."""
    batch: list[Image] = []
    for image in images:
        if batch and (len(batch) == batch_size or image.shape != batch[0].shape):
            yield np.stack(batch)
            batch = []
        batch.append(image)
    if batch:
        yield np.stack(batch)
