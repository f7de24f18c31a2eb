"""The terminal tables of `pyimgano runs list` and `pyimgano runs show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from .tables import number, open_console, open_table, with_interval

FINGERPRINT_SHOWN: Final = 12  # characters: enough to tell two sets apart
FILES_SHOWN: Final = 12


def print_list(listing: dict[str, Any], folder: Path) -> None:
    """Print one line for each run, and what is wrong with those that are damaged."""
    console = open_console()
    rows = listing["runs"]
    if not rows:
        say(
            console,
            f'{folder}: no runs; "pyimgano train --config config.json --output '
            f'{folder / "first"}" makes one, or name another folder',
        )
        return
    table = open_table(f"runs in {folder}")
    for title in ("folder", "kind", "model", "categories"):
        table.add_column(title, overflow="fold")
    for title in ("image AUROC [95 %]", "recall", "false alarms", "finished"):
        table.add_column(title, justify="right")
    for row in rows:
        if row["problem"] is None:
            table.add_row(*_cells(row, folder))
        else:
            table.add_row(place_in(row["path"], folder), "damaged")
    console.print(table)
    for row in rows:
        if row["problem"] is not None:
            say(console, f"damaged: {row['problem']}")


def _cells(row: dict[str, Any], folder: Path) -> list[str]:
    categories = row["categories"]
    several = f"{len(categories)} categories" if len(categories) > 1 else "-"
    alone = len(categories) == 1
    return [
        place_in(row["path"], folder),
        row["kind"],
        row["model"] or "-",
        categories[0] if alone else several,
        with_interval(row, "image_auroc"),
        number(row["recall"]),
        number(row["false_alarm_rate"]),
        row["finished"] or "-",
    ]


def place_in(path: str, folder: Path) -> str:
    """Give a path as seen from the folder that was named."""
    inside = Path(path)
    return str(inside.relative_to(folder) if inside.is_relative_to(folder) else inside)


def print_result(found: dict[str, Any]) -> None:
    """Print what was trained on what, its numbers, and where they come from."""
    console = open_console()
    kind = {"run": "training run", "benchmark": "benchmark"}[found["kind"]]
    finished = found["finished"] or "at an unknown time"
    say(console, f"{kind} of {found['model']}, finished {finished}: {found['path']}")
    for name, category in found["categories"].items():
        _print_category(console, name, category)
    _print_config(console, found["config"])
    _print_environment(console, found["environment"])
    files = found["files"]
    total = sum(file["bytes"] for file in files) / 1e6
    say(console, f"files: {len(files)}, {total:.1f} MB")
    for file in files[:FILES_SHOWN]:
        say(console, f"  {file['path']}  {file['bytes']} bytes")
    if len(files) > FILES_SHOWN:
        say(console, f"  and {len(files) - FILES_SHOWN} more; --json names all")


def _print_category(console: Console, name: str, category: dict[str, Any]) -> None:
    counts = category["counts"] or {}
    shown = ", ".join(f"{n} {key.replace('_', ' ')}" for key, n in counts.items())
    say(console, f"\n{name}: {category['detector']}, {shown}")
    options = category["hyper_parameters"] or {}
    pairs = ", ".join(f"{key} {json.dumps(value)}" for key, value in options.items())
    if pairs:
        say(console, f"  hyper-parameters: {pairs}")
    for key, title in (("split_fingerprint", "all"), ("test_fingerprint", "test")):
        mark = category[key]
        known = mark[:FINGERPRINT_SHOWN] if mark else "unknown, of an earlier version"
        say(console, f"  fingerprint of {title} pictures: {known}")
    for engine, metrics in category["metrics"].items():
        table = open_table(f"{name}, {engine}")
        table.add_column("metric")
        table.add_column("value [95 %]", justify="right")
        for key, metric in metrics.items():
            text = {key: metric["value"], f"{key}_ci95": metric["ci95"]}
            shown = with_interval(text, key) if metric["ci95"] else _plain(metric)
            table.add_row(key, shown)
        console.print(table)
    for key, reason in category["reasons"].items():
        say(console, f"  {key} not measured: {reason}")
    for kind, threshold in category["thresholds"].items():
        if threshold is not None:
            say(console, f"  {kind} threshold: {threshold:.6g}")
    say(console, f"  image threshold: {category['threshold_words']}")
    for warning in category["warnings"]:
        say(console, f"  warning: {warning}")


def _print_config(console: Console, config: dict[str, Any]) -> None:
    """Print the config without what is null or said above."""
    say(console, "\nconfig:")
    for key, value in config.items():
        if key == "schema_version" or key.endswith("hyper_parameters"):
            continue
        if isinstance(value, dict):
            inner = {k: v for k, v in value.items() if v not in (None, [], {})}
            value = ", ".join(f"{k} {json.dumps(v)}" for k, v in inner.items())
        if value not in (None, ""):
            say(console, f"  {key}: {value}")


def _print_environment(console: Console, environment: dict[str, Any]) -> None:
    packages = environment.get("packages") or {}
    own = {
        key: value
        for key, value in environment.items()
        if key not in ("packages", "schema_version")
    }
    named = {**own, **packages}
    say(console, "environment: " + ", ".join(f"{k} {v}" for k, v in named.items()))


def say(console: Console, line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, highlight=False, soft_wrap=True)


def _plain(metric: dict[str, Any]) -> str:
    """Give a number without an interval: a count whole, a small one with its power."""
    value = metric["value"]
    if value is None:
        return "-"
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 1e-3 else f"{value:.1e}"
