"""`pyimgano benchmark`: torch and the exported bundle on the same pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .command_errors import exit_code_of
from .finite_range import FiniteRange


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples: pyimgano benchmark --dataset manifest --manifest-path "
    "data/manifest.jsonl --model patchcore --output bench  |  "
    "pyimgano benchmark --run run --bundle bundle --output bench",
)
@click.option(
    "--dataset",
    type=click.Choice(["manifest"]),
    help="Train, export and compare on this kind of data.",
)
@click.option(
    "--manifest-path",
    type=click.Path(path_type=Path),
    help="JSONL manifest. With --run: default is the run's own.",
)
@click.option("--root", type=click.Path(path_type=Path), help="Second image folder.")
@click.option("--category", multiple=True, help="Only these; may be repeated.")
@click.option("--model", default=None, help="Detector to train. Default: patchcore.")
@click.option(
    "--model-options", metavar="JSON", help="Hyper-parameters of the detector."
)
@click.option(
    "--manifest-test-normal-fraction",
    type=FiniteRange(0.0, 0.9),
    default=None,
    help="Share of normals without a split that goes to test. Default: 0.2.",
)
@click.option(
    "--manifest-split-seed",
    type=click.IntRange(0),
    help="Seed of the split. Default: --seed.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Compare this run's checkpoint, without training.",
)
@click.option(
    "--bundle",
    "bundle_folder",
    type=click.Path(path_type=Path),
    help="The bundle to compare with --run.",
)
@click.option(
    "--compare", default="torch,onnx", show_default=True, help="Engines to run."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of each engine.")
@click.option("--no-pixel-metrics", is_flag=True, help="Image metrics only.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Report folder to make.",
)
@click.option("--force", is_flag=True, help="Replace an existing report folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def benchmark(
    *,
    output: Path,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare torch with the exported bundle: metrics, differences, latency.

    Either train and export first (--dataset manifest --manifest-path M --model NAME),
    or take what is there (--run DIR --bundle B). The ONNX column runs the bundle as a
    device would. OUTPUT gets report.json, per-image rows and, when trained here, the
    run and the bundle.
    """
    from .pipelines.benchmark_command import BenchmarkOptions, run_command
    from .reporting.benchmark_table import print_benchmark
    from .terminal_progress import TerminalProgress

    with TerminalProgress() as progress:
        chosen = BenchmarkOptions(**options)
        report = run_command(chosen, output=output, force=force, progress=progress)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print_benchmark(report, output.absolute())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pyimgano-benchmark`."""
    return exit_code_of(benchmark, arguments, "pyimgano-benchmark")


if __name__ == "__main__":
    sys.exit(main())
