"""AUROC, AUPRO and the best F1 of binned scores, each with what binning can hide.

All take histograms (bins,) with the score falling, so a prefix is what one threshold
flags. At the bin edges binned and exact curves meet; between them each function
bounds how far they can lie apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def binned_auroc(
    normal: NDArray[np.float64], defect: NDArray[np.float64]
) -> tuple[float, float]:
    """AUROC and its error bound from counts (bins,), scores falling.

    Pairs within a bin count half, as ties do; in truth each may count 0 or 1.
    """
    pairs = normal.sum() * defect.sum()
    normal_below = normal.sum() - np.cumsum(normal)
    half_tied = 0.5 * (defect * normal).sum()
    return (
        float(((defect * normal_below).sum() + half_tied) / pairs),
        float(half_tied / pairs),
    )


def binned_aupro(
    normal: NDArray[np.float64], region: NDArray[np.float64], limit: float
) -> tuple[float, float]:
    """Area under mean overlap against FPR in [0, limit] over `limit`; error bound.

    Both curves, the binned and the exact, are non-decreasing and meet at the bin
    edges, so within a bin they stay in one rectangle. The binned one halves it.

    Args:
        normal: (bins,) counts of normal pixels, scores falling.
        region: (bins,) sums of 1/|R|; they add up to the number of regions.
        limit: largest FPR, 0 < limit < 1.
    """
    fpr = np.concatenate([[0.0], np.cumsum(normal)]) / normal.sum()
    pro = np.concatenate([[0.0], np.cumsum(region)])
    pro /= pro[-1]
    end = int(np.searchsorted(fpr, limit, side="right"))  # fpr[end - 1] <= limit
    share = (limit - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
    pro_at_limit = pro[end - 1] + share * (pro[end] - pro[end - 1])

    fpr_steps = np.diff(np.append(fpr[:end], limit))
    pro_means = (pro[:end] + np.append(pro[1:end], pro_at_limit)) / 2
    # In the bin cut by the limit the exact curve may already have risen to pro[end].
    overshoots = np.maximum(pro[1 : end + 1] - pro_means, pro_means - pro[:end])
    return (
        float((fpr_steps * pro_means).sum() / limit),
        float((fpr_steps * overshoots).sum() / limit),
    )


def binned_best_f1(
    normal: NDArray[np.float64], defect: NDArray[np.float64]
) -> tuple[float, float]:
    """Largest F1 over thresholds at bin edges, and how much larger the true one can be.

    The edges are thresholds like any other, so the true best F1 is never smaller. A
    threshold inside a bin flags at least the normals above the bin and at most the
    defects down to its end: F1 cannot exceed that of these two counts.
    """
    hits = np.cumsum(defect)
    false = np.cumsum(normal)
    false_above = false - normal  # counts are whole numbers: nothing is rounded
    at_edges = 2 * hits / (hits + false + hits[-1])
    within = 2 * hits / (hits + false_above + hits[-1])
    best = float(at_edges.max())
    return best, float(within.max()) - best
