"""`pyimgano benchmark`: torch and the exported bundle on the same pictures."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .command_errors import EXIT_FAILED, exit_code_of
from .finite_range import FiniteRange
from .plugin_option_cli import takes_plugins

FILE = click.Path(path_type=Path)


def _bytes(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> int | None:
    """Give the bytes of a size such as 8G."""
    if text is None:
        return None
    from pyimgano_runtime.memory_limit import parse_size

    try:
        return parse_size(text)
    except ValueError as cause:
        raise click.BadParameter(str(cause)) from cause


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples: pyimgano benchmark --dataset manifest --manifest-path "
    "data/manifest.jsonl --model patchcore --output bench  |  "
    "pyimgano benchmark --run run --bundle bundle --robustness --output bench  |  "
    "pyimgano benchmark --suite suite.json --output suite --resume",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Train, export and compare on this kind of data: manifest, custom, mvtec, "
    "mvtec_loco, mvtec_ad2, visa, btad.",
)
@click.option(
    "--manifest-path",
    type=FILE,
    help="JSONL manifest. With --run: default is the run's own data.",
)
@click.option(
    "--root",
    type=FILE,
    help="Folder of --dataset; for a manifest a second folder to look for pictures in.",
)
@click.option("--category", multiple=True, help="Only these; may be repeated.")
@click.option(
    "--list-categories", is_flag=True, help="Print the data set's categories and stop."
)
@click.option(
    "--input-mode", default="paths", show_default=True, help="How pictures are read."
)
@click.option("--model", help="Detector to train. Default: patchcore.")
@click.option("--preset", help="Named set of its hyper-parameters: fast, fine.")
@click.option(
    "--model-options", metavar="JSON", help="Hyper-parameters of the detector."
)
@click.option(
    "--tile-size",
    nargs=2,
    type=click.IntRange(32),
    metavar="HEIGHT WIDTH",
    help="Cut pictures into tiles of so many pixels. Default: whole pictures.",
)
@click.option(
    "--tile-overlap",
    type=FiniteRange(0.0, 0.75),
    help="Share of a tile's side that neighbours share at least. Default: 0.25.",
)
@click.option(
    "--tile-blend",
    type=click.Choice(["max", "mean", "hann", "gaussian"]),
    help="How maps join where tiles overlap. Default: max.",
)
@click.option(
    "--tile-score",
    type=click.Choice(["max", "mean", "top_k"]),
    help="How the tiles' scores give the picture's score. Default: max.",
)
@click.option(
    "--tile-top-k",
    type=click.IntRange(1),
    metavar="K",
    help="How many of the highest tile scores count, for --tile-score top_k.",
)
@click.option(
    "--manifest-test-normal-fraction",
    type=FiniteRange(0.0, 0.9),
    help="Share of normals without a split that goes to test. Default: 0.2.",
)
@click.option(
    "--manifest-split-seed",
    type=click.IntRange(0),
    help="Seed of the split. Default: --seed.",
)
@click.option("--seed", type=click.IntRange(0), help="Default: 0.")
@click.option(
    "--run",
    "run_folder",
    type=FILE,
    help="Compare this run's checkpoint, without training.",
)
@click.option(
    "--bundle", "bundle_folder", type=FILE, help="The bundle to compare with --run."
)
@click.option(
    "--suite",
    metavar="FILE",
    help="Run every model of this file on every data set of it; or the name of a "
    "shipped suite (--list-suites).",
)
@click.option(
    "--suite-root",
    type=FILE,
    help="Folder of the suite's relative paths. Default: that of the file.",
)
@click.option("--list-suites", is_flag=True, help="Print the shipped suites and stop.")
@click.option("--resume", is_flag=True, help="Go on with a suite that was interrupted.")
@click.option(
    "--only",
    multiple=True,
    metavar="TEXT",
    help="Of a suite, only the cells with this in their names, such as a model or a "
    "data set; the others stay for a later --resume. May be repeated: any of them.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Cells of a suite at a time. Default: 1; on Ray as many as there is room for.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who runs the cells of a suite: this machine, or a Ray cluster that shares "
    "the output folder.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help='Cluster to join: HOST:PORT of its head, or "auto" on one of its machines. '
    "Default: a Ray that is started here.",
)
@click.option(
    "--cell-gpus",
    type=FiniteRange(0.0),
    metavar="NUMBER",
    help="GPUs that a cell takes of the cluster, such as 0.5. Default: 0; it then sees "
    "none.",
)
@click.option(
    "--cell-memory",
    callback=_bytes,
    metavar="SIZE",
    help="Memory that a cell takes of the cluster, such as 8G, so that not too many "
    "run on one node; it is no limit. Default: not counted.",
)
@click.option(
    "--compare",
    default="torch,onnx",
    show_default=True,
    help="Engines: torch, onnx, onnx-int8.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of each engine.")
@click.option("--no-pixel-metrics", is_flag=True, help="Image metrics only.")
@click.option(
    "--no-process-costs",
    is_flag=True,
    help="Leave out start and memory, which take a process for each engine.",
)
@click.option(
    "--robustness",
    is_flag=True,
    help="Also measure the bundle under light, blur, noise, shift and more.",
)
@click.option(
    "--robustness-images",
    type=click.IntRange(2),
    help="Pictures of each class for that. Default: 100.",
)
@click.option(
    "--min",
    "minima",
    multiple=True,
    metavar="KEY=NUMBER",
    help="Exit code 1 if a report key is lower, such as recall=0.9.",
)
@click.option(
    "--max",
    "maxima",
    multiple=True,
    metavar="KEY=NUMBER",
    help="Exit code 1 if a report key is higher, such as label_flips=0.",
)
@click.option("--output", type=FILE, help="Report folder to make.")
@click.option("--force", is_flag=True, help="Replace an existing report folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@takes_plugins
def benchmark(
    *,
    list_categories: bool,
    list_suites: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Compare torch with the exported bundle: metrics, differences, latency.

    Train and export first (--manifest-path M, or --dataset NAME --root DIR), take what
    is there (--run DIR --bundle B), or run many models on many data sets (--suite
    FILE). The ONNX column runs the bundle as a device would. OUTPUT gets report.json,
    leaderboard.html, .csv and .md, per-image rows and, when trained here, the run and
    the bundle.

    Exit codes: 0 done; 1 a gate was missed, a bundle scores unlike its checkpoint, or
    a cell of a suite failed (what finished is kept); 2 refused.
    """
    from .pipelines.benchmark_command import list_categories as categories_of
    from .pipelines.benchmark_command import run_command
    from .pipelines.benchmark_options import BenchmarkOptions
    from .pipelines.suite_file import shipped_suites
    from .reporting.benchmark_table import print_benchmark, print_suite
    from .terminal_progress import TerminalProgress

    chosen = BenchmarkOptions(**options)
    if list_suites or list_categories:
        names = shipped_suites() if list_suites else categories_of(chosen)
        click.echo(json.dumps(names) if as_json else "\n".join(names))
        return 0
    if output is None:
        raise click.UsageError("--output: missing; name the report folder to make")
    with TerminalProgress() as progress:
        result = run_command(
            chosen,
            output=output,
            force=force,
            command=shlex.join(["pyimgano", "benchmark", *_typed()]),
            progress=progress,
            say=lambda line: click.echo(line, err=True),
        )
    if as_json:
        gates = [gate.to_json() for gate in result.gates]
        payload = result.report | ({"gates": gates} if gates else {})
        click.echo(json.dumps(payload, indent=2, ensure_ascii=False))
    elif chosen.suite is not None:
        print_suite(result.report, output.absolute())
    else:
        print_benchmark(result.report, output.absolute())
    for gate in result.gates:
        click.echo(f"gate: {gate.words}", err=True)
    for problem in result.problems:
        click.echo(f"failed: {problem}", err=True)
    return EXIT_FAILED if result.failed else 0


def _typed() -> list[str]:
    """Give the arguments as they were typed, for the page."""
    context = click.get_current_context()
    words: list[str] = []
    for parameter in context.command.params:
        assert parameter.name is not None
        source = context.get_parameter_source(parameter.name)
        if source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[parameter.name]
        values = value if isinstance(value, tuple) else (value,)
        for one in values:
            words.append(parameter.opts[0])
            if one is not True:
                words.append(str(one))
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pyimgano-benchmark`."""
    return exit_code_of(benchmark, arguments, "pyimgano-benchmark")


if __name__ == "__main__":
    sys.exit(main())
