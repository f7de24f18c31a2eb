"""`pyimgano bundle`: export a run as a bundle."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bundle() -> None:
    """Make deploy bundles."""


@bundle.command(
    epilog="Example: pyimgano bundle export --run run --output bundle",
)
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    required=True,
    help='Run folder, made by "pyimgano train".',
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Bundle folder to make.",
)
@click.option("--name", help="Name of the bundle. Default: the output folder's name.")
@click.option(
    "--release", default="1", show_default=True, help="Version of the bundle."
)
@click.option(
    "--goldens",
    type=click.Choice(["synthetic", "real", "none"]),
    default="synthetic",
    show_default=True,
    help="Pictures that travel along so that devices can prove their scores; "
    '"real" ships photographs of yours.',
)
@click.option(
    "--image-licence", help="Licence of the training pictures, for the model card."
)
@click.option(
    "--parity-images",
    default="200",
    show_default=True,
    metavar="N|all",
    help="Held-out pictures compared with torch.",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle folder.")
def export(
    run_folder: Path,
    output: Path,
    name: str | None,
    release: str,
    goldens: str,
    image_licence: str | None,
    parity_images: str,
    force: bool,
) -> None:
    """Export a run: one graph per category, compared with torch on real pictures.

    Nothing is written unless every check passes: exit 1 names what disagrees.
    """
    from pyimgano_runtime.bundle import open_bundle

    from .pipelines.export_run import export_run
    from .reporting.tables import print_bundle
    from .source_date import source_date
    from .terminal_progress import TerminalProgress
    from .workbench.artifacts import open_run

    count = _count(parity_images)
    run = open_run(run_folder)
    if goldens == "real":
        click.echo(
            "note: --goldens real puts photographs of yours into the bundle; "
            "they travel to every device",
            err=True,
        )
    with TerminalProgress() as progress:
        export_run(
            run,
            output,
            name=name or output.absolute().name,
            version=release,
            created=source_date(),
            goldens=goldens,
            image_licence=image_licence,
            parity_images=count,
            force=force,
            progress=progress,
        )
    print_bundle(open_bundle(output))


def _count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(
            f'found "{text}", expected a positive number or "all"',
            param_hint="--parity-images",
        )
    return int(text)
