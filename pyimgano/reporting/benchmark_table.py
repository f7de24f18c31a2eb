"""The terminal tables of benchmarks: one row per category and engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from .robustness_table import print_robustness
from .tables import number, open_console, open_table, with_interval


def print_benchmark(report: dict[str, Any], folder: Path) -> None:
    """Print metrics, latency and differences of every category."""
    console = open_console()
    table = open_table(f"benchmark, {report['threads']} threads")
    columns = (
        "category",
        "engine",
        "image AUROC [95 %]",
        "AP",
        "recall",
        "pixel AUROC",
        "AUPRO 0.3",
        "SegF1",
        "ms p50/p95/p99",
    )
    for title in columns:
        table.add_column(title, justify="left" if title in columns[:2] else "right")
    for name, category in report["categories"].items():
        for engine, metrics in category["engines"].items():
            times = metrics["latency_ms"]
            table.add_row(
                name,
                engine,
                with_interval(metrics, "image_auroc"),
                number(metrics["image_ap"]),
                number(metrics["recall"]),
                number(metrics["pixel_auroc"]),
                number(metrics["aupro_0.3"]),
                number(metrics["seg_f1"]),
                f"{times['p50']:.1f}/{times['p95']:.1f}/{times['p99']:.1f}",
            )
    console.print(table)
    for name, category in report["categories"].items():
        _print_category(console, name, category)
    console.print(f"report: {folder}", highlight=False, soft_wrap=True)


def _print_category(console: Console, name: str, category: dict[str, Any]) -> None:
    metrics = next(iter(category["engines"].values()))
    promised = category["promised_false_alarm_rate"]
    word = "about" if category["promise_approximate"] else "at most"
    lines = [
        f"{name}: promised {word} {promised:.2%} false alarms, achieved "
        f"{number(metrics['false_alarm_rate'])} on "
        f"{category['counts']['test_normals']} test normals; recall "
        f"{number(metrics['recall'])}"
        if promised is not None
        else f"{name}: the threshold promises no false-alarm rate; achieved "
        f"{number(metrics['false_alarm_rate'])} on "
        f"{category['counts']['test_normals']} test normals; recall "
        f"{number(metrics['recall'])}"
    ]
    n_anomalies = category["counts"]["test_anomalies"]
    if metrics["recall"] == 0:
        lines.append(
            f"warning: {name}: finds none of the {n_anomalies} anomalies at its "
            "threshold: not ready, whatever its AUROC is"
        )
    pixels = category["pixel_metrics"]
    with_mask = pixels["anomalies_with_mask"]
    if pixels["enabled"] and with_mask < n_anomalies:
        lines.append(
            f"{name}: pixel metrics on {with_mask} of {n_anomalies} anomalies, the "
            "others have no mask"
        )
    for engine, own in category["engines"].items():
        if "label_flips" in own:
            lines.append(_agreement(name, engine, own))
    for engine, reason in category["engines_missing"].items():
        lines.append(f"{name}: {engine} not measured: {reason}")
    for key, reason in metrics["reasons"].items():
        lines.append(f"{name}: {key} not measured: {reason}")
    lines += [f"warning: {name}: {warning}" for warning in category["warnings"]]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    if "robustness" in category:
        print_robustness(console, name, category["robustness"])


def _agreement(name: str, engine: str, own: dict[str, Any]) -> str:
    """Say how an engine's answers compare with those of torch."""
    flips = own["label_flips"]
    words = (
        f"{name}: torch and {engine}: {flips} label flip{'' if flips == 1 else 's'}, "
        "scores differ by at most "
        f"{own['max_abs_score_diff']:.2e}, the closest score is "
        f"{own['min_threshold_distance']:.3g} from the threshold"
    )
    if flips:
        shown = ", ".join(own["flipped_images"][:5])
        words += f"; flipped: {shown}{' ...' if flips > 5 else ''}"
    return words


def print_suite(report: dict[str, Any], folder: Path) -> None:
    """Say how a suite ended; its numbers stand in the leaderboards."""
    console = open_console()
    lines = [
        f"suite: {len(report['cells'])} of {report['planned']} cells finished, "
        f"{len(report['failed'])} failed"
    ]
    lines += [
        f"{kind}: {folder / f'leaderboard.{suffix}'}"
        for kind, suffix in (("table", "csv"), ("text", "md"), ("page", "html"))
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def print_acceptance(report: dict[str, Any], folder: Path) -> None:
    """Print the verdict of each gate, and the numbers behind them."""
    console = open_console()
    table = open_table(f"{report['bundle']} {report['bundle_version']}")
    for title in ("category", "gate", "asked", "found", "verdict"):
        table.add_column(title, justify="right" if title == "found" else "left")
    for gate in report["gates"]:
        sign = {"min": "at least", "max": "at most"}.get(gate["bound"], gate["bound"])
        found = "not measured" if gate["value"] is None else f"{gate['value']:.6g}"
        table.add_row(
            gate["where"],
            gate["key"],
            "known" if gate["key"] == "held_out" else f"{sign} {gate['limit']:g}",
            found,
            "met" if gate["met"] else "MISSED",
        )
    console.print(table)
    lines = []
    for name, category in report["categories"].items():
        counts = category["counts"]
        lines.append(
            f"{name}: {counts['test_normals']} normals and {counts['test_anomalies']} "
            f"anomalies; recall {with_interval(category, 'recall')}, false alarms "
            f"{with_interval(category, 'false_alarm_rate')}, image AUROC "
            f"{with_interval(category, 'image_auroc')}, "
            f"{category['latency_ms']['p95']:.1f} ms p95"
        )
        lines.append(f"{name}: held-out pictures {category['held_out']}")
        lines += [f"warning: {name}: {warning}" for warning in category["warnings"]]
        lines += [
            f"{name}: {key} not measured: {reason}"
            for key, reason in category["reasons"].items()
        ]
    verdict = "accepted" if report["accepted"] else "NOT accepted"
    if report["not_judged"]:
        judged = ", ".join(report["categories"])
        verdict += f" for {judged} ({', '.join(report['not_judged'])} not judged)"
    for line in [*lines, f"{verdict}: {folder / 'report.json'}"]:
        console.print(line, highlight=False, soft_wrap=True)
