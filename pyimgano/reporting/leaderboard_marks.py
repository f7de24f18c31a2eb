"""Which numbers may be called the best, which are level with it, and which are bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

Mark = Literal["best", "level", "bad"]

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
    and all that are not told apart from it, are "level". "bad" are false alarms whose
    interval lies above the promise, and a recall of 0: such a row is not ready, and its
    recall does not compete.
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
            able = members
            if metric == "recall":
                able = [index for index in members if not is_above_promise(rows[index])]
            for index, mark in _marked(rows, able, metric, of_pairs).items():
                given[index, metric] = mark
    for index, row in enumerate(rows):
        if is_above_promise(row):
            given[index, "false_alarm_rate"] = "bad"
        if row["recall"] == 0:
            given[index, "recall"] = "bad"
    return given


def is_above_promise(row: Mapping[str, Any]) -> bool:
    """Tell whether false alarms are above what was promised, beyond chance."""
    promised = row["promised_false_alarm_rate"]
    interval = row["false_alarm_rate_ci95"]
    if promised is None or interval is None:
        return False
    return bool(interval[0] > promised)


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
