"""Finds pictures of one part, or one frame, on both sides of a split.

A hash proposes (`perceptual_hash.py`), a finer comparison decides: both pictures small
and high-passed; what many of the category share taken away (the mean, the strongest
principal components); strong frequencies held down; aligned at the best small shift, to
half a pixel. Then they must agree block by block: a common pose or grid
agrees somewhere, one photograph agrees everywhere. It finds pictures that were saved
again, made smaller, exposed differently or moved a little. It does not find a part that
was turned, moved far or lit from another side. docs/preflight.md has measured rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.ordered_threads import in_order

from .perceptual_hash import (
    DESCRIPTOR_SIZE,
    Grey,
    descriptor,
    hashes,
    neighbours,
    whitened,
)

__all__ = [
    "DESCRIPTOR_SIZE",
    "NearDuplicates",
    "NearPair",
    "descriptor",
    "find_near_duplicates",
    "thumbnail",
]

Thumbnail = npt.NDArray[np.float32]
Spectrum = npt.NDArray[np.complex64]

SIDE: Final = 128  # px
HIGH_PASS_PX: Final = 2.0
MAX_SHIFT: Final = 0.06  # of the side
TAPER: Final = 0.25  # periods a pixel where weights fall to 1/e: finer is mostly noise
BLOCKS: Final = 5  # in each direction; a screw leaves most of 25 to the background
QUANTILE: Final = 0.25  # of the blocks' correlations: three of four agree better
# Chosen on five sets of photographs: other screws in the same pose reach 0.20, other
# solar cells 0.38; of planted copies at JPEG quality 50, 95 % and more are above. Drawn
# parts that differ by little but noise reach 0.78.
SIMILAR: Final = 0.45
WITHIN_BITS: Final = 40  # of 128; hashes of strangers differ in 64, standard error 5.7
VERIFIED_EACH: Final = 2  # pairs that are compared for one test picture at most
SAMPLE: Final = 200  # pictures that tell what the category shares
SHARED: Final = 12  # principal components that are taken away, at most n / 16
CACHED: Final = 512  # spectra, 33 kB each


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two pictures that show one thing; `first` learns, `second` is tested."""

    first: int
    second: int
    similarity: float  # 0..1; three of four blocks correlate at least as well


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """What was found in one category, most similar first.

    Attributes:
        pairs: each with one picture on either side; at most 2 for a test picture.
        clusters: the pictures that pairs join.
    """

    pairs: tuple[NearPair, ...]
    clusters: tuple[tuple[int, ...], ...]


def thumbnail(grey: Grey) -> Thumbnail:
    """Give what is compared of a picture (H, W): (128, 128), mean 0, deviation 1."""
    return whitened(grey, SIDE, HIGH_PASS_PX)


