"""`pyimgano defects`: regions of saved maps, to tune their rules without inference."""

from __future__ import annotations

import json
from pathlib import Path

import click

PATH = click.Path(path_type=Path)


def _size(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) != 2 or not all(s.isascii() and s.isdigit() for s in sides):
        raise click.BadParameter(f'found "{value}", expected HEIGHTxWIDTH in pixels')
    if not all(len(side) <= 6 and int(side) >= 1 for side in sides):
        raise click.BadParameter(f'found "{value}", expected sides from 1 to 999999')
    height, width = map(int, sides)
    return height, width


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano defects --map maps --infer-config bundle --size 512x512 "
    "--region min_area=50 --save-masks masks",
)
@click.option(
    "--map",
    "maps",
    metavar="PATH",
    type=PATH,
    multiple=True,
    required=True,
    help="A .npy file that `infer --save-maps` wrote, or a folder of them; may be "
    "repeated.",
)
@click.option(
    "--infer-config",
    "document",
    metavar="PATH",
    type=PATH,
    help="A bundle, or an infer_config.json: its pixel threshold, ROI and rules.",
)
@click.option("--category", help="Which one, where there are several.")
@click.option(
    "--size",
    metavar="HxW",
    callback=_size,
    help="Of the pictures in pixels. Default: that of each map, so areas and boxes "
    "count its cells.",
)
@click.option(
    "--region",
    "rules",
    metavar="NAME=VALUE",
    multiple=True,
    help="Replaces one rule, such as min_area=50; may be repeated (docs/regions.md).",
)
@click.option(
    "--roi",
    metavar="SHAPE",
    help='Part of the picture, in shares of its sides: "x0,y0,x1,y1" or corners '
    '"x,y x,y x,y"; "none": all of it.',
)
@click.option("--pixel-threshold", type=float, help="Replaces the document's.")
@click.option("--save-masks", metavar="DIR", type=PATH, help="Write a PNG for each.")
@click.option("--force", is_flag=True, help="Write into a folder that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one row a map.")
def defects(
    maps: tuple[Path, ...],
    document: Path | None,
    category: str | None,
    size: tuple[int, int] | None,
    rules: tuple[str, ...],
    roi: str | None,
    pixel_threshold: float | None,
    save_masks: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Find defect regions in saved anomaly maps.

    The same steps as in infer, so what is tuned here holds there: put the rules into
    `defects` of the training config, or pass them to infer.
    """
    from pyimgano_runtime.region_flags import RegionFlags

    from .pipelines.map_regions import find_in_maps, list_maps, region_settings
    from .reporting.regions_table import print_regions

    flags = RegionFlags(rules=rules, roi=roi, pixel_threshold=pixel_threshold)
    settings = region_settings(document, category, flags)
    rows = find_in_maps(
        list_maps(maps), settings, size=size, masks=save_masks, force=force
    )
    click.echo(f"regions by {json.dumps(settings.to_json())}", err=True)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        print_regions(rows)
