"""How scores, brightness and sharpness lay in training: what drift is measured from.

A category's block `reference` of `infer_config.json`. Training makes it of its normals,
and the export in 8 bits and `calibrate` make its scores anew from their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .quick_dataclass import dataclass

if TYPE_CHECKING:
    from .infer_config import Calibration, Thresholds
    from .picture_statistics import PictureStatistics

Values = npt.NDArray[np.float64]

MOST_BINS: Final = 10
LEAST_PER_BIN: Final = 5  # values; few values get few bins, at least two


@dataclass(frozen=True, slots=True)
class Distribution:
    """How one number lay over the normals: moments, and counts between edges.

    The first bin is open to below and the last to above; a value on an edge belongs to
    the bin above it.
    """

    n: int  # values
    n_groups: int  # different parts they come from, at most n
    mean: float
    sd: float  # root of the mean squared deviation
    edges: tuple[float, ...]  # ascending, each once: quantiles
    counts: tuple[int, ...]  # one more than edges; their sum is n


@dataclass(frozen=True, slots=True)
class Reference:
    """What drift of one category is measured from."""

    scores: Distribution | None  # None: no scores of held-out normals are there
    brightness: Distribution  # grey levels, 0 to 255
    sharpness: Distribution  # squared grey levels


def distribution_of(
    values: Sequence[float] | npt.NDArray[np.floating], n_groups: int
) -> Distribution:
    """Give the distribution of some values.

    The edges are quantiles, so that each bin holds about as many values: ten bins from
    50 values on, fewer of fewer. Equal values share a bin, and edges that fall together
    are one.

    Args:
        values: (n,) finite, n at least 1.
        n_groups: how many different parts they show.

    Raises:
        ValueError: no values.
    """
    sorted_values: Values = np.sort(np.asarray(values, dtype=np.float64))
    n = len(sorted_values)
    if n == 0:
        raise ValueError("found no values, expected at least one")
    n_bins = min(MOST_BINS, max(2, n // LEAST_PER_BIN))
    inner = np.arange(1, n_bins) / n_bins
    edges = np.unique(np.quantile(sorted_values, inner))
    return Distribution(
        n=n,
        n_groups=min(n_groups, n),
        mean=float(sorted_values.mean()),
        sd=float(sorted_values.std()),
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(c) for c in bin_counts(sorted_values, tuple(edges))),
    )


def bin_counts(
    values: Sequence[float] | npt.NDArray[np.floating], edges: Sequence[float]
) -> npt.NDArray[np.int64]:
    """Give how many values lie in each bin, (len(edges) + 1,)."""
    places = np.searchsorted(np.asarray(edges, dtype=np.float64), values, side="right")
    return np.bincount(places, minlength=len(edges) + 1).astype(np.int64)


def picture_reference(
    statistics: Sequence[PictureStatistics], n_groups: int
) -> Reference:
    """Give the reference of normals' pictures, without scores.

    Args:
        statistics: of each picture, at least one.
        n_groups: how many different parts they show.
    """
    return Reference(
        scores=None,
        brightness=distribution_of([s.brightness for s in statistics], n_groups),
        sharpness=distribution_of([s.sharpness for s in statistics], n_groups),
    )


def with_scores(
    reference: Reference, thresholds: Thresholds, calibration: Calibration
) -> Reference:
    """Give the reference with the scores of a calibration in place of its own."""
    scores = None
    if calibration.image_scores:
        groups = thresholds.provenance["image"].n_groups
        scores = distribution_of(calibration.image_scores, groups)
    return Reference(scores, reference.brightness, reference.sharpness)
