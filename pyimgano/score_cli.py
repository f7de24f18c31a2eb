"""`pyimgano score`: judge an archive, on this machine or on a Ray cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .command_errors import EXIT_FAILED, exit_on_sigterm
from .finite_range import FiniteNumber

PATH = click.Path(path_type=Path)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano score --bundle bundle --input archive --output scores",
)
@click.option("--bundle", type=PATH, required=True, help="The bundle folder.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="INPUT",
    help="A folder, a picture, a pattern such as 'photos/**/*.png', a list of paths "
    "(.txt), a manifest (.jsonl), a Parquet file or a folder of them; a path or a URL "
    "such as s3://bucket/photos. May be repeated.",
)
@click.option(
    "--output",
    required=True,
    metavar="DIR",
    help="Folder (or URL) for the rows: part-000000.parquet and on. The same command "
    "again goes on with the parts that are missing.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or a Ray cluster; the rows are the same.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help='Of a running cluster, such as "auto" or "10.0.0.5:6379". Default: one that '
    "is started on this machine and ended with the command.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 100_000),
    help="Processes that score. Default: as many as there are cores for.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads of each worker. Default: 1, or the cores shared out where --workers "
    "are given.",
)
@click.option(
    "--decode-workers",
    type=click.IntRange(0, 1024),
    metavar="N",
    help="Threads of each worker that read and decode ahead. Default: as --threads; 8 "
    "where inputs are URLs.",
)
@click.option("--category", help="Which one, where the bundle holds several.")
@click.option("--threshold", type=FiniteNumber(), help="Replaces the bundle's.")
@click.option(
    "--thresholds",
    type=PATH,
    metavar="FILE",
    help='Of "pyimgano-runtime calibrate", in the place of the bundle\'s.',
)
@click.option(
    "--review-band",
    type=click.FloatRange(min=0, min_open=True),
    metavar="R",
    help="Decision review where a score lies within R x |threshold| of the threshold.",
)
@click.option(
    "--root",
    metavar="DIR",
    help="Folder of the relative paths in lists, manifests and Parquet files. Default: "
    "that of the file.",
)
@click.option(
    "--column",
    help="Of Parquet files: which column holds the pictures or their paths. Default: "
    "chosen by type and name.",
)
@click.option(
    "--part-size",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    help="Inputs of a part: what a killed worker may have to score again.",
)
@click.option("--jsonl", is_flag=True, help="Write DIR/_jsonl/part-*.jsonl too.")
@click.option(
    "--force", is_flag=True, help="Delete the rows that are there and begin anew."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def score(as_json: bool, **chosen: Any) -> int:
    """Score a folder, a list or a table of pictures, millions if need be.

    One row an input, in Parquet; an input that cannot be scored is a row that says
    why. Memory stays flat, killed workers are replaced, and the same command goes on
    where it was killed. Exit code 1 if a picture could not be scored.
    """
    from .scoring.run_score import ScoreOptions, run_score
    from .terminal_progress import TerminalProgress

    options = ScoreOptions(**chosen)
    _refuse_contradictions(options)
    with exit_on_sigterm(), TerminalProgress() as progress:
        report = run_score(options, progress=progress, say=_say)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        for line in summary(report, options.output):
            click.echo(_shown(line))
    return EXIT_FAILED if report["counts"]["failed"] else 0


def _refuse_contradictions(options: Any) -> None:
    from pyimgano_runtime.errors import raise_all

    problems = []
    if options.ray_address is not None and options.engine != "ray":
        problems.append("--ray-address: goes with --engine ray only")
    if options.threshold is not None and options.thresholds is not None:
        problems.append("--threshold, --thresholds: give one of them")
    problems += [
        "--input: is empty; expected a folder, a file or a pattern"
        for place in options.inputs
        if not place
    ]
    if not options.output:
        problems.append("--output: is empty; expected a folder to make")
    raise_all(problems)


def summary(report: dict[str, Any], output: str) -> Sequence[str]:
    """Give what came of it, in lines for a person."""
    counts, start = report["counts"], report["this_start"]
    lines = [f"{counts['rows']:,} rows of {counts['inputs']:,} inputs in {output}"]
    if start["scored"]:
        team = f"{start['workers']} worker{'s' if start['workers'] != 1 else ''}"
        lines.append(
            f"scored now: {start['scored']:,} in {start['seconds']:.1f} s, "
            f"{start['per_second']:.1f} a second, by {team}"
        )
    told = f"anomaly {counts['anomaly']:,}, normal {counts['normal']:,}"
    if counts["review"]:
        told += f", review {counts['review']:,}"
    lines.append(f"{told}, not scored {counts['failed']:,}")
    for error in report["errors"]:
        lines.append(
            f"  {error['code']} {error['count']:,}, first: {error['first_message']}"
        )
    if start["parts_begun_again"]:
        lines.append(
            "parts scored again after a worker or the command was lost: "
            f"{len(start['parts_begun_again'])}"
        )
    return lines


def _say(line: str) -> None:
    click.echo(_shown(line), err=True)


def _shown(line: str) -> str:
    """Give a line that can be printed: names of files need not be valid text."""
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


if __name__ == "__main__":
    sys.exit(score())
