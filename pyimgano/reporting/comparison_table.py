"""The terminal tables of `pyimgano runs compare`: A, B, and what chance could do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console

from .runs_table import say
from .tables import open_console, open_table

_WORDS: Final = {True: "distinguishable", False: "within noise", None: ""}
_RIGHT: Final = {
    "recall": ("recall", "anomalies", "found by"),
    "false_alarm_rate": ("false alarms", "normals", "passed by"),
}
PICTURES_SHOWN: Final = 3


def print_comparison(found: dict[str, Any]) -> None:
    """Print what differs, whether it is more than chance, and the gates."""
    console = open_console()
    for side in ("a", "b"):
        facts = found[side]
        kind = "training run" if facts["kind"] == "run" else "benchmark"
        say(
            console,
            f"{side.upper()}  {facts['model']}, {kind}, "
            f"{facts['finished'] or 'time unknown'}, {facts['path']}",
        )
    for note in found["notes"]:
        say(console, f"note: {note}")
    for side in ("a", "b"):
        if found[f"only_in_{side}"]:
            names = ", ".join(found[f"only_in_{side}"])
            say(console, f"note: only in {side.upper()}, not compared: {names}")
    for name, category in found["categories"].items():
        _print_category(console, name, category)
    for what, changes in found["changed"].items():
        _print_changes(console, what, changes)
    _print_gates(console, found["gates"])


def _print_category(console: Console, name: str, category: dict[str, Any]) -> None:
    engines = [category[f"engine_{side}"] or "training run" for side in "ab"]
    title = f"{name}: {category['test_normals']} normals, "
    title += f"{category['test_anomalies']} anomalies"
    if engines != ["training run"] * 2:
        title += f"; A {engines[0]}, B {engines[1]}"
    table = open_table(title)
    table.add_column("metric")
    for column in ("A", "B", "B - A", "95 % of B - A"):
        table.add_column(column, justify="right")
    for column in ("", "beyond chance?"):
        table.add_column(column)
    paired = category["paired"]
    for row in category["metrics"]:
        interval = row["difference_ci95"]
        beyond = paired.get(row["key"], row)["distinguishable"]
        table.add_row(
            row["key"],
            _value(row["a"]),
            _value(row["b"]),
            "-" if row["difference"] is None else f"{row['difference']:+.4g}",
            f"[{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "",
            row["verdict"] or "",
            _WORDS[beyond],
        )
    console.print(table)
    if not category["same_training_data"]:
        say(console, "  trained on other pictures: that may be the whole difference")
    for key, (word, pictures, done) in _RIGHT.items():
        if key in paired:
            _print_paired(console, paired[key], word, pictures, done)
    for kind, pair in category["thresholds"].items():
        if pair["a"] is not None or pair["b"] is not None:
            texts = (_value(pair["a"]), _value(pair["b"]))
            say(console, f"  {kind} threshold: A {texts[0]}, B {texts[1]}")
    for side, words in category["threshold_words"].items():
        say(console, f"  image threshold of {side.upper()}: {words}")


def _print_paired(
    console: Console, paired: dict[str, Any], word: str, pictures: str, done: str
) -> None:
    only_a, only_b = paired["right_in_a_only"], paired["right_in_b_only"]
    say(
        console,
        f"  {word}: of {paired['pictures']} {pictures}, {paired['right_in_both']} "
        f"{done} both, {len(only_a)} by A only, {len(only_b)} by B only "
        f"(exact p {paired['p_value']:.3g}): {_WORDS[paired['distinguishable']]}",
    )
    for side, names in (("A", only_a), ("B", only_b)):
        if names:
            more = f" and {len(names) - PICTURES_SHOWN} more"
            tail = more if len(names) > PICTURES_SHOWN else ""
            shown = ", ".join(names[:PICTURES_SHOWN])
            say(console, f"    {side} only: {shown}{tail}")


def _print_changes(
    console: Console, what: str, changes: Sequence[dict[str, Any]]
) -> None:
    if not changes:
        say(console, f"{what}: nothing changed")
        return
    table = open_table(what)
    for column in ("what changed", "A", "B"):
        table.add_column(column, overflow="fold")
    for row in changes:
        table.add_row(row["what"], _text(row["a"]), _text(row["b"]))
    console.print(table)


def _print_gates(console: Console, gates: Sequence[dict[str, Any]]) -> None:
    for gate in gates:
        say(console, gate_words(gate))


def gate_words(gate: dict[str, Any]) -> str:
    """Give one sentence about a gate and whether it was met."""
    where = f"{gate['category']}: {gate['key']}"
    verdict = {True: "met", False: "MISSED", None: "not judged"}[gate["met"]]
    allowed = f"may be worse by {gate['allowed']:g}"
    if gate["worse_by"] is None:
        return f"{where} {allowed}, {gate['reason']}: {verdict}"
    numbers = f"A {_value(gate['a'])}, B {_value(gate['b'])}"
    if gate["worse_by"] <= 0:
        return f"{where} {allowed}, is not worse ({numbers}): {verdict}"
    return (
        f"{where} {allowed}, is worse by {gate['worse_by']:.4g} ({numbers}): {verdict}"
    )


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
