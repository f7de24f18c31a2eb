"""The terminal table of `pyimgano bundle diff`: what changed between two releases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console

from .bundle_table import interval_text
from .tables import open_console, open_table

SHA256_SHOWN: Final = 12  # characters: enough to tell two releases apart


def print_diff(diff: dict[str, Any]) -> None:
    """Print the verdict, what changed, what did not, and the scores on the goldens."""
    console = open_console()
    _say(console, f"verdict: {diff['verdict']}")
    for side in ("a", "b"):
        facts = diff[side]
        _say(
            console,
            f"{side.upper()}  {facts['name']} {facts['version']}, {facts['created']}, "
            f"sha256 {facts['sha256']}, {facts['path']}",
        )
    _print_facts(console, "bundle", diff["facts"])
    for name, category in diff["categories"].items():
        if category["status"] != "common":
            where = "A, not in B" if category["status"] == "removed" else "B, not in A"
            _say(console, f"\ncategory {name}: {category['status']} (only in {where})")
            continue
        _print_facts(console, f"category {name}", category["facts"])
        _print_goldens(console, name, category)


def _print_facts(console: Console, title: str, facts: Sequence[dict[str, Any]]) -> None:
    """Print the rows that changed, and the blocks of those that did not."""
    # An interval stands beside its value, not in a row of its own.
    intervals = {f["what"]: f for f in facts if f["what"].endswith("_ci95")}
    rows = [fact for fact in facts if fact["what"] not in intervals]
    changed = [fact for fact in rows if fact["changed"]]
    if changed:
        table = open_table(title)
        for column in ("what changed", "A", "B", "change"):
            table.add_column(
                column,
                justify="right" if column == "change" else "left",
                overflow="fold",
            )
        for fact in changed:
            interval = intervals.get(f"{fact['what']}_ci95", {})
            table.add_row(
                fact["what"],
                _value(fact["what"], fact["a"], interval.get("a")),
                _value(fact["what"], fact["b"], interval.get("b")),
                _change(fact["relative_change"]),
            )
        console.print(table)
    else:
        _say(console, f"\n{title}: nothing changed")
    same = _same(rows)
    if changed and same:
        _say(console, f"  same: {', '.join(same)}")


def _same(facts: Sequence[dict[str, Any]]) -> list[str]:
    """Name the blocks in which nothing changed, then those where something is equal."""
    changed = {_block(fact) for fact in facts if fact["changed"]}
    equal = list(dict.fromkeys(_block(fact) for fact in facts if not fact["changed"]))
    whole = [name for name in equal if name not in changed]
    return [*whole, *(f"the rest of {name}" for name in equal if name in changed)]


def _block(fact: dict[str, Any]) -> str:
    """Give the first word of a dotted name."""
    name: str = fact["what"]
    return name.partition(".")[0]


def _print_goldens(console: Console, name: str, category: dict[str, Any]) -> None:
    if not category["goldens"]:
        _say(console, f"  no goldens in either bundle: no score of {name} was compared")
        return
    table = open_table(f"{name}: goldens of both bundles, scored by both, here")
    for column in ("golden", "in"):
        table.add_column(column)
    for column in ("score A", "score B", "rel diff", "map diff of range"):
        table.add_column(column, justify="right")
    for column in ("label A", "label B", ""):
        table.add_column(column)
    for row in category["goldens"]:
        table.add_row(
            row["image"],
            {"a": "A", "b": "B"}.get(row["in"], "A and B"),
            _score(row["score_a"]),
            _score(row["score_b"]),
            _share(row["relative_difference"]),
            _share(row["map_difference_of_range"]),
            row["label_a"] or "refused",
            row["label_b"] or "refused",
            "FLIPS" if row["flips"] else "",
        )
    console.print(table)
    detector = next(f for f in category["facts"] if f["what"] == "detector")
    if detector["changed"]:
        _say(console, "  two detectors score in units of their own: compare the labels")
    for row in category["goldens"]:
        for side in ("a", "b"):
            if row[f"error_{side}"]:
                _say(console, f"  {side.upper()} refuses {row[f'error_{side}']}")


def _value(what: str, value: Any, interval: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        hashed = "sha256" in what or "fingerprint" in what
        return value[:SHA256_SHOWN] if hashed else value
    if isinstance(value, float):
        return f"{value:.6g} {interval_text(interval)}".rstrip()
    return json.dumps(value, ensure_ascii=False)


def _change(value: float | None) -> str:
    return "" if value is None else f"{value:+.2%}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
