"""Short tables for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

PLAIN_WIDTH: Final = 120  # columns where the output is no terminal


def open_console() -> Console:
    """Give the console for results on stdout."""
    # No markup: a category may be called "a[/b]".
    console = Console(markup=False)
    return console if console.is_terminal else Console(width=PLAIN_WIDTH, markup=False)


def open_table(title: str) -> Table:
    """Give a table without boxes, so that it can be pasted anywhere."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)


def number(value: Any, digits: int = 3) -> str:
    """Give a number for a table cell; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(report: dict[str, Any], key: str) -> str:
    """Give `0.912 [0.880, 0.941]`."""
    text = number(report.get(key))
    interval = report.get(f"{key}_ci95")
    if interval:
        text += f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return text


def print_run(report: dict[str, Any], folder: Path) -> None:
    """Print a training run's table."""
    console = open_console()
    table = open_table(f"{report['detector']} ({report['recipe']})")
    for title in ("category", "train", "image AUROC [95 %]", "pixel AUROC"):
        table.add_column(title, justify="left" if title == "category" else "right")
    for title in ("recall", "false alarms", "threshold", "fit s"):
        table.add_column(title, justify="right")
    for name, category in report["categories"].items():
        table.add_row(
            name,
            str(category["counts"]["train_normals"]),
            with_interval(category, "image_auroc"),
            number(category.get("pixel_auroc")),
            number(category.get("recall")),
            number(category.get("false_alarm_rate")),
            f"{category['image_threshold']:.4g}",
            number(category["fit_seconds"], 1),
        )
    console.print(table)
    for name, category in report["categories"].items():
        learned = category.get("learned_from", {})  # runs of before have none
        if learned.get("copies") or learned.get("tuning") or learned.get("defects"):
            text = f"{name}: learned from {learned['in_words']}"
            console.print(text, highlight=False)
        if "regions" in category:
            text = f"{name}: {_by_regions(category['regions'])}"
            console.print(text, highlight=False)
        for warning in category["warnings"]:
            console.print(f"warning: {name}: {warning}", highlight=False)
        for key, reason in category["reasons"].items():
            console.print(f"{name}: {key} not measured: {reason}", highlight=False)
    console.print(f"run: {folder}", highlight=False, soft_wrap=True)


def _by_regions(found: dict[str, Any]) -> str:
    """Say what regions made of the test pictures; the table counts scores."""
    text = (
        f"{found['anomalies_with_region']} of {found['anomalies']} anomalies and "
        f"{found['normals_with_region']} of {found['normals']} normals have a region"
    )
    if found["policy"] != "image_threshold":
        text += (
            f'; labels by policy "{found["policy"]}": '
            f"{found['anomalies_labelled_anomaly']} and "
            f"{found['normals_labelled_anomaly']} are anomaly (the table above counts "
            "scores)"
        )
    return text
