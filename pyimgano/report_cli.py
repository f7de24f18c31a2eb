"""`pyimgano report`: one page about a run or a bundle, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from .plugin_option_cli import takes_plugins

GALLERY: Final = 24  # pictures of a category
MOST_PICTURES: Final = 500


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples: pyimgano report run --html report.html  |  "
    "pyimgano report bundle --html bundle.html --no-pictures",
)
@click.argument("source", metavar="RUN|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    required=True,
    help="Page to write: one file that needs no network.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="With a RUN: its bundle, for how the exported model compares. Default: the "
    'one that "pyimgano train --export-bundle" made in it.',
)
@click.option(
    "--gallery",
    type=click.IntRange(1, MOST_PICTURES),
    default=GALLERY,
    show_default=True,
    metavar="N",
    help="With a RUN: test pictures of each category that are shown, mistakes first.",
)
@click.option("--no-pictures", is_flag=True, help="Show none: the page may go further.")
@click.option("--force", is_flag=True, help="Replace an existing report.")
@takes_plugins
def report(
    source: Path,
    page: Path,
    *,
    bundle: Path | None,
    gallery: int,
    no_pictures: bool,
    force: bool,
) -> None:
    """Write a page about a training run or a bundle.

    Of a RUN: which pictures, where the threshold comes from, the false-alarm rate that
    it promises and the one that the test counted, histograms, curves, heat maps with
    mistakes first, how the exported model compares, speed, and the facts of the model
    card. The pictures are read again from where the run recorded them; what is gone is
    said and left out. Of a BUNDLE: what the bundle itself holds.

    The page holds small copies of photographs unless --no-pictures is given.

    Exit codes: 0 written; 2 refused: neither a run nor a bundle, or the page exists.
    """
    from pyimgano_runtime.atomic import refuse_existing_file

    from .pipelines.write_report import write_report
    from .reporting.report_page import is_page
    from .terminal_progress import TerminalProgress

    refuse_existing_file(page, force=force, is_ours=is_page)
    with TerminalProgress() as progress:
        told = write_report(
            source,
            page,
            bundle=bundle,
            gallery=0 if no_pictures else gallery,
            progress=progress,
            warn=lambda line: click.echo(f"warning: {line}", err=True),
        )
    size = page.stat().st_size
    shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    click.echo(f"{page}: {shown}, {len(told.uris)} pictures")
    if told.n_photographs:
        click.echo(
            f"note: {page} holds {told.n_photographs} small copies of your photographs "
            "and of heat maps over them; mind who gets it (--no-pictures leaves them "
            "out)",
            err=True,
        )
