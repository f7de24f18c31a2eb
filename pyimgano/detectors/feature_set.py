"""What was computed once from many pictures: in memory, or in a mapped file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .interface import FitContext


class FeatureSet:
    """Features of many images (n, C, h, w) float32, in memory or in a mapped file.

    Args:
        parts: (all images,) which part each shows: augmented copies, tiles and
            photographs of one part have equal numbers, and are never divided where
            some images are held out. Default: each image shows its own.
    """

    def __init__(
        self,
        values: npt.NDArray[np.float32],
        indices: npt.NDArray[np.int64],
        parts: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._values = values
        self._indices = indices
        self._parts = np.arange(len(values)) if parts is None else parts

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
            name: of the step for the progress, and of the file in the workspace.

        Raises:
            ValueError: `batches` gave another number of images.
        """
        store: npt.NDArray[np.float32] | None = None
        done = 0
        for batch in batches:
            values = compute(batch.to(context.device)).cpu().numpy()
            if store is None:
                store = _allocate((n_images, *values.shape[1:]), context, name)
            store[done : done + len(values)] = values
            done += len(values)
            context.progress(name, done, n_images)
        if store is None or done != n_images:
            raise ValueError(f"{done} of {n_images} images were given")
        return cls(store, np.arange(done, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one image's features."""
        channels, height, width = self._values.shape[1:]
        return channels, height, width

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> FeatureSet:
        """Give a view of some images, by position; nothing is copied."""
        chosen = self._indices[np.asarray(indices, np.int64)]
        return FeatureSet(self._values, chosen, self._parts)

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
        whole = np.full(len(self._values), -1, dtype=np.int64)
        whole[self._indices] = parts
        return FeatureSet(self._values, self._indices, whole)

    def columns(self, start: int, end: int, shape: tuple[int, int, int]) -> FeatureSet:
        """Give a part of each image's features, as (C, h, w); nothing is copied."""
        flat = self._values.reshape(len(self._values), -1)[:, start:end]
        return FeatureSet(flat.reshape(len(flat), *shape), self._indices, self._parts)

    def image(self, index: int) -> Tensor:
        """Give the features (C, h, w) of one image."""
        return torch.from_numpy(np.array(self._values[self._indices[index]]))

    def images(self, indices: Tensor) -> Tensor:
        """Give the features (B, C, h, w) of some images: a batch for training."""
        chosen = self._indices[indices.numpy()]
        return torch.from_numpy(np.ascontiguousarray(self._values[chosen]))

    def batches(self, size: int = 16) -> Iterator[Tensor]:
        """Give all features as (B, C, h, w), B at most `size`, in order."""
        for start in range(0, len(self), size):
            chunk = self._values[self._indices[start : start + size]]
            yield torch.from_numpy(np.ascontiguousarray(chunk))


def _allocate(
    shape: tuple[Any, ...], context: FitContext, name: str
) -> npt.NDArray[np.float32]:
    n_bytes = int(np.prod(shape)) * 4
    if n_bytes <= context.memory_budget // 2:
        return np.empty(shape, dtype=np.float32)
    path = context.workspace / f"{name.replace(' ', '_')}.npy"
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
