"""Preflight's report and a manifest's counts for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from ..datasets.issues import IssueSeverity, PreflightIssue, PreflightReport
from .tables import open_console, open_table

SHOWN_PER_CODE: Final = 10
STYLES: Final[dict[IssueSeverity, str]] = {
    "error": "bold red",
    "warning": "yellow",
    "info": "dim",
}


def print_preflight(report: PreflightReport, place: str) -> None:
    """Print the counts, the issues by code with what to do, and the verdict.

    Args:
        place: the manifest or the root, for the first line.
    """
    console = open_console()
    _print_counts(console, report.summary, place)
    by_code: dict[tuple[IssueSeverity, str], list[PreflightIssue]] = {}
    for issue in report.issues:
        by_code.setdefault((issue.severity, issue.code), []).append(issue)
    totals = report.summary["issues"]["by_code"]
    for (severity, code), issues in by_code.items():
        _print_code(console, severity, code, issues, totals[code][severity])
    _print_verdict(console, report.summary)


def print_counts(summary: dict[str, Any], place: str) -> None:
    """Print how many rows of which kind a data set has."""
    _print_counts(open_console(), summary, place)


def _print_counts(console: Console, summary: dict[str, Any], place: str) -> None:
    if not summary["categories"]:
        console.print(place, highlight=False, soft_wrap=True)
        return
    table = open_table(place)
    table.add_column("category")
    for title in ("rows", "train", "val", "test good", "test bad", "masks", "groups"):
        table.add_column(title, justify="right")
    table.add_column("rows without a split", justify="right")
    for name, category in summary["categories"].items():
        counts, coverage = category["counts"], category["mask_coverage"]
        assigned, test = counts["assigned"], counts["assigned_labels"]["test"]
        masks = coverage["assigned_test"]
        table.add_row(
            name,
            str(counts["total"]),
            str(assigned["train"]),
            str(assigned["val"]),
            str(test["normal"]),
            str(test["anomaly"]),
            f"{masks['with_mask']} of {masks['anomalies']}",
            str(counts["groups"]),
            str(counts["explicit"]["auto"]),
        )
    console.print(table)


def _print_code(
    console: Console,
    severity: IssueSeverity,
    code: str,
    issues: Sequence[PreflightIssue],
    total: int,
) -> None:
    title = Text.assemble((severity, STYLES[severity]), f" {code}", f" ({total})")
    console.print(title, highlight=False)
    for issue in issues[:SHOWN_PER_CODE]:
        console.print(f"  {issue.message}", highlight=False, soft_wrap=True)
    if total > min(len(issues), SHOWN_PER_CODE):
        more = total - min(len(issues), SHOWN_PER_CODE)
        console.print(f"  ... and {more} more; --json lists up to 200", highlight=False)


def _print_verdict(console: Console, summary: dict[str, Any]) -> None:
    found = summary["issues"]
    content = summary.get("content")
    opened = (
        f"{content['decoded']} of {content['pictures']} pictures decoded"
        if content
        else "no picture was opened"
    )
    verdict = "refused" if found["error"] else "ready to train"
    console.print(
        f"{verdict}: {found['error']} errors, {found['warning']} warnings, "
        f"{found['info']} infos; {opened}",
        highlight=False,
    )
