"""`pyimgano train`: fit, calibrate, evaluate, report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command_errors import EXIT_REFUSED, exit_code_of
from .plugin_option_cli import takes_plugins

if TYPE_CHECKING:
    from .workbench.artifacts import Run


def _megabytes(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> int | None:
    """Give the MB of a size such as 2G."""
    if text is None:
        return None
    from pyimgano_runtime.memory_limit import MIB, parse_size

    from .workbench.config import LEAST_MEMORY_BUDGET_MB

    try:
        n_bytes = parse_size(text)
    except ValueError as cause:
        raise click.BadParameter(str(cause)) from cause
    if n_bytes is None or n_bytes < LEAST_MEMORY_BUDGET_MB * MIB:
        raise click.BadParameter(
            f'found "{text}", expected at least {LEAST_MEMORY_BUDGET_MB}M'
        )
    return n_bytes // MIB


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano train --config config.json --output run",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="Training config (JSON).",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Run folder to make. Default: runs/<name of the config file>.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Replaces the config's device.",
)
@click.option(
    "--memory-budget",
    "memory_budget_mb",
    metavar="SIZE",
    callback=_megabytes,
    help="Memory that features may take before they go to disk, such as 2G or 512M. "
    "Replaces the config's memory_budget_mb.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print the effective config as JSON and stop."
)
@click.option(
    "--preflight",
    is_flag=True,
    help="Examine the data, pictures decoded, print the report as JSON and stop; "
    "exit code 2 if it holds errors.",
)
@click.option(
    "--export-infer-config",
    is_flag=True,
    help="Also write artifacts/infer_config.json into the run, for "
    '"pyimgano infer --infer-config".',
)
@click.option(
    "--export-bundle",
    is_flag=True,
    help="Also export the run as the bundle RUN/bundle, with the defaults of "
    '"pyimgano bundle export".',
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a training that was interrupted, if config and data are the same.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace an existing run folder; begin an interrupted training anew.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@takes_plugins
def train(
    config_path: Path,
    output: Path | None,
    device: str | None,
    memory_budget_mb: int | None,
    dry_run: bool,
    preflight: bool,
    export_infer_config: bool,
    export_bundle: bool,
    resume: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Train every category of a config and write a run folder.

    The list of pictures is checked first; --preflight also decodes every picture and
    looks for duplicates, and "pyimgano preflight" shows the same as a table or page.
    """
    from dataclasses import replace

    from pyimgano_runtime.errors import ConfigError

    from .reporting.tables import print_run
    from .terminal_progress import TerminalProgress
    from .workbench.config import load_config
    from .workbench.labelled_rows import load_labelled
    from .workbench.preflight import run_preflight
    from .workbench.run_document import write_run_document
    from .workbench.runner import input_rules, load_splits
    from .workbench.runner import train as run_training
    from .workbench.unfinished import UnfinishedRun

    exports = export_infer_config or export_bundle
    if dry_run and preflight:
        raise ConfigError("--dry-run, --preflight: give one of them")
    if resume and force:
        raise ConfigError(
            "--resume, --force: one goes on, the other begins anew: give one"
        )
    if exports and (dry_run or preflight):
        raise ConfigError(
            "--export-infer-config, --export-bundle: nothing is trained with --dry-run "
            "or --preflight; leave them out"
        )
    loaded = load_config(config_path)
    if device is not None:
        loaded = replace(loaded, config=replace(loaded.config, device=device))
    if memory_budget_mb is not None:
        config = replace(loaded.config, memory_budget_mb=memory_budget_mb)
        loaded = replace(loaded, config=config)
    if dry_run:
        load_labelled(loaded, load_splits(loaded), input_rules())
        click.echo(json.dumps(loaded.config.to_dict(), indent=2, ensure_ascii=False))
        return 0
    if preflight:
        with TerminalProgress() as progress:
            report = run_preflight(loaded, progress=progress)
        payload = {"preflight": report.to_json()}
        click.echo(json.dumps(payload, indent=2, ensure_ascii=False))
        return EXIT_REFUSED if report.has_errors else 0
    folder = output or Path("runs") / config_path.stem
    try:
        with TerminalProgress() as progress:
            run = run_training(
                loaded, folder, force=force, resume=resume, progress=progress
            )
    except KeyboardInterrupt:
        if UnfinishedRun.beside(folder.absolute()).can_be_resumed():
            click.echo(f"{folder}: not finished; go on by --resume", err=True)
        raise
    if as_json:
        click.echo(json.dumps(run.report, indent=2, ensure_ascii=False))
    else:
        print_run(run.report, run.folder)
    # What was trained is safe by now, whatever an export finds.
    if export_infer_config:
        click.echo(f"infer config: {write_run_document(run)}", err=as_json)
    if export_bundle:
        _export_bundle(run, as_json=as_json)
    return 0


def _export_bundle(run: Run, *, as_json: bool) -> None:
    from pyimgano_runtime.bundle import open_bundle

    from .pipelines.export_run import PARITY_IMAGES, export_run
    from .source_date import source_date
    from .terminal_progress import TerminalProgress

    output = run.folder / "bundle"
    with TerminalProgress() as progress:
        export_run(
            run,
            output,
            name=run.folder.name,
            version="1",
            created=source_date(),
            goldens="synthetic",
            image_licence=None,
            parity_images=PARITY_IMAGES,
            force=False,
            progress=progress,
        )
    digest = open_bundle(output).sha256
    click.echo(f"bundle: {output}", err=as_json)
    click.echo(f"sha256 of infer_config.json: {digest}", err=as_json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pyimgano-train`."""
    return exit_code_of(train, arguments, "pyimgano-train")


if __name__ == "__main__":
    sys.exit(main())
