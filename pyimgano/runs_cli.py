"""`pyimgano runs`: find, show and compare what was trained and benchmarked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from .command_errors import EXIT_FAILED

FOLDER: Final = click.Path(path_type=Path)
ENGINES: Final = ("torch", "onnx", "onnx-int8")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano runs compare runs/may runs/june "
    "--fail-on-regression recall=0.02",
)
def runs() -> None:
    """Find, show and compare training runs and benchmarks."""


@runs.command("list", epilog="Example: pyimgano runs list runs")
@click.argument("folder", metavar="[DIR]", type=FOLDER, default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_(folder: Path, as_json: bool) -> None:
    """List training runs, benchmarks and suites in DIR, newest first.

    DIR is "runs" if it is not given; looks up to 3 levels below it. A benchmark's
    numbers are those of its onnx engine. What lies in a suite is listed by naming the
    suite.
    """
    from .pipelines.find_runs import find_runs
    from .reporting.runs_table import print_list

    found = find_runs(folder)
    if as_json:
        _print_json(found)
    else:
        print_list(found, folder)


@runs.command(epilog="Example: pyimgano runs show runs/june")
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(folder: Path, as_json: bool) -> None:
    """Show a training run or benchmark: its data, numbers, threshold and origin."""
    from .pipelines.find_runs import describe_result
    from .pipelines.result_folder import open_result
    from .reporting.runs_table import print_result

    found = describe_result(open_result(folder))
    if as_json:
        _print_json(found)
    else:
        print_result(found)


@runs.command(
    epilog="Examples: pyimgano runs compare runs/may runs/june  |  "
    "pyimgano runs compare runs/may runs/june --fail-on-regression image_auroc=0.01 "
    "--fail-on-regression latency_ms.p95=5",
)
@click.argument("a", metavar="A", type=FOLDER)
@click.argument("b", metavar="B", type=FOLDER)
@click.option(
    "--category", "categories", multiple=True, help="Only these; may be repeated."
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="Which engine of a benchmark. Default: onnx, else its first.",
)
@click.option(
    "--fail-on-regression",
    "limits",
    metavar="METRIC=DELTA",
    multiple=True,
    help="Exit 1 if B is worse than A by more than DELTA, in the metric's own unit, in "
    "any category; may be repeated.",
)
@click.option(
    "--allow-other-training-data",
    is_flag=True,
    help="Compare although only the test pictures are the same.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    a: Path,
    b: Path,
    *,
    categories: tuple[str, ...],
    engine: str | None,
    limits: tuple[str, ...],
    allow_other_training_data: bool,
    as_json: bool,
) -> int:
    """Compare candidate B with reference A, picture by picture.

    A and B are training runs or benchmarks of the same data and split. Every
    difference of scores and labels is told from what chance would do with these test
    pictures.

    Exit codes: 0 compared, no gate missed; 1 B is worse than --fail-on-regression
    allows; 2 refused: they cannot be compared, or an option is wrong.
    """
    from .pipelines.compare_runs import compare_runs
    from .pipelines.regression_gates import parse_regression_gates
    from .pipelines.result_folder import open_result
    from .reporting.comparison_table import gate_words, print_comparison

    gates = parse_regression_gates(limits)
    found = compare_runs(
        open_result(a),
        open_result(b),
        categories=categories,
        engine=engine,
        gates=gates,
        allow_other_training_data=allow_other_training_data,
    )
    if as_json:
        _print_json(found)
    else:
        print_comparison(found)
    missed = [gate for gate in found["gates"] if gate["met"] is False]
    for gate in missed:
        click.echo(f"pyimgano: {gate_words(gate)}", err=True)
    return EXIT_FAILED if missed else 0


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
