"""`pyimgano preflight`: what is wrong with the data, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command_errors import EXIT_REFUSED
from .finite_range import FiniteRange
from .plugin_option_cli import takes_plugins

if TYPE_CHECKING:
    from .workbench.preflight import PreflightPlan


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples: pyimgano preflight --manifest-path data/manifest.jsonl  |  "
    "pyimgano preflight --config config.json --html preflight.html  |  "
    "pyimgano preflight --dataset mvtec --root mvtec --category screw",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Training config: its data, split, detector and false-alarm rate.",
)
@click.option(
    "--manifest-path", type=click.Path(path_type=Path), help="JSONL manifest."
)
@click.option(
    "--dataset", metavar="NAME", help="Layout of --root: custom, mvtec, visa, ..."
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder of --dataset; second picture folder of --manifest-path.",
)
@click.option("--category", multiple=True, help="Only these; may be repeated.")
@click.option(
    "--test-normal-fraction",
    type=FiniteRange(0.0, 0.9),
    help="Share of normals without a split that goes to test. Default: 0.2.",
)
@click.option("--split-seed", type=click.IntRange(0), help="Default: 0.")
@click.option(
    "--target-false-alarm-rate",
    type=FiniteRange(1e-6, 0.5),
    help="Rate that the normals should be able to promise. Default: 0.01.",
)
@click.option(
    "--html",
    "html_path",
    type=click.Path(path_type=Path),
    help="Also write a page with pictures of what was found.",
)
@click.option("--force", is_flag=True, help="Replace an existing page.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@takes_plugins
def preflight(
    *, html_path: Path | None, force: bool, as_json: bool, **options: Any
) -> int:
    """Examine a data set: decode every picture, find what would spoil a training.

    Give a --config, a --manifest-path, or a --dataset with its --root. Exit code 2 if
    there are errors; warnings and infos are for a person to judge. All codes:
    docs/preflight.md.
    """
    from pyimgano_runtime.atomic import refuse_existing_file

    from .reporting.preflight_page import is_page, write_preflight_page
    from .reporting.preflight_table import print_preflight
    from .terminal_progress import TerminalProgress
    from .workbench.preflight import examine

    if html_path is not None:
        refuse_existing_file(html_path, force=force, is_ours=is_page)
    plan = _plan(**options)
    with TerminalProgress() as progress:
        found = examine(plan, progress=progress)
    if as_json:
        click.echo(json.dumps(found.report.to_json(), indent=2, ensure_ascii=False))
    else:
        print_preflight(found.report, plan.source.place)
    if html_path is not None:
        n_pictures = write_preflight_page(
            html_path, found.report, found.splits, title=plan.source.place
        )
        notice = (
            f"holds {n_pictures} of your pictures, made small; mind who gets it"
            if n_pictures
            else "written; there was nothing to show in pictures"
        )
        click.echo(f"{html_path}: {notice}", err=True)
    return EXIT_REFUSED if found.report.has_errors else 0


def _plan(
    *,
    config_path: Path | None,
    manifest_path: Path | None,
    dataset: str | None,
    root: Path | None,
    category: tuple[str, ...],
    test_normal_fraction: float | None,
    split_seed: int | None,
    target_false_alarm_rate: float | None,
) -> PreflightPlan:
    """Give what the options ask for; refuse those that contradict each other."""
    from dataclasses import replace

    from pyimgano_runtime.errors import raise_all

    from .datasets.catalog import DataSource
    from .workbench.config import CalibrationConfig, load_config
    from .workbench.preflight import PreflightPlan

    given = {
        "--config": config_path,
        "--manifest-path": manifest_path,
        "--dataset": dataset,
    }
    named = [name for name, value in given.items() if value is not None]
    problems = []
    if len(named) != 1:
        found = " and ".join(named) or "none of them"
        problems.append(
            "expected one of --config, --manifest-path or --dataset (with --root), "
            f"found {found}"
        )
    if config_path is not None:
        others = {
            "--root": root,
            "--test-normal-fraction": test_normal_fraction,
            "--split-seed": split_seed,
            "--target-false-alarm-rate": target_false_alarm_rate,
        }
        problems += [
            f"{name}: comes from --config; change it there"
            for name, value in others.items()
            if value is not None
        ]
    raise_all(problems)
    if config_path is not None:
        plan = PreflightPlan.of(load_config(config_path))
        return replace(plan, categories=category) if category else plan
    kind = "manifest" if dataset is None else dataset
    rate = target_false_alarm_rate
    return PreflightPlan(
        source=DataSource(kind, manifest_path, root),
        categories=category,
        test_normal_fraction=(
            0.2 if test_normal_fraction is None else test_normal_fraction
        ),
        split_seed=split_seed or 0,
        calibration=(
            CalibrationConfig()
            if rate is None
            else CalibrationConfig(target_false_alarm_rate=rate)
        ),
    )
