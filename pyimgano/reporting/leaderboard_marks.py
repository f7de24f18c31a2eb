"""Which numbers may be called the best, and which only level with the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

Mark = Literal["best", "level"]

# Only what has an interval: without one, nobody can say how far apart two numbers are.
MARKED: Final = ("image_auroc", "image_ap", "recall")
COMPARED: Final = "image_auroc"  # by paired resampling, see `comparisons`
_GROUP: Final = ("dataset", "dataset_name", "category", "seed", "precision", "engine")


def marks(
    rows: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]
) -> dict[tuple[int, str], Mark]:
    """Give the marks by row number and metric.

    Rows compete within one category, seed and engine. "best" takes a paired comparison
    with every other model whose interval excludes zero. Otherwise the highest number,
    and all that are not told apart from it, are "level".
    """
    apart = {
        (_group(found), frozenset((found["model_a"], found["model_b"]))): bool(
            found["distinguishable"]
        )
        for found in comparisons
    }
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_group(row), []).append(index)
    given: dict[tuple[int, str], Mark] = {}
    for group, members in groups.items():
        for metric in MARKED:
            of_pairs = (
                {pair: word for (where, pair), word in apart.items() if where == group}
                if metric == COMPARED
                else {}
            )
            for index, mark in _marked(rows, members, metric, of_pairs).items():
                given[index, metric] = mark
    return given


def _group(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in _GROUP)


def _marked(
    rows: Sequence[Mapping[str, Any]],
    members: Sequence[int],
    metric: str,
    apart: Mapping[frozenset[str], bool],
) -> dict[int, Mark]:
    measured = [index for index in members if rows[index][metric] is not None]
    if len(measured) < 2:
        return {}
    top = max(measured, key=lambda index: rows[index][metric])
    others = [index for index in measured if index != top]
    level = []
    every_pair_known = True
    for index in others:
        pair = frozenset((rows[top]["model"], rows[index]["model"]))
        if pair not in apart:
            every_pair_known = False
        if not apart.get(pair, not _within(rows[index], rows[top], metric)):
            level.append(index)
    if every_pair_known and not level:
        return {top: "best"}
    return dict.fromkeys([top, *level], "level")


def _within(row: Mapping[str, Any], top: Mapping[str, Any], metric: str) -> bool:
    """Tell whether a number lies in the interval of the highest one."""
    interval = top[f"{metric}_ci95"]
    return bool(row[metric] >= (interval[0] if interval else top[metric]))
