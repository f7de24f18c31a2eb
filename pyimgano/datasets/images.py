"""Pictures of manifest rows: inspected first, then batches decoded by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.decode import inspect_image, read_image
from pyimgano_runtime.errors import DatasetError, ImageError
from pyimgano_runtime.infer_config import InputRules

from .manifest import ManifestRow, raise_listed

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

DECODE_THREADS: Final = 2
AHEAD: Final = 8  # decoded pictures that may wait


def inspect_pictures(rows: Sequence[ManifestRow], rules: InputRules) -> None:
    """Refuse rows whose picture or mask cannot be used, without decoding any.

    What only a decoder meets, and a mask too dark to mark anything, is found later.

    Raises:
        DatasetError: unreadable, cut off or refused files, masks of another size than
            their picture; all problems, the first 20 in words.
    """
    problems: list[str] = []
    for row in rows:
        picture = mask = None
        try:
            picture = inspect_image(row.image_path, rules)
        except ImageError as error:
            problems.append(_picture_problem(row, error))
        if row.mask_path is None:
            continue
        try:
            mask = inspect_image(row.mask_path, rules)
        except ImageError as error:
            problems.append(f"manifest line {row.line}: {_mask_problem(error)}")
        if picture is None or mask is None or row.label == 0:
            continue
        if mask.size != picture.size:
            found = _size_problem(row.mask_path, mask.size, picture.size)
            problems.append(f"manifest line {row.line}: {found}")
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


def read_mask(path: Path, size: tuple[int, int], rules: InputRules) -> Mask:
    """Give an anomaly's mask (H, W): true where the picture is brighter than half.

    Raises:
        DatasetError: unreadable, not of the picture's size, or marking nothing.
    """
    try:
        pixels = read_image(path, rules)
    except ImageError as cause:
        raise DatasetError(_mask_problem(cause)) from cause
    if pixels.shape[:2] != size:
        raise DatasetError(_size_problem(path, pixels.shape[:2], size))
    levels = pixels[:, :, 0]
    mask: Mask = levels > 127
    if mask.any():
        return mask
    if not pixels.any():
        raise DatasetError(
            f"{path}: mask is empty, all its values are 0, but its picture is an "
            "anomaly; make the defect 255 (white), or give the row no mask"
        )
    raise DatasetError(
        f"{path}: mask values reach from {levels.min()} to {levels.max()}, a defect is "
        "expected above half of 255; make the defect 255 (white) and all else 0"
    )


def _picture_problem(row: ManifestRow, error: ImageError) -> str:
    return f"manifest line {row.line}: {error}; replace the picture or remove the row"


def _mask_problem(error: ImageError) -> str:
    return f"mask {error}; replace the mask"


def _size_problem(path: Path, found: tuple[int, ...], picture: tuple[int, int]) -> str:
    return (
        f"{path}: mask is {found[0]}x{found[1]}, its picture is "
        f"{picture[0]}x{picture[1]} (height x width); make them the same size"
    )


def read_ahead(rows: Sequence[ManifestRow], rules: InputRules) -> Iterator[Image]:
    """Give the pictures of rows in order, decoded by threads a few ahead."""
    waiting: deque[Future[Image]] = deque()
    remaining = iter(rows)
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        try:
            for row in remaining:
                waiting.append(pool.submit(read_training_image, row, rules))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


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
