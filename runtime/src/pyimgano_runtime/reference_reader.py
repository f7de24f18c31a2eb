"""Reads `reference` blocks, in `infer_config.json` and in a run's calibration.json."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from ._reader import MAX_WHOLE, Fields
from .infer_config import FLOAT32_MAX
from .reference import Distribution, Reference

MAX_EDGES: Final = 1000  # a reader need not take more


def read_reference(fields: Fields) -> Reference:
    """Read a `reference` block."""
    reference = Reference(
        scores=fields.maybe("scores", lambda key: _read(fields.fields(key))),
        brightness=_read(fields.fields("brightness")),
        sharpness=_read(fields.fields("sharpness")),
    )
    fields.finish()
    return reference


def _read(fields: Fields) -> Distribution:
    edges, counts = _read_edges(fields), _read_counts(fields)
    distribution = Distribution(
        n=fields.integer("n", low=1),
        n_groups=fields.integer("n_groups", low=1),
        mean=fields.number("mean", low=-FLOAT32_MAX, high=FLOAT32_MAX),
        sd=fields.number("sd", low=0, high=FLOAT32_MAX),
        edges=edges or (),
        counts=counts or (),
    )
    fields.finish()
    if edges is not None and counts is not None:
        _check_counts(fields, distribution)
    if distribution.n_groups > distribution.n >= 1:
        fields.problem(
            "n_groups",
            f"found {distribution.n_groups}, expected at most n, {distribution.n}",
        )
    return distribution


def _read_edges(fields: Fields) -> tuple[float, ...] | None:
    """Give the edges; None where they are wrong, which is reported."""
    before = len(fields.problems)
    edges = fields.numbers("edges")
    if len(fields.problems) > before:
        return None
    if not 1 <= len(edges) <= MAX_EDGES:
        expected = f"1 to {MAX_EDGES}"
        fields.problem("edges", f"found {len(edges)} numbers, expected {expected}")
    elif any(low >= high for low, high in pairwise(edges)):
        fields.problem("edges", "expected ascending numbers, none of them twice")
    elif max(-edges[0], edges[-1]) > FLOAT32_MAX:
        fields.problem("edges", "expected numbers that float32 can hold")
    return edges if len(fields.problems) == before else None


def _read_counts(fields: Fields) -> tuple[int, ...] | None:
    """Give the counts; None where they are wrong, which is reported."""
    before = len(fields.problems)
    counts = fields.array("counts")
    for index, count in enumerate(counts):
        if type(count) is not int or not 0 <= count <= MAX_WHOLE:
            fields.problem(f"counts[{index}]", "expected a whole number, at least 0")
    return tuple(counts) if len(fields.problems) == before else None


def _check_counts(fields: Fields, found: Distribution) -> None:
    """What counts say of the edges and of n."""
    if len(found.counts) != len(found.edges) + 1:
        fields.problem(
            "counts",
            f"found {len(found.counts)} numbers for {len(found.edges)} edges, expected "
            "one more than edges",
        )
    elif found.n >= 1 and sum(found.counts) != found.n:
        fields.problem(
            "counts", f"add up to {sum(found.counts)}, expected n, {found.n}"
        )
