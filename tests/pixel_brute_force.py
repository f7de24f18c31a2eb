"""Pixel metrics straight from their definitions: every distinct score a threshold."""

from itertools import pairwise

import numpy as np

AUPRO_LIMITS = {"aupro_0.3": 0.3, "aupro_0.05": 0.05}


def regions_of(mask):
    """8-connected regions as lists of (row, column), by flood fill."""
    todo = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while todo:
        region, front = [], [todo.pop()]
        while front:
            row, column = front.pop()
            region.append((row, column))
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
            front += around & todo
            todo -= around
        regions.append(region)
    return regions


def seg_f1(images, threshold):
    """F1 of all pixels of all (map, mask) at one threshold."""
    hits = false = missed = 0
    for scores, mask in images:
        flagged = np.float32(scores) >= np.float32(threshold)
        defect = np.array(mask, bool)
        hits += int((flagged & defect).sum())
        false += int((flagged & ~defect).sum())
        missed += int((~flagged & defect).sum())
    return 2 * hits / (2 * hits + false + missed)


def brute_force(images):
    """AUROC, AUPRO and the best SegF1 of (map, mask) pairs, under their report keys."""
    images = [(np.float32(scores), np.array(mask, bool)) for scores, mask in images]
    normal = np.concatenate([scores[~mask] for scores, mask in images])
    defect = np.concatenate([scores[mask] for scores, mask in images])
    regions = [
        np.array([scores[pixel] for pixel in region])
        for scores, mask in images
        for region in regions_of(mask)
    ]
    curve, f1 = [(0.0, 0.0)], []
    for threshold in sorted({*normal.tolist(), *defect.tolist()}, reverse=True):
        overlap = np.mean([(region >= threshold).mean() for region in regions])
        curve.append(((normal >= threshold).mean(), overlap))
        hits, false = (defect >= threshold).sum(), (normal >= threshold).sum()
        f1.append(2 * hits / (hits + false + len(defect)))

    metrics = {
        "pixel_auroc": (defect[:, None] > normal).mean()
        + 0.5 * (defect[:, None] == normal).mean(),
        "oracle_seg_f1": max(f1),
    }
    for key, limit in AUPRO_LIMITS.items():
        area = 0.0
        for (x0, y0), (x1, y1) in pairwise(curve):
            if x0 < limit and x1 > x0:
                end = min(x1, limit)
                y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
                area += (end - x0) * (y0 + y_end) / 2
        metrics[key] = area / limit
    return metrics
