"""`pyimgano bundle accept`: may this bundle go to the line?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from .command_errors import EXIT_FAILED
from .finite_range import FiniteRange


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano bundle accept bundle --manifest-path m.jsonl --min "
    "recall=0.9 --max false_alarm_rate=0.02 --max latency_ms.p95=50",
)
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--manifest-path", type=click.Path(path_type=Path), help="JSONL manifest."
)
@click.option("--dataset", metavar="NAME", help="Layout of --root: custom, mvtec, ...")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder of --dataset; second picture folder of --manifest-path.",
)
@click.option("--category", multiple=True, help="Only these; may be repeated.")
@click.option(
    "--manifest-test-normal-fraction",
    type=FiniteRange(0.0, 1.0),
    default=0.2,
    show_default=True,
    help="Share of normals without a split that judge; 1: all.",
)
@click.option(
    "--manifest-split-seed", type=click.IntRange(0), default=0, show_default=True
)
@click.option(
    "--min",
    "minima",
    multiple=True,
    metavar="KEY=NUMBER",
    help="Lowest value of a report key, such as recall=0.9.",
)
@click.option(
    "--max",
    "maxima",
    multiple=True,
    metavar="KEY=NUMBER",
    help="Highest value of a report key, such as false_alarm_rate=0.02.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of onnxruntime.")
@click.option("--no-pixel-metrics", is_flag=True, help="Image metrics only.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Report folder. Default: BUNDLE.acceptance beside the bundle, where an "
    "earlier verdict is replaced.",
)
@click.option("--force", is_flag=True, help="Replace an existing report folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def accept(
    *,
    folder: Path,
    manifest_path: Path | None,
    dataset: str | None,
    root: Path | None,
    category: tuple[str, ...],
    manifest_test_normal_fraction: float,
    manifest_split_seed: int,
    minima: tuple[str, ...],
    maxima: tuple[str, ...],
    threads: int | None,
    no_pixel_metrics: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Judge a bundle by labelled pictures before it goes to the line.

    The bundle is run as a device would run it, on the test rows of the data. Every
    category must meet every --min and --max, must find at least one anomaly, and no
    golden may disagree; a number that could not be measured is not met.
    max_abs_score_diff and max_abs_map_diff are taken over the goldens.

    Exit codes: 0 accepted; 1 a gate was missed; 2 refused.
    """
    from pyimgano_runtime.bundle import open_bundle
    from pyimgano_runtime.cores import usable_cores
    from pyimgano_runtime.errors import ConfigError

    from .datasets.catalog import DataSource
    from .pipelines.accept_bundle import AcceptRequest, accept_bundle
    from .pipelines.compare_engines import MeasureOptions
    from .pipelines.gates import parse_gates
    from .reporting.benchmark_table import print_acceptance
    from .terminal_progress import TerminalProgress

    if (manifest_path is None) == (dataset is None):
        raise ConfigError(
            "which pictures judge? give --manifest-path M, or --dataset NAME with "
            "--root DIR"
        )
    gates = parse_gates(minima, maxima)
    opened = open_bundle(folder)
    place = output or opened.root.with_name(f"{opened.root.name}.acceptance")
    request = AcceptRequest(
        source=DataSource(dataset or "manifest", manifest_path, root),
        categories=category,
        test_normal_fraction=manifest_test_normal_fraction,
        split_seed=manifest_split_seed,
        gates=gates,
        threads=threads or usable_cores(),
        options=MeasureOptions(pixel_metrics=not no_pixel_metrics),
    )
    with TerminalProgress() as progress:
        report = accept_bundle(
            opened, request, place, force=force or output is None, progress=progress
        )
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print_acceptance(report, place)
    return 0 if report["accepted"] else EXIT_FAILED
