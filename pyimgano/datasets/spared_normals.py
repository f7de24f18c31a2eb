"""Which train normals a detector that trains by gradient does not learn from.

A fifth sets the threshold, where the manifest has no val rows; a tenth of what is left
says when to stop. Pictures of one part stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from .rows import ManifestRow
from .splits import folds

HELD_OUT_PARTS: Final = 5  # one of them sets the threshold
TUNING_SHARE: Final = 0.1
LEAST_TO_TUNE: Final = 10  # of fewer normals, none are spared

Parted = tuple[list[ManifestRow], list[ManifestRow]]


def held_out_part(normals: Sequence[ManifestRow], *, seed: int) -> Parted:
    """Give the fifth that sets thresholds, and the rest; groups stay together.

    Of 2 to 4 normals one group is held out: its promise is weak, and said to be.

    Raises:
        DatasetError: fewer than two groups.
    """
    parts = folds([row.group for row in normals], n_folds=HELD_OUT_PARTS, seed=seed)
    fifth = len(normals) / HELD_OUT_PARTS
    # Large groups may stand alone in the first part; the nearest to a fifth is taken.
    nearest = min(parts, key=lambda part: abs(len(part) - fifth))
    chosen = set(nearest)
    return (
        [row for i, row in enumerate(normals) if i in chosen],
        [row for i, row in enumerate(normals) if i not in chosen],
    )


def tuning_part(normals: Sequence[ManifestRow], *, seed: int) -> Parted:
    """Give the tenth that a training stops early on, and the rest; groups together.

    Groups are taken in an order of the seed's while they fit. None where there are few
    normals, or where no group is small enough: learning comes first.
    """
    if len(normals) < LEAST_TO_TUNE:
        return [], list(normals)
    sizes: dict[str, int] = {}
    for row in normals:
        sizes[row.group] = sizes.get(row.group, 0) + 1

    def order(group: str) -> bytes:
        text = f"{seed}\0tuning\0{group}".encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).digest()

    left = max(1, round(TUNING_SHARE * len(normals)))
    chosen = set()
    for group in sorted(sizes, key=order):
        if sizes[group] <= left:
            chosen.add(group)
            left -= sizes[group]
    return (
        [row for row in normals if row.group in chosen],
        [row for row in normals if row.group not in chosen],
    )
