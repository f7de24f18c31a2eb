"""A hash of what a picture shows, and the search for pictures with nearly the same.

All good parts of one kind look alike, so that a hash of the picture itself finds
everything near everything. Here the category's mean is taken away first, and then its
strongest principal components (how parts lie, which of two designs they are): what many
parts share cancels, and the signs of the rest are the hash. The search sorts hashes
under random orders of their bits (Charikar, "Similarity estimation techniques from
rounding algorithms", STOC 2002, section 3; Manku, Jain and Das Sarma, "Detecting
near-duplicates for web crawling", WWW 2007): near ones come to stand beside each other
in some order, whatever the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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

SHARED: Final = 16  # principal components that are taken away, at most n / 16
ORDERS: Final = (
    24  # of the bits; with 24, distance 20 of 10^5 pictures is found by 94 %
)
PART: Final = 4096  # pictures at a time: as bits or floats, all would be 8 times larger
WINDOW: Final = 16  # neighbours in each order that are compared


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest of m pictures, in `each` columns, nearest first.

    Attributes:
        of: (m,) indices of the pictures, ascending; those without any are left out.
        index: (m, each) indices of their neighbours; -1 where there are no more.
        bits: (m, each) how many bits differ.
    """

    of: npt.NDArray[np.int64]
    index: npt.NDArray[np.int32]
    bits: npt.NDArray[np.uint8]


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
    mean = descriptors.mean(axis=0, dtype=np.float64) if n >= 4 else np.zeros(1)
    parts = range(0, n, PART)
    covariance = np.zeros((DESCRIPTOR_SIZE, DESCRIPTOR_SIZE))
    for start in parts:
        centred = descriptors[start : start + PART] - mean
        covariance += centred.T @ centred
    directions = np.linalg.eigh(covariance)[1][:, ::-1][:, : min(SHARED, n // 16)]
    signs = np.empty((n, DESCRIPTOR_SIZE // 8), np.uint8)
    for start in parts:
        centred = descriptors[start : start + PART] - mean
        individual = centred - (centred @ directions) @ directions.T
        signs[start : start + PART] = np.packbits(individual > 0, axis=1)
    return signs.view(np.uint64)


def neighbours(
    codes: Hashes,
    sides: npt.NDArray[np.int8],
    *,
    same: npt.NDArray[np.int64],
    each: int,
    within: int,
) -> Neighbours:
    """Give, for pictures of side 1, those of side 0 with the nearest hashes.

    At most ORDERS * WINDOW comparisons a picture, whatever the data.

    Args:
        codes: (n, 2) hashes.
        sides: (n,) 0 or 1.
        same: (n,) ids; pictures of equal id are no neighbours.
        each: how many at most for one picture.
        within: bits that may differ.
    """
    judged = np.flatnonzero(sides == 1)
    place = np.zeros(len(codes), np.int64)
    place[judged] = np.arange(len(judged))
    nearest = _Nearest(len(judged), each, within)
    for order in _orders(codes):
        for step in range(1, min(WINDOW, len(codes) - 1) + 1):
            ahead, behind = order[:-step], order[step:]
            for test, learned in ((ahead, behind), (behind, ahead)):
                pairs = (sides[test] == 1) & (sides[learned] == 0)
                pairs &= same[test] != same[learned]
                i, j = test[pairs], learned[pairs]
                nearest.add(place[i], j, _differing_bits(codes[i], codes[j]))
    return nearest.found(judged)


def _orders(codes: Hashes) -> Iterator[npt.NDArray[np.int64]]:
    """Give the pictures sorted by their bits, in several random orders of the bits."""
    rng = np.random.default_rng(0)
    packed = codes.view(np.uint8)
    mixed = np.empty_like(packed)
    for _ in range(ORDERS):
        order = rng.permutation(DESCRIPTOR_SIZE)
        for start in range(0, len(codes), PART):
            bits = np.unpackbits(packed[start : start + PART], axis=1)
            mixed[start : start + PART] = np.packbits(bits[:, order], axis=1)
        words = mixed.view(np.uint64)
        yield np.lexsort((words[:, 1], words[:, 0]))


class _Nearest:
    """The few nearest of each of n pictures, as they come."""

    def __init__(self, n: int, each: int, within: int) -> None:
        self._none = within + 1
        self._bits = np.full((n, each), self._none, np.uint8)
        self._index = np.full((n, each), -1, np.int32)

    def add(
        self,
        row: npt.NDArray[np.int64],
        index: npt.NDArray[np.int64],
        bits: npt.NDArray[np.int64],
    ) -> None:
        """Take one candidate for each row, no row twice, where it is nearer."""
        known = (self._index[row] == index[:, None]).any(axis=1)
        worst = self._bits[row].argmax(axis=1)
        nearer = ~known & (bits < self._bits[row, worst])
        self._bits[row[nearer], worst[nearer]] = bits[nearer]
        self._index[row[nearer], worst[nearer]] = index[nearer]

    def found(self, rows: npt.NDArray[np.int64]) -> Neighbours:
        """Give those that have any, nearest first; `rows` names the n pictures."""
        nearest = np.argsort(self._bits, axis=1, kind="stable")
        bits = np.take_along_axis(self._bits, nearest, axis=1)
        index = np.take_along_axis(self._index, nearest, axis=1)
        some = index[:, 0] >= 0
        return Neighbours(rows[some], index[some], bits[some])


def _differing_bits(first: Hashes, second: Hashes) -> npt.NDArray[np.int64]:
    different = np.bitwise_xor(first, second).view(np.uint8)
    counts: npt.NDArray[np.int64] = _ONES[different].sum(axis=1, dtype=np.int64)
    return counts


_ONES: Final = np.asarray([bin(value).count("1") for value in range(256)], np.uint8)
