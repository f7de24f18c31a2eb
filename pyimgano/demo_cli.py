"""`pyimgano demo`: everything once, on pictures that come along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .reporting.overview_facts import Overview


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano demo --output demo",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to make.",
)
@click.option(
    "--dataset",
    type=click.Choice(["generated", "elpv"]),
    default="generated",
    show_default=True,
    help='"elpv": real solar cells, from the package elpv-dataset (91 MB).',
)
@click.option(
    "--model", default="patchcore", show_default=True, help="Detector to train."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Other seeds draw other parts and train other models.",
)
@click.option("--force", is_flag=True, help="Replace an existing folder.")
def demo(output: Path, dataset: str, model: str, seed: int, force: bool) -> None:
    """Show the whole product once: train, export, run elsewhere without torch.

    Pictures are drawn (or solar cells taken from a package), a detector is trained
    and given a threshold, exported as a bundle with proof that it scores the same,
    copied to another folder and run there in a process that cannot import torch.
    Takes 1 to 3 minutes on two cores. Ends with a table and overview.html.
    """
    from .pipelines.demo import DemoPlan, run_demo
    from .terminal_progress import TerminalProgress

    plan = DemoPlan(dataset=dataset, model=model, seed=seed)
    with TerminalProgress() as progress:
        overview = run_demo(
            output,
            plan,
            force=force,
            progress=progress,
            say=lambda line: click.echo(line, err=True),
        )
    click.echo(f"{overview.headline}.")
    _print_table(overview)
    click.echo(f"open {output / 'overview.html'}")


def _print_table(overview: Overview) -> None:
    from rich.console import Console
    from rich.table import Table

    from .reporting.overview_facts import percent
    from .reporting.tables import with_interval

    table = Table()
    table.add_column("")
    for category in overview.categories:
        table.add_column(category.name, justify="right")
    rows = {
        "test pictures": [str(len(c.parts)) for c in overview.categories],
        "image AUROC [95 %]": [
            with_interval(dict(c.report), "image_auroc") for c in overview.categories
        ],
        "defects found": [
            f"{c.n_found} of {len(c.defective)}" for c in overview.categories
        ],
        "false alarms promised": [
            "-" if c.promised is None else f"about {percent(c.promised)}"
            for c in overview.categories
        ],
        "false alarms": [
            f"{c.n_false_alarms} of {len(c.good)}" for c in overview.categories
        ],
        "score diff torch/copy": [
            f"{c.agreement.max_rel_score_diff:.1e}" for c in overview.categories
        ],
        "verdicts that differ": [
            str(c.agreement.label_flips) for c in overview.categories
        ],
        "ms per picture": [f"{c.ms:.0f}" for c in overview.categories],
    }
    for measure, cells in rows.items():
        table.add_row(measure, *cells)
    Console().print(table)
