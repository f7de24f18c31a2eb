"""Histograms over float32 scores whose bins need no range given beforehand.

Bins are runs of neighbouring float32 numbers, equal in relative width. They start as
narrow as float32 itself and double in width only when the scores seen span more than
`max_bins` of them; the width depends on the lowest and the highest score alone, not on
the order in which they come.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SIGN_BIT: Final = np.uint32(0x80000000)


class ScoreHistogram:
    """Histograms over ordered codes with common bins, `code >> shift`.

    Counts are float64 like the weights: exact up to 2**53 scores.
    """

    def __init__(self, n_rows: int, *, max_bins: int) -> None:
        self._max_bins = max_bins
        self._low_code, self._high_code = 2**32, -1  # nothing covered yet
        self._shift = 0
        self._first_bin = 0
        self._rows: NDArray[np.float64] = np.zeros((n_rows, 0))  # (n_rows, bins)

    def cover(self, low_code: int, high_code: int) -> None:
        """Make bins for these codes; all get wider if they would be too many."""
        if self._low_code <= low_code and high_code <= self._high_code:
            return
        self._low_code = low_code = min(low_code, self._low_code)
        self._high_code = high_code = max(high_code, self._high_code)

        shift = self._shift
        while (high_code >> shift) - (low_code >> shift) >= self._max_bins:
            shift += 1
        first_bin = low_code >> shift
        n_bins = (high_code >> shift) - first_bin + 1

        # An old bin lies in one new bin, because both start at multiples of a power
        # of two; so the outcome is as if the final width had been used throughout.
        old_bins = np.arange(self._rows.shape[1]) + self._first_bin
        new_bins = (old_bins >> (shift - self._shift)) - first_bin
        rows = np.zeros((len(self._rows), n_bins))
        if new_bins.size:
            for row, old_row in zip(rows, self._rows, strict=True):
                row[:] = np.bincount(new_bins, old_row, minlength=n_bins)
        self._rows = rows
        self._shift, self._first_bin = shift, first_bin

    def add(
        self,
        row: int,
        codes: NDArray[np.uint32],
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Add covered codes to a row, each with weight 1 unless given."""
        if codes.size:
            start, sums = self._counts(codes, weights)
            self._rows[row, start : start + len(sums)] += sums

    def add_times(
        self,
        rows: slice,
        times: NDArray[np.float64],
        codes: NDArray[np.uint32],
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Add the same covered codes to several rows, to each so many times."""
        if codes.size:
            start, sums = self._counts(codes, weights)
            self._rows[rows, start : start + len(sums)] += np.outer(times, sums)

    def _counts(
        self, codes: NDArray[np.uint32], weights: NDArray[np.float64] | None
    ) -> tuple[int, NDArray[np.float64]]:
        """Give the lowest bin that the codes use, and the sums from it on."""
        bins = (codes.ravel() >> self._shift) - self._first_bin
        # Counting from the lowest bin used spares a pass over all bins a call.
        start = int(bins.min())
        return start, np.bincount(bins - start, weights).astype(np.float64, copy=False)

    @property
    def is_exact(self) -> bool:
        """Whether each bin still is one float32 number."""
        return self._shift == 0

    def rows(self) -> NDArray[np.float64]:
        """The rows, scores rising."""
        return self._rows

    def occupied(self) -> NDArray[np.float64]:
        """The rows without bins that are empty in all of them, scores rising."""
        return self._rows[:, self._rows.any(axis=0)]


def ordered_codes(values_f32: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers in the order of the floats, equal where the floats are equal.

    The bits of floats >= 0 already rise with the value; those of negative floats
    fall, so they are inverted, and the sign bit puts them below.
    """
    bits = (values_f32 + np.float32(0)).view(np.int32)  # + 0 turns -0.0 into 0.0
    inverted = (bits >> 31).view(np.uint32)  # all ones for negative floats, else 0
    codes: NDArray[np.uint32] = bits.view(np.uint32) ^ (inverted | SIGN_BIT)
    return codes
