"""The terminal table of robustness: one row per change, one column per strength."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from .tables import number, open_table

_TITLES = {1: "mild", 2: "medium", 3: "strong"}


def print_robustness(
    console: Console, category_name: str, robustness: dict[str, Any]
) -> None:
    """Print what every change does, and in words what the worst mild ones do."""
    console.print(_table(category_name, robustness))
    for line in _sentences(robustness):
        console.print(f"{category_name}: {line}", highlight=False, soft_wrap=True)


def _table(category_name: str, robustness: dict[str, Any]) -> Table:
    images = robustness["images"]
    table = open_table(
        f"{category_name}: robustness on {images['normals']} of "
        f"{images['of_normals']} test normals and {images['anomalies']} of "
        f"{images['of_anomalies']} anomalies (AUROC / recall / false alarms)"
    )
    table.add_column("change")
    table.add_column("strengths")
    for title in _TITLES.values():
        table.add_column(title, justify="right")
    clean = _cell(robustness["clean"])
    table.add_row("none", "", clean, clean, clean)
    for name, levels in _by_name(robustness["corruptions"]).items():
        strengths = " / ".join(f"{levels[level]['strength']:g}" for level in _TITLES)
        table.add_row(
            name.replace("_", " "),
            f"{strengths} {levels[1]['unit']}",
            *(_cell(levels[level]) for level in _TITLES),
        )
    return table


def _by_name(changes: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """Changes as name -> level -> values, in their order."""
    names: dict[str, dict[int, dict[str, Any]]] = {}
    for change in changes:
        names.setdefault(change["name"], {})[change["level"]] = change
    return names


def _cell(values: dict[str, Any]) -> str:
    return " / ".join(
        (
            number(values["image_auroc"]),
            _percent(values["recall"]),
            _percent(values["false_alarm_rate"]),
        )
    )


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _sentences(robustness: dict[str, Any]) -> list[str]:
    lines = [
        _false_alarms_in_words(robustness),
        _recall_in_words(robustness),
    ]
    for key in ("image_auroc", "recall", "false_alarm_rate"):
        reason = robustness["reasons"].get(key)
        if reason is not None:
            lines.append(f"{key} not measured: {reason}")
    return [line for line in lines if line]


def _false_alarms_in_words(robustness: dict[str, Any]) -> str:
    worst, n = robustness["worst"], robustness["images"]["normals"]
    if worst is None:
        return ""
    before = robustness["clean"]["false_alarm_rate"]
    if worst["false_alarm_rate_increase"] <= 0:
        return (
            f"no mild change raises false alarms: at most {_count(before, n)} of {n} "
            "good pictures are reported, as without one"
        )
    return (
        f"of the mild changes, {_change(worst)} costs most false alarms: "
        f"{_count(worst['false_alarm_rate'], n)} of {n} good pictures are reported, "
        f"{_count(before, n)} without it"
        f"{_chance(robustness, worst, 'false_alarm_rate')}"
    )


def _recall_in_words(robustness: dict[str, Any]) -> str:
    worst, n = robustness["worst_recall"], robustness["images"]["anomalies"]
    if worst is None:
        return ""
    before = robustness["clean"]["recall"]
    if worst["recall_decrease"] <= 0:
        return (
            f"no mild change hides defects: at least {_count(before, n)} of {n} are "
            "found, as without one"
        )
    return (
        f"of the mild changes, {_change(worst)} hides most defects: "
        f"{_count(worst['recall'], n)} of {n} are found, "
        f"{_count(before, n)} without it{_chance(robustness, worst, 'recall')}"
    )


def _chance(robustness: dict[str, Any], worst: dict[str, Any], key: str) -> str:
    """A warning where the intervals with and without the change overlap.

    Careful, for the pictures are the same: but the change is the worst of nine.
    """
    low, high = robustness["clean"][f"{key}_ci95"]
    changed_low, changed_high = worst[f"{key}_ci95"]
    overlap = changed_low <= high and low <= changed_high
    return " (so few that it may be chance)" if overlap else ""


def _change(worst: dict[str, Any]) -> str:
    name = worst["name"].replace("_", " ")
    return f"{name} ({worst['strength']:g} {worst['unit']})"


def _count(rate: float, n: int) -> int:
    return round(rate * n)
