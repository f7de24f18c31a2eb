"""Detectors that are a frozen feature extractor and a fitted scorer.

Features are computed once; the final model and every fold of the calibration are
fitted on them (`FeatureSet.subset`), and `forward` is the two halves in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .interface import Detector, FitContext, TrainingData


class FeatureSet:
    """Features of many images (n, C, h, w) float32, in memory or in a mapped file."""

    def __init__(
        self, values: npt.NDArray[np.float32], indices: npt.NDArray[np.int64]
    ) -> None:
        self._values = values
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one image's features."""
        channels, height, width = self._values.shape[1:]
        return channels, height, width

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> FeatureSet:
        """Give a view of some images, by position; nothing is copied."""
        return FeatureSet(self._values, self._indices[np.asarray(indices, np.int64)])

    def image(self, index: int) -> Tensor:
        """Give the features (C, h, w) of one image."""
        return torch.from_numpy(np.array(self._values[self._indices[index]]))

    def batches(self, size: int = 16) -> Iterator[Tensor]:
        """Give all features as (B, C, h, w), B at most `size`, in order."""
        for start in range(0, len(self), size):
            chunk = self._values[self._indices[start : start + size]]
            yield torch.from_numpy(np.ascontiguousarray(chunk))


class FeatureDetector(Detector):
    """A detector whose `forward` is `score_features(features(images))`."""

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, C, h, w) float32 features of (N, H, W, 3) uint8 images."""
        raise NotImplementedError

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Give score (N,) and map (N, map_h, map_w) of (N, C, h, w) features."""
        raise NotImplementedError

    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Fit the scorer on the features of normals."""
        raise NotImplementedError

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score a batch; see `Detector.forward`."""
        return self.score_features(self.features(images_u8))

    def fit(self, data: TrainingData, *, context: FitContext) -> Self:
        """Compute the features of the normals, then fit the scorer on them."""
        return self.fit_features(self.extract(data, context=context), context=context)

    @torch.no_grad()
    def extract(self, data: TrainingData, *, context: FitContext) -> FeatureSet:
        """Compute the features of all normals once; on disk past the memory budget."""
        self.eval().to(context.device)
        store: npt.NDArray[np.float32] | None = None
        done = 0
        for batch in data.normals():
            values = self.features(batch.to(context.device)).cpu().numpy()
            if store is None:
                store = _allocate((data.n_normals, *values.shape[1:]), context)
            store[done : done + len(values)] = values
            done += len(values)
            context.progress("features", done, data.n_normals)
        if store is None or done != data.n_normals:
            raise ValueError(f"{done} of {data.n_normals} normals were given")
        return FeatureSet(store, np.arange(done, dtype=np.int64))


def _allocate(shape: tuple[Any, ...], context: FitContext) -> npt.NDArray[np.float32]:
    n_bytes = int(np.prod(shape)) * 4
    if n_bytes <= context.memory_budget // 2:
        return np.empty(shape, dtype=np.float32)
    path = context.workspace / "features.npy"
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
