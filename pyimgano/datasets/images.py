"""Pictures of manifest rows as batches, decoded ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.decode import read_image
from pyimgano_runtime.errors import DatasetError, ImageError
from pyimgano_runtime.infer_config import InputRules

from .manifest import ManifestRow

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

DECODE_THREADS: Final = 2
AHEAD: Final = 8  # decoded pictures that may wait


def read_training_image(row: ManifestRow, rules: InputRules) -> Image:
    """Give the pixels (H, W, 3) uint8 RGB of a row.

    Raises:
        DatasetError: the picture cannot be read; training needs every one.
    """
    try:
        return read_image(row.image_path, rules)
    except ImageError as cause:
        raise DatasetError(
            f"manifest line {row.line}: {cause}; replace the picture or remove the row"
        ) from cause


def read_mask(path: Path, size: tuple[int, int], rules: InputRules) -> Mask:
    """Give a defect mask (H, W): true where the picture is brighter than half.

    Raises:
        DatasetError: unreadable, or not of the picture's size.
    """
    try:
        pixels = read_image(path, rules)
    except ImageError as cause:
        raise DatasetError(f"mask {cause}; replace the mask") from cause
    if pixels.shape[:2] != size:
        raise DatasetError(
            f"{path}: mask is {pixels.shape[0]}x{pixels.shape[1]}, its picture is "
            f"{size[0]}x{size[1]} (height x width); make them the same size"
        )
    return pixels[:, :, 0] > 127


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