def find_near_duplicates(
    descriptors: npt.NDArray[np.int8],
    sides: npt.NDArray[np.int8],
    load: Callable[[int], Thumbnail],
    *,
    same: npt.NDArray[np.int64],
    similar: float = SIMILAR,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> NearDuplicates:
    """Give the near-duplicates across the sides of one category.

    Time and memory grow with the number of pictures, whatever they show: a bounded
    number of hashes is compared for each, and `load` is called at most 3 times for a
    test picture and 200 times for the category.

    Args:
        descriptors: (n, D) int8.
        sides: (n,) 0 for pictures that learn (train, val), 1 for test.
        load: gives the thumbnail of a picture by its index.
        same: (n,) ids; pictures of equal id have equal bytes and are no pair.
        similar: similarity from which two are a pair.
        threads: how many call `load` and compare.
        progress: told (done, total) test pictures.
    """
    if len(descriptors) < 2 or not (sides == 0).any() or not (sides == 1).any():
        return NearDuplicates((), ())
    proposed = neighbours(
        hashes(descriptors), sides, same=same, each=VERIFIED_EACH, within=WITHIN_BITS
    )
    n = len(proposed.of)
    if not n:
        return NearDuplicates((), ())
    comparison = _Comparison(load, len(descriptors))

    def compare(number: int) -> list[NearPair]:
        judged = int(proposed.of[number])
        learned = [i for i in proposed.index[number].tolist() if i >= 0]
        found = ((i, comparison.similarity(i, judged)) for i in learned)
        return [NearPair(i, judged, value) for i, value in found if value >= similar]

    pairs: list[NearPair] = []
    for done, found in enumerate(in_order(compare, n, threads=threads), start=1):
        pairs += found
        if progress is not None:
            progress(done, n)
    pairs.sort(key=lambda pair: (-pair.similarity, pair.first, pair.second))
    return NearDuplicates(tuple(pairs), _clusters(pairs))


class _Comparison:
    """Compares two pictures of a category by what they do not share with the rest."""

    def __init__(self, load: Callable[[int], Thumbnail], n: int) -> None:
        rng = np.random.default_rng(0)
        sample = np.arange(n)
        if n > SAMPLE:
            sample = np.sort(rng.choice(n, SAMPLE, replace=False))
        self._load = load
        pictures = np.stack([load(int(i)).ravel() for i in sample])  # (m, SIDE**2)
        # Of two pictures, the mean is half of each: nothing is taken away.
        self._mean = pictures.mean(axis=0) if n > 2 else np.zeros(1, np.float32)
        pictures -= self._mean
        self._shared = _directions(pictures, min(SHARED, len(sample) // 16))
        self._all = len(sample) if n == len(sample) and n > 2 else 0
        self._spectrum = lru_cache(maxsize=CACHED)(self._individual)
        power = np.zeros((SIDE, SIDE // 2 + 1))
        for rest in pictures - (pictures @ self._shared.T) @ self._shared:
            power += np.abs(np.fft.rfft2(rest.reshape(SIDE, SIDE))) ** 2
        level = np.sqrt(power / len(sample))
        # A tenth of the mean is added: frequencies without content stay without weight.
        level = level + 0.1 * level.mean() + 1e-6
        rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
        taper = np.exp(-(rows**2 + columns**2) / (2 * TAPER**2))
        # Half way to equal weight: all the way, a camera's noise would decide.
        self._weight = (taper / np.sqrt(level)).astype(np.float32)
        self._rows, self._columns = rows, columns
        shift = round(MAX_SHIFT * 2 * SIDE)  # half pixels
        self._shifts = np.r_[0 : shift + 1, -shift:0]

    def similarity(self, first: int, second: int) -> float:
        """Give what three of four blocks reach at the best shift: 0..1."""
        a, b = self._spectrum(first), self._spectrum(second)
        if self._all:
            # The mean without the pair itself, of which few pictures would be a large
            # part: a - (sum - a - b) / (n - 2), up to a factor.
            a, b = (self._all - 1) * a + b, (self._all - 1) * b + a
        a, b = a * self._weight, b * self._weight
        energy = float(np.sqrt(_energy(a) * _energy(b)))
        if energy < 1e-6:
            return 0.0
        near = _correlation(a * np.conj(b))[np.ix_(self._shifts, self._shifts)]
        row, column = np.unravel_index(near.argmax(), near.shape)
        down, right = self._shifts[row] / 2, self._shifts[column] / 2
        moved = np.exp(2j * np.pi * (self._rows * down + self._columns * right))
        agreement = _block_correlations(np.fft.irfft2(a * moved), np.fft.irfft2(b))
        return float(np.clip(np.quantile(agreement, QUANTILE), 0.0, 1.0))

    def _individual(self, index: int) -> Spectrum:
        """Give the spectrum (SIDE, SIDE / 2 + 1) of what a picture does not share."""
        rest = self._load(index).ravel() - self._mean
        rest = rest - (self._shared @ rest) @ self._shared
        return np.fft.rfft2(rest.reshape(SIDE, SIDE)).astype(np.complex64)


def _directions(centred: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float32]:
    """Give the n strongest principal components (n, d) of rows (m, d), orthonormal."""
    values, vectors = np.linalg.eigh(centred @ centred.T)  # (m, m): far smaller than d
    strongest = vectors[:, ::-1][:, :n].T @ centred
    scale = np.sqrt(np.maximum(values[::-1][:n], 1e-6))
    return np.asarray(strongest / scale[:, None], dtype=np.float32)


def _correlation(product: Spectrum) -> npt.NDArray[np.float64]:
    """Give the circular correlation (2 SIDE, 2 SIDE) at every half pixel of shift."""
    fine, half = 2 * SIDE, SIDE // 2
    padded = np.zeros((fine, fine // 2 + 1), np.complex64)
    padded[:half, :half] = product[:half, :half]
    padded[-half:, :half] = product[-half:, :half]
    return np.asarray(np.fft.irfft2(padded) * fine * fine, dtype=np.float64)


def _block_correlations(
    first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Give the correlation of each block of two aligned pictures; edges are left out.

    A block with nothing in it correlates by 0.
    """
    edge = round(MAX_SHIFT * SIDE)
    width = (SIDE - 2 * edge) // BLOCKS
    inner = slice(edge, edge + BLOCKS * width)

    def blocks(picture: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        cut = picture[inner, inner].reshape(BLOCKS, width, BLOCKS, width)
        return np.asarray(cut.transpose(0, 2, 1, 3), np.float64).reshape(BLOCKS**2, -1)

    a, b = blocks(first), blocks(second)
    energy = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.maximum(energy, 1e-12))


def _energy(spectrum: Spectrum) -> float:
    """Give the sum of squares over the whole plane, of which half is stored."""
    squares = np.abs(spectrum) ** 2
    return float(2 * squares.sum() - squares[:, 0].sum() - squares[:, -1].sum())


def _clusters(pairs: list[NearPair]) -> tuple[tuple[int, ...], ...]:
    """Give the groups that pairs join, in the order of their most similar pair."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        parent.setdefault(i, i)
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for pair in pairs:
        parent[root(pair.first)] = root(pair.second)
    members: dict[int, set[int]] = {}
    for pair in pairs:
        members.setdefault(root(pair.first), set()).update((pair.first, pair.second))
    return tuple(tuple(sorted(group)) for group in members.values())
