"""The terminal table of a benchmark: one row per category and engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

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
        "F1",
        "pixel AUROC",
        "AUPRO 0.3",
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
                number(metrics["image_f1"]),
                number(metrics["pixel_auroc"]),
                number(metrics["aupro_0.3"]),
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
    parity = category.get("parity")
    if parity is not None:
        lines.append(
            f"{name}: torch and onnx: {parity['label_flips']} label flips, scores "
            f"differ by at most {parity['max_abs_score_diff']:.2e}, the closest score "
            f"is {parity['min_threshold_distance']:.3g} from the threshold"
        )
    for key, reason in metrics["reasons"].items():
        lines.append(f"{name}: {key} not measured: {reason}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
