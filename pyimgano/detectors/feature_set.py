"""What was computed once from many pictures: in memory, or on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .feature_rows import FLOAT_BYTES, FileRows, MemoryRows, Rows
from .interface import FitContext


class FeatureSet:
    """Features of many images (n, C, h, w) float32, in memory or in a file.

    Args:
        values: the array (n, C, h, w), or where else its rows lie.
        parts: (all images,) which part each shows: augmented copies, tiles and
            photographs of one part have equal numbers, and are never divided where
            some images are held out. Default: each image shows its own.
    """

    def __init__(
        self,
        values: npt.NDArray[np.float32] | Rows,
        indices: npt.NDArray[np.int64],
        parts: npt.NDArray[np.int64] | None = None,
    ) -> None:
        rows = MemoryRows(values) if isinstance(values, np.ndarray) else values
        self._rows: Rows = rows
        self._indices = indices
        self._parts = np.arange(rows.shape[0]) if parts is None else parts

    @classmethod
    @torch.no_grad()
    def collect(
        cls,
        batches: Iterable[Tensor],
        compute: Callable[[Tensor], Tensor],
        *,
        n_images: int,
        context: FitContext,
        name: str = "features",
    ) -> Self:
        """Compute the features of all images once; on disk past the memory budget.

        Args:
            batches: uint8 RGB (B, H, W, 3); sizes may change between batches.
            compute: gives (B, C, h, w) of a batch on the context's device.
            n_images: how many images `batches` gives in all, >= 1.
            name: of the step for the progress.

        Raises:
            ValueError: `batches` gave another number of images.
        """
        rows: Rows | None = None
        done = 0
        for batch in batches:
            values = compute(batch.to(context.device)).cpu().numpy()
            if rows is None:
                rows = _allocate((n_images, *values.shape[1:]), context)
            rows.write(done, values)
            done += len(values)
            context.progress(name, done, n_images)
        if rows is None or done != n_images:
            raise ValueError(f"{done} of {n_images} images were given")
        return cls(rows, np.arange(done, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one image's features."""
        channels, height, width = self._rows.shape[1:]
        return channels, height, width

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> FeatureSet:
        """Give a view of some images, by position; nothing is copied."""
        chosen = self._indices[np.asarray(indices, np.int64)]
        return FeatureSet(self._rows, chosen, self._parts)

    @property
    def parts(self) -> npt.NDArray[np.int64]:
        """(n,) which part each image shows; see the class."""
        return self._parts[self._indices]

    def with_parts(self, parts: npt.NDArray[np.int64]) -> FeatureSet:
        """Give the same features, of these parts (n,); nothing is copied.

        Raises:
            ValueError: not one number for each image.
        """
        if len(parts) != len(self):
            raise ValueError(f"{len(parts)} parts for {len(self)} images")
        whole = np.full(self._rows.shape[0], -1, dtype=np.int64)
        whole[self._indices] = parts
        return FeatureSet(self._rows, self._indices, whole)

    def columns(self, start: int, end: int, shape: tuple[int, int, int]) -> FeatureSet:
        """Give a part of each image's features, as (C, h, w); nothing is copied."""
        rows = self._rows.columns(start, end, shape)
        return FeatureSet(rows, self._indices, self._parts)

    def image(self, index: int) -> Tensor:
        """Give the features (C, h, w) of one image."""
        return torch.from_numpy(self._rows.read(self._indices[[index]])[0])

    def images(self, indices: Tensor) -> Tensor:
        """Give the features (B, C, h, w) of some images: a batch for training."""
        return torch.from_numpy(self._rows.read(self._indices[indices.numpy()]))

    def batches(self, size: int = 16) -> Iterator[Tensor]:
        """Give all features as (B, C, h, w), B at most `size`, in order."""
        for start in range(0, len(self), size):
            chunk = self._rows.read(self._indices[start : start + size])
            yield torch.from_numpy(chunk)


def _allocate(shape: tuple[int, ...], context: FitContext) -> Rows:
    """Half of the budget is for features, half for what is made of them."""
    if math.prod(shape) * FLOAT_BYTES <= context.memory_budget // 2:
        return MemoryRows(np.empty(shape, dtype=np.float32))
    return FileRows.empty(context.workspace, shape)
