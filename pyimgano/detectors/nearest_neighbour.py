"""Exact distance to the nearest vectors of a bank, as graph operators.

torch.cdist with a dynamic batch and a median do not export; a matrix product does. The
product `q.b - |b|^2 / 2` ranks the bank but loses digits near zero, so only the choice
of the neighbours comes from it: their distances are computed from the differences
themselves (parity 2.5e-6 instead of 5e-4 where a patch lies in the bank).
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from .feature_set import FeatureSet

# Of the largest number; float16 itself rounds by 5e-4 of each number.
HALF_TOLERANCE: Final = 1e-3


def nearest(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Give the squared distance (Q,) to the nearest bank row, and its row (Q,) int64.

    Args:
        queries: (Q, C).
        bank: (M, C), M >= 1. Centre both by the same vector: it keeps digits in the
            choice.
    """
    row = _closeness(queries, bank).argmax(dim=1)  # (Q,)
    return (queries - bank[row]).square().sum(dim=1), row


def k_nearest(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Give the squared distances (Q, k) to the k nearest bank rows, in no order.

    Args:
        queries: (Q, C).
        bank: (M, C), M >= k.
        k: how many, >= 1.
    """
    rows = _closeness(queries, bank).topk(k, dim=1).indices  # (Q, k)
    return (queries.unsqueeze(1) - bank[rows]).square().sum(dim=2)


def _closeness(queries: Tensor, bank: Tensor) -> Tensor:
    """Give (|q|^2 - |q - b|^2) / 2 for every pair: (Q, M).

    One matrix product, [q, 1] times [b, -|b|^2 / 2]: no second pass over all pairs adds
    the squares, and the bank's side is a constant of the graph.
    """
    halves = bank.square().sum(dim=1, keepdim=True) * -0.5  # (M, 1)
    return F.linear(F.pad(queries, (0, 1), value=1.0), torch.cat([bank, halves], dim=1))


def half_precision(bank: Tensor) -> Tensor:
    """Round a bank (M, C) to numbers that float16 holds, as float32.

    A graph then stores it in half the bytes, without loss
    (`pyimgano_exporters.half_storage`). A bank that float16 would spoil, because its
    numbers are too large or too small for it, is given back as it is.
    """
    rounded = bank.half().float()
    largest = bank.abs().max() if bank.numel() else bank.new_zeros(())
    error = (rounded - bank).abs().max() if bank.numel() else largest
    # Written so that an infinite error is refused too.
    return rounded if bool(error <= HALF_TOLERANCE * largest) else bank


def sampled_patches(
    features: FeatureSet, limit: int, *, generator: torch.Generator
) -> Tensor:
    """Give about `limit` patches (P, C), drawn evenly over the images; all if fewer.

    Of more images than `limit`, so many give one patch each.
    """
    channels, height, width = features.shape
    images = torch.arange(len(features))
    if len(images) > limit:
        images = torch.randperm(len(images), generator=generator)[:limit].sort().values
    per_image = min(-(-limit // len(images)), height * width)  # rounded up
    sample = torch.empty(len(images), per_image, channels)
    for place, index in zip(sample, images.tolist(), strict=True):
        patches = features.image(index).reshape(channels, -1)  # (C, h*w)
        if per_image < height * width:
            order = torch.randperm(height * width, generator=generator)
            patches = patches[:, order[:per_image]]
        place.copy_(patches.T)
    return sample.reshape(-1, channels)
