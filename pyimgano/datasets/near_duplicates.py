"""Finds pictures of one part, or one frame, on both sides of a split.

A hash proposes (`perceptual_hash.py`), a finer comparison decides: both pictures small,
high-passed, what the category shares taken away, frequencies at equal weight up to the
finest, and the correlation at the best small shift, to half a pixel. It finds pictures
that were saved again, made smaller, exposed differently or moved by a few per cent. It
does not find a part that was turned, moved far or lit from another side.
docs/preflight.md has the measured rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

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
# Chosen on five sets of photographs: other screws in the same pose reach 0.68, other
# solar cells 0.72; the same picture at JPEG quality 50 has 0.77 and more, at half its
# size 0.79 and more, re-exposed 0.95 and more.
SIMILAR: Final = 0.75
# Where hardly any picture has a look-alike, one that has is a find at less: the same
# tile in another light has 0.3 to 0.8, and a stranger below 0.3.
SIMILAR_AT_LEAST: Final = 0.4
FAR: Final = 6.0  # robust standard deviations above the category's middle
ENOUGH_TESTS: Final = 20  # pictures that tell what is usual in a category
WITHIN_BITS: Final = 40  # of 128; hashes of strangers differ in 64, standard error 5.7
VERIFIED_EACH: Final = 3  # pairs that are compared for one test picture at most
SAMPLE: Final = 100  # pictures that tell what the category shares
CACHED: Final = 512  # spectra, 33 kB each


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two pictures that show one thing; `first` learns, `second` is tested."""

    first: int
    second: int
    similarity: float  # 0..1


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """What was found in one category, most similar first.

    Attributes:
        pairs: each with one picture on either side; at most 3 for a test picture.
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
    similar: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NearDuplicates:
    """Give the near-duplicates across the sides of one category.

    Time and memory grow with the number of pictures, whatever they show: a bounded
    number of hashes is compared for each, and `load` is called at most 4 times for a
    test picture.

    Args:
        descriptors: (n, D) int8.
        sides: (n,) 0 for pictures that learn (train, val), 1 for test.
        load: gives the thumbnail of a picture by its index.
        same: (n,) ids; pictures of equal id have equal bytes and are no pair.
        similar: similarity from which two are a pair; None: by what is usual in the
            category, between 0.4 and 0.75.
        progress: told (done, total) test pictures.
    """
    if len(descriptors) < 2 or not (sides == 0).any() or not (sides == 1).any():
        return NearDuplicates((), ())
    proposed = list(
        neighbours(hashes(descriptors), sides, each=VERIFIED_EACH, within=WITHIN_BITS)
    )
    pairs: list[NearPair] = []
    comparison = _Comparison(load, len(descriptors)) if proposed else None
    for done, (judged, candidates) in enumerate(proposed, start=1):
        for _, learned in candidates:
            if same[judged] == same[learned] or comparison is None:
                continue
            similarity = comparison.similarity(learned, judged)
            pairs.append(NearPair(learned, judged, similarity))
        if progress is not None:
            progress(done, len(proposed))
    limit = _limit(pairs, int((sides == 1).sum())) if similar is None else similar
    pairs = [pair for pair in pairs if pair.similarity >= limit]
    pairs.sort(key=lambda pair: (-pair.similarity, pair.first, pair.second))
    return NearDuplicates(tuple(pairs), _clusters(pairs))


def _limit(pairs: list[NearPair], n_tests: int) -> float:
    """Give the similarity that is unusual in a category of n test pictures."""
    if n_tests < ENOUGH_TESTS:
        return SIMILAR
    best: dict[int, float] = {}
    for pair in pairs:
        best[pair.second] = max(pair.similarity, best.get(pair.second, 0.0))
    # A picture that nothing was proposed for has no look-alike.
    highest = np.zeros(n_tests)
    highest[: len(best)] = list(best.values())
    middle = float(np.median(highest))
    sigma = 1.4826 * float(np.median(np.abs(highest - middle)))
    return float(np.clip(middle + FAR * sigma, SIMILAR_AT_LEAST, SIMILAR))


class _Comparison:
    """Compares two pictures of a category by what they do not share with the rest."""

    def __init__(self, load: Callable[[int], Thumbnail], n: int) -> None:
        rng = np.random.default_rng(0)
        sample = np.arange(n)
        if n > SAMPLE:
            sample = np.sort(rng.choice(n, SAMPLE, replace=False))
        self._sample = set(sample.tolist())
        self._spectrum = lru_cache(maxsize=CACHED)(lambda i: _spectrum(load(i)))
        self._sum = np.zeros((SIDE, SIDE // 2 + 1), np.complex64)
        for i in sample.tolist():
            self._sum += self._spectrum(i)
        mean, power = self._sum / len(sample), np.zeros(self._sum.shape)
        for i in sample.tolist():
            power += np.abs(self._spectrum(i) - mean) ** 2
        level = np.sqrt(power / len(sample))
        # A tenth of the mean is added: frequencies without content stay without weight.
        level = level + 0.1 * level.mean() + 1e-6
        rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
        taper = np.exp(-(rows**2 + columns**2) / (2 * TAPER**2))
        self._weight = (taper / level).astype(np.float32)
        shift = round(MAX_SHIFT * 2 * SIDE)  # half pixels
        self._shifts = np.r_[0 : shift + 1, -shift:0]

    def similarity(self, first: int, second: int) -> float:
        """Give the correlation 0..1 at the best shift."""
        a, b = self._spectrum(first), self._spectrum(second)
        # Without the pair itself: of few pictures it would be a large part of the mean.
        members = [i for i in {first, second} if i in self._sample]
        total, n = self._sum, len(self._sample) - len(members)
        for i in members:
            total = total - self._spectrum(i)
        mean = total / n if n else np.complex64(0)
        a, b = (a - mean) * self._weight, (b - mean) * self._weight
        energy = float(np.sqrt(_energy(a) * _energy(b)))
        if energy < 1e-6:
            return 0.0
        near = _correlation(a * np.conj(b))[np.ix_(self._shifts, self._shifts)] / energy
        return float(np.clip(near.max(), 0.0, 1.0))


def _spectrum(picture: Thumbnail) -> Spectrum:
    return np.fft.rfft2(picture).astype(np.complex64)


def _correlation(product: Spectrum) -> npt.NDArray[np.float64]:
    """Give the circular correlation (2 SIDE, 2 SIDE) at every half pixel of shift."""
    fine, half = 2 * SIDE, SIDE // 2
    padded = np.zeros((fine, fine // 2 + 1), np.complex64)
    padded[:half, :half] = product[:half, :half]
    padded[-half:, :half] = product[-half:, :half]
    return np.asarray(np.fft.irfft2(padded) * fine * fine, dtype=np.float64)


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
    members: dict[int, list[int]] = {}
    for pair in pairs:
        for i in (pair.first, pair.second):
            group = members.setdefault(root(i), [])
            if i not in group:
                group.append(i)
    return tuple(tuple(sorted(group)) for group in members.values())
