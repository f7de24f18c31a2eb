"""Principal axes of a cloud of feature vectors, in one pass and in float64."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Count, mean and covariance of vectors that come in batches.

    The vectors are shifted by the first batch's mean before they are summed, so that
    the sum of squares keeps its digits.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift: Tensor | None = None  # (C,)
        self._total: Tensor  # (C,)
        self._squares: Tensor  # (C, C)

    def update(self, vectors: Tensor) -> None:
        """Add vectors (P, C), P >= 1."""
        points = vectors.double()
        if self._shift is None:
            self._shift = points.mean(dim=0)
            self._total = torch.zeros_like(self._shift)
            self._squares = torch.zeros_like(torch.outer(self._shift, self._shift))
        points = points - self._shift
        self.count += len(points)
        self._total += points.sum(dim=0)
        self._squares.addmm_(points.T, points)

    @property
    def mean(self) -> Tensor:
        """Mean vector (C,) float64."""
        assert self._shift is not None
        return self._shift + self._total / self.count

    @property
    def covariance(self) -> Tensor:
        """Covariance (C, C) float64, divided by the count."""
        step = self._total / self.count
        return self._squares / self.count - torch.outer(step, step)

    def axes(self) -> tuple[Tensor, Tensor]:
        """Give the variances (C,), falling, and their axes (C, C), one a column."""
        variances, axes = torch.linalg.eigh(self.covariance)  # rising
        axes = axes.flip(1)
        # An axis has no sign; the largest entry is made positive, so that every
        # machine stores the same one.
        largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))  # (1, C)
        return variances.flip(0).clamp_min(0.0), axes * largest.sign()


def principal_axes(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Give the variances (C,), falling, and the axes (C, C) of vectors (P, C)."""
    moments = Moments()
    for chunk in torch.split(vectors, 16384):  # float64 copies of a part at a time
        moments.update(chunk)
    return moments.axes()
