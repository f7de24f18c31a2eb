"""A hash of what a picture shows, and the search for pictures with nearly the same.

All good parts of one kind look alike, so that a hash of the picture itself finds
everything near everything. Here the category's mean is taken away first and each
coefficient is divided by its spread: what all parts share cancels, and the signs of the
rest are the hash. The search sorts hashes under random orders of their bits (Charikar,
"Similarity estimation techniques from rounding algorithms", STOC 2002, section 3;
Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007):
near ones come to stand beside each other in some order, whatever the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]  # (n, 2): 128 bits a picture

DESCRIPTOR_SIZE: Final = 128
SIDE: Final = 64  # px; a shift of 2 % is a pixel
LOWEST: Final = 12  # coefficients in each direction: up to 6 periods across
HIGH_PASS_PX: Final = 4.0
LEVELS: Final = 8.0  # int8 steps for a unit of a coefficient, of deviation 3

ORDERS: Final = (
    24  # of the bits; with 24, distance 20 of 10^5 pictures is found by 94 %
)
WINDOW: Final = 16  # neighbours in each order that are compared


def whitened(grey: Grey, side: int, high_pass_px: float) -> npt.NDArray[np.float32]:
    """Give a small copy (side, side) with slow changes and local contrast taken away.

    Mean 0 and deviation 1; zeros for a constant picture. Light and exposure hardly
    change it.
    """
    import cv2

    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    fine = small.astype(np.float32)
    fine = fine - cv2.GaussianBlur(fine, (0, 0), high_pass_px)
    energy = cv2.GaussianBlur(fine * fine, (0, 0), 2 * high_pass_px)
    level = float(fine.std())
    if level < 1e-3:
        return np.zeros((side, side), np.float32)
    # Half of the overall contrast is added: where there is nothing, noise stays small.
    even = fine / (np.sqrt(np.maximum(energy, 0)) + 0.5 * level)
    even = even - even.mean()
    return np.asarray(even / max(float(even.std()), 1e-6), dtype=np.float32)


def descriptor(grey: Grey) -> npt.NDArray[np.int8]:
    """Give 128 numbers for a picture (H, W): its lowest cosine coefficients."""
    import cv2

    coefficients = cv2.dct(whitened(grey, SIDE, HIGH_PASS_PX))[:LOWEST, :LOWEST]
    lowest = np.asarray(coefficients).ravel()[1 : DESCRIPTOR_SIZE + 1]
    steps: npt.NDArray[np.int8] = np.clip(np.rint(lowest * LEVELS), -127, 127).astype(
        np.int8
    )
    return steps


def hashes(descriptors: npt.NDArray[np.int8]) -> Hashes:
    """Give (n, 2) uint64: the signs of what is individual in each descriptor."""
    n = len(descriptors)
    # Two pictures are each other's mirror about their mean: below four, none is taken.
    mean = descriptors.mean(axis=0, dtype=np.float64) if n >= 4 else 0.0
    signs = np.empty((n, DESCRIPTOR_SIZE // 8), np.uint8)
    for start in range(
        0, n, 4096
    ):  # in parts: as floats all would be eight times larger
        part = descriptors[start : start + 4096] - mean
        signs[start : start + 4096] = np.packbits(part > 0, axis=1)
    return signs.view(np.uint64)


def neighbours(
    codes: Hashes, sides: npt.NDArray[np.int8], *, each: int, within: int
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Give, for pictures of side 1, those of side 0 with the nearest hashes.

    At most ORDERS * WINDOW comparisons a picture, whatever the data.

    Args:
        codes: (n, 2) hashes.
        sides: (n,) 0 or 1.
        each: how many at most for one picture.
        within: bits that may differ.

    Yields:
        (index, [(bits that differ, index of side 0), ...]), nearest first, by index.
    """
    n = len(codes)
    best: dict[int, dict[int, int]] = {}
    rng = np.random.default_rng(0)
    bits = np.unpackbits(codes.view(np.uint8), axis=1)
    for _ in range(ORDERS):
        mixed = np.packbits(bits[:, rng.permutation(DESCRIPTOR_SIZE)], axis=1)
        words = np.ascontiguousarray(mixed).view(np.uint64)
        order = np.lexsort((words[:, 1], words[:, 0]))
        for step in range(1, min(WINDOW, n - 1) + 1):
            first, second = order[:-step], order[step:]
            crossing = sides[first] != sides[second]
            first, second = first[crossing], second[crossing]
            distance = _differing_bits(codes[first], codes[second])
            near = distance <= within
            judged = np.where(sides[first] == 1, first, second)[near]
            learned = np.where(sides[first] == 1, second, first)[near]
            for i, j, d in zip(
                judged.tolist(), learned.tolist(), distance[near].tolist(), strict=True
            ):
                _keep(best.setdefault(i, {}), j, d, each)
    for i in sorted(best):
        yield i, sorted((d, j) for j, d in best[i].items())


def _keep(kept: dict[int, int], index: int, distance: int, limit: int) -> None:
    """Keep the nearest few; of equal distance those with the lower index."""
    kept[index] = distance
    if len(kept) > limit:
        del kept[max(kept, key=lambda other: (kept[other], other))]


def _differing_bits(first: Hashes, second: Hashes) -> npt.NDArray[np.int64]:
    different = np.bitwise_xor(first, second).view(np.uint8)
    counts: npt.NDArray[np.int64] = _ONES[different].sum(axis=1, dtype=np.int64)
    return counts


_ONES: Final = np.asarray([bin(value).count("1") for value in range(256)], np.uint8)
