"""`pyimgano manifest`: make, check, count and split manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .command_errors import EXIT_REFUSED
from .finite_range import FiniteRange

if TYPE_CHECKING:
    from .datasets.issues import IssueLog, PreflightReport
    from .datasets.rows import ManifestRow


SHOWN_REMARKS: Final = 5


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def manifest() -> None:
    """Make, check, count and split manifests."""


@manifest.command(
    epilog="Examples: pyimgano manifest create --from photos  |  "
    "pyimgano manifest create --from mvtec --layout mvtec --category screw "
    "--output screw.jsonl  |  pyimgano manifest create --from photos "
    '--group-pattern "(part\\d+)_"',
)
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the pictures.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Manifest to write. Default: manifest.jsonl in the folder of the pictures.",
)
@click.option(
    "--layout",
    metavar="NAME",
    help="custom, mvtec, mvtec_loco, mvtec_ad2, visa or btad. Default: recognised.",
)
@click.option("--category", multiple=True, help="Only these; may be repeated.")
@click.option("--rename", metavar="NAME", help="Name for the only category.")
@click.option(
    "--guess-groups",
    is_flag=True,
    help='Pictures whose names differ in their last number ("part7_1", "part7_2") '
    "show one part and share a split.",
)
@click.option(
    "--group-pattern",
    metavar="REGEX",
    help="What the first group of this expression finds in a path names the part.",
)
@click.option("--force", is_flag=True, help="Replace an existing manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def create(
    folder: Path,
    output: Path | None,
    layout: str | None,
    category: tuple[str, ...],
    rename: str | None,
    guess_groups: bool,
    group_pattern: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the manifest of a folder of pictures.

    Recognised: train/ and test/ with good/ and defect folders, good/ beside defect
    folders, and the layouts of MVTec AD, MVTec LOCO, MVTec AD 2, VisA and BTAD. Masks
    are found in ground_truth/ or masks/. Nothing is moved or copied.
    """
    from pyimgano_runtime._reader import closest
    from pyimgano_runtime.atomic import refuse_existing_file
    from pyimgano_runtime.errors import ConfigError

    from .datasets.catalog import DataSource, scan_dataset
    from .datasets.issues import IssueLog
    from .datasets.layouts import LAYOUTS, recognise
    from .datasets.manifest import category_problem
    from .datasets.manifest_writer import (
        holds_no_rows,
        is_manifest,
        needs_root,
        with_kept_groups,
        write_rows,
    )

    if guess_groups and group_pattern is not None:
        raise ConfigError("--guess-groups, --group-pattern: give one of them")
    if not folder.is_dir():
        raise ConfigError(f"--from: {folder} is no folder; name that of the pictures")
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(
            f'--layout: found "{layout}", expected one of {", ".join(LAYOUTS)} '
            f"({closest(layout, LAYOUTS)})"
        )
    if rename is not None and (problem := category_problem(rename)):
        raise ConfigError(f"--rename: {problem}")
    output = output or folder / "manifest.jsonl"
    refuse_existing_file(
        output, force=force or holds_no_rows(output), is_ours=is_manifest
    )
    kind = layout or recognise(folder) or "custom"
    log = IssueLog()
    rows = scan_dataset(DataSource(kind, None, folder), log, categories=category)
    log.raise_errors()
    _echo_remarks(log)
    if guess_groups or group_pattern is not None:
        rows = _grouped(rows, group_pattern)
    rows = _renamed(rows, rename)
    _say_what_was_understood(rows)
    rows, n_kept = with_kept_groups(rows, output)
    if n_kept:
        click.echo(f"kept {n_kept} group ids of the manifest that was there", err=True)
    write_rows(output, rows)
    click.echo(f"{output}: {len(rows)} rows, layout {kind}", err=True)
    if needs_root(output, folder):
        click.echo(
            f"paths are relative to {folder}: set dataset.root (--root) to it wherever "
            "the manifest is used",
            err=True,
        )
    report = _examine(output, folder)
    _print_summary(report, output, as_json)
    for issue in report.issues:
        if issue.severity == "error":
            click.echo(f"training would refuse it: {issue.message}", err=True)


def _echo_remarks(log: IssueLog) -> None:
    """Say what is odd about the folders: the first of each kind, and how many more."""
    for (severity, code), total in log.counts.items():
        issues = [i for i in log.issues if (i.severity, i.code) == (severity, code)]
        for issue in issues[:SHOWN_REMARKS]:
            click.echo(f"{severity}: {issue.message}", err=True)
        if total > SHOWN_REMARKS:
            click.echo(f"{severity}: {total - SHOWN_REMARKS} more like these", err=True)


def _say_what_was_understood(rows: list[ManifestRow]) -> None:
    """Say which folders are good and which are defects: a wrong one shows here."""
    from collections import Counter

    for category in sorted({row.category for row in rows})[:20]:
        own = [row for row in rows if row.category == category]
        bad = Counter(row.meta.get("defect") for row in own if row.label == 1)
        defects = ", ".join(f"{name} {n}" for name, n in sorted(bad.items()))
        n_masks = sum(row.mask is not None for row in own)
        click.echo(
            f"{category}: {len(own) - bad.total()} good; defects: {defects or 'none'}; "
            f"{n_masks} masks",
            err=True,
        )


