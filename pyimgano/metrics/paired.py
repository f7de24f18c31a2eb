"""Exact test of two detectors on the same pictures: who is right where."""

from __future__ import annotations

from math import comb


def sign_test(n_first: int, n_second: int) -> float:
    """Give the exact two-sided p value of McNemar's test.

    Pictures on which both agree say nothing. Of the others, `n_first` favour the one
    and `n_second` the other detector; were they equally good, each picture would be
    the toss of a coin. Source: McNemar, Psychometrika 12 (1947) 153-157, in its exact
    binomial form.

    Raises:
        ValueError: a negative count.
    """
    if n_first < 0 or n_second < 0:
        raise ValueError(f"found {n_first} and {n_second} pictures")
    n_tosses = n_first + n_second
    fewer = min(n_first, n_second)
    tail = sum(comb(n_tosses, count) for count in range(fewer + 1))
    # Whole numbers up to the last division: exact, however many pictures.
    return min(1.0, 2 * tail / (1 << n_tosses))