def _grouped(rows: list[ManifestRow], pattern: str | None) -> list[ManifestRow]:
    from .datasets.manifest_writer import group_by_name, group_sizes

    rows = group_by_name(rows, pattern)
    sizes = group_sizes(rows)
    n_without = len(rows) - sum(sizes.values())
    largest = ", ".join(f"{name} {n}" for name, n in sizes.most_common(3))
    click.echo(
        f"{len(sizes)} groups in {len(rows)} pictures (largest: {largest or 'none'}); "
        f"{n_without} without one",
        err=True,
    )
    return rows


def _renamed(rows: list[ManifestRow], name: str | None) -> list[ManifestRow]:
    from dataclasses import replace

    from pyimgano_runtime.errors import ConfigError

    categories = {row.category for row in rows}
    if name is None:
        return rows
    if len(categories) > 1:
        raise ConfigError(
            f"--rename: there are {len(categories)} categories; choose one by "
            "--category, or leave their names"
        )
    return [replace(row, category=name) for row in rows]


@manifest.command(epilog="Example: pyimgano manifest validate data/manifest.jsonl")
@click.argument("path", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.option(
    "--root", type=click.Path(path_type=Path), help="Second folder of the pictures."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def validate(path: Path, root: Path | None, as_json: bool) -> int:
    """Check the lines, paths, groups and splits of a manifest; open no picture.

    Exit code 2 if there are errors. "pyimgano preflight" also decodes the pictures.
    """
    from .reporting.preflight_table import print_preflight

    report = _examine(path, root)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        print_preflight(report, str(path))
    return EXIT_REFUSED if report.has_errors else 0


@manifest.command(epilog="Example: pyimgano manifest stats data/manifest.jsonl")
@click.argument("path", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.option(
    "--root", type=click.Path(path_type=Path), help="Second folder of the pictures."
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def stats(path: Path, root: Path | None, as_json: bool) -> int:
    """Count the rows of a manifest: splits, labels, groups, masks.

    Exit code 2 if lines could not be read; "validate" names them.
    """
    report = _examine(path, root)
    _print_summary(report, path, as_json)
    if not report.has_errors:
        return 0
    errors = [issue.message for issue in report.issues if issue.severity == "error"]
    if not report.summary["categories"]:
        click.echo(errors[0], err=True)
    else:
        click.echo(
            f"{path}: {len(errors)} errors, what they concern is not counted; see: "
            f"pyimgano manifest validate {path}",
            err=True,
        )
    return EXIT_REFUSED


@manifest.command(
    epilog="Example: pyimgano manifest split data/manifest.jsonl "
    "--output data/split.jsonl --test-normal-fraction 0.3 --seed 7",
)
@click.argument("path", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Manifest to write, in the folder of MANIFEST.",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="Second folder of the pictures."
)
@click.option(
    "--test-normal-fraction",
    type=FiniteRange(0.0, 0.9),
    default=0.2,
    show_default=True,
    help="Share of normals without a split that goes to test.",
)
@click.option(
    "--val-normal-fraction",
    type=FiniteRange(0.0, 0.9),
    default=0.0,
    show_default=True,
    help="Share of them that calibrates only.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--force", is_flag=True, help="Replace an existing manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def split(
    path: Path,
    output: Path,
    root: Path | None,
    test_normal_fraction: float,
    val_normal_fraction: float,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Write a manifest in which every row has its split.

    Rows with a split keep it; groups never divide; an unassigned group with a defect
    goes to test. The same seed gives the same split on every machine.
    """
    from pyimgano_runtime.atomic import refuse_existing_file
    from pyimgano_runtime.errors import ConfigError

    from .datasets.issues import IssueLog
    from .datasets.manifest import scan_manifest
    from .datasets.manifest_writer import is_manifest, write_splits
    from .datasets.splits import assign_splits

    refuse_existing_file(output, force=force, is_ours=is_manifest)
    if test_normal_fraction + val_normal_fraction >= 1:
        raise ConfigError(
            "--test-normal-fraction, --val-normal-fraction: their sum is "
            f"{test_normal_fraction + val_normal_fraction:g}, expected less than 1"
        )
    log = IssueLog()
    rows = scan_manifest(path, log, root=root)
    log.raise_errors()
    own = path.parent.resolve()
    moved = output.parent.resolve() != own
    if moved and any(row.folder.resolve() == own for row in rows):
        raise ConfigError(
            f"--output: {output} is in another folder, and the paths of a manifest are "
            f"relative to its own; write it into {path.parent}"
        )
    splits = assign_splits(
        rows,
        log,
        test_normal_fraction=test_normal_fraction,
        val_normal_fraction=val_normal_fraction,
        seed=seed,
    )
    log.raise_errors()
    write_splits(path, output, splits)
    click.echo(f"{output}: to train with it, set dataset.manifest_path to it", err=True)
    _print_summary(_examine(output, root), output, as_json)


def _examine(path: Path, root: Path | None) -> PreflightReport:
    from .datasets.catalog import DataSource
    from .workbench.preflight import PreflightPlan, examine

    plan = PreflightPlan(source=DataSource("manifest", path, root))
    return examine(plan, content=False).report


def _print_summary(report: PreflightReport, path: Path, as_json: bool) -> None:
    from .reporting.preflight_table import print_counts

    if as_json:
        click.echo(json.dumps(report.summary, indent=2, ensure_ascii=False))
    else:
        print_counts(report.summary, str(path))
