"""`pyimgano-runtime infer`: its options, and the way from inputs to rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .cli_options import (
    EXIT_ANOMALY,
    EXIT_INPUTS,
    add_max_memory,
    add_threads,
    add_trust,
    finite_number,
    number_from_0,
    opened,
    say,
    warn_unlisted,
)
from .region_flags import add_arguments as add_region_flags

if TYPE_CHECKING:
    from pathlib import Path

    from .predictor import Predictor
    from .row_output import RowWriter


def add_arguments(infer: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    infer.add_argument("--bundle", required=True, help="the bundle folder")
    infer.add_argument("--category", help="which one, where the bundle holds several")
    which = infer.add_mutually_exclusive_group()
    which.add_argument(
        "--threshold",
        type=finite_number,
        metavar="T",
        help="replaces the bundle's image threshold",
    )
    which.add_argument(
        "--thresholds",
        metavar="FILE",
        help='replaces its thresholds and p-values: what "calibrate" wrote',
    )
    infer.add_argument(
        "--output",
        metavar="FILE",
        help="write the rows to FILE, complete or absent (default: stdout)",
    )
    infer.add_argument(
        "--force", action="store_true", help="replace what exists at the outputs"
    )
    infer.add_argument(
        "--save-maps", metavar="DIR", help="save each anomaly map as .npy"
    )
    infer.add_argument(
        "--save-overlays",
        metavar="DIR",
        help="save each picture with its heat map (needs OpenCV)",
    )
    infer.add_argument(
        "--save-masks",
        metavar="DIR",
        help="save the defect regions of each picture as a black and white PNG",
    )
    add_region_flags(infer)
    infer.add_argument(
        "--fail-on-anomaly", action="store_true", help="exit 1 if one was seen"
    )
    add_threads(infer)
    infer.add_argument(
        "--decode-workers",
        type=number_from_0,
        metavar="N",
        help="threads that decode pictures ahead of the model; 0: none (default: the "
        "cores this process may use, at most 4)",
    )
    add_max_memory(infer)
    add_trust(infer)
    infer.add_argument("input", nargs="+", metavar="INPUT", help="files or folders")


def run(options: argparse.Namespace) -> int:
    """Judge each input, write its row, and give the exit code."""
    with _no_collection():
        paths, predictor, writer = _ready(options)
    from .row_output import PictureSaver, write_rows

    saver = PictureSaver(
        *(options.save_maps, options.save_overlays, predictor),
        force=options.force,
        masks=options.save_masks,
    )
    _say_regions(predictor)
    tally = write_rows(
        *(predictor, paths, writer, saver),
        say=say,
        decode_workers=options.decode_workers,
    )
    if tally.stopped:
        return 0
    if tally.failed:
        return EXIT_INPUTS
    return EXIT_ANOMALY if tally.anomalies and options.fail_on_anomaly else 0


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leave garbage alone for the block: imports make many objects and no garbage."""
    import gc

    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _ready(options: argparse.Namespace) -> tuple[list[Path], Predictor, RowWriter]:
    """Give the pictures, what judges them and what takes the rows, all checked."""
    from .predictor import Predictor
    from .region_flags import RegionFlags
    from .row_output import RowWriter
    from .sources import list_inputs

    thresholds = None
    if options.thresholds is not None:
        from .thresholds_file import read_thresholds_file

        thresholds = read_thresholds_file(options.thresholds)
    writer = RowWriter(options.output, force=options.force)
    paths = list_inputs(options.input)
    bundle = opened(options)
    writer.keep_out_of(bundle.root)
    warn_unlisted(bundle.unlisted_files())
    predictor = Predictor.open(
        bundle,
        category=options.category,
        threads=options.threads,
        threshold=options.threshold,
        thresholds=thresholds,
        regions=RegionFlags.of(options),
    )
    return paths, predictor, writer


def _say_regions(predictor: Predictor) -> None:
    """Say by which rules regions are found; the rows hold what was found."""
    from dataclasses import asdict

    from .row_output import json_text

    rules, roi = predictor.settings.regions, predictor.settings.roi
    if rules is None:
        return
    if predictor.regions_missing is not None:
        say(f"no regions: {predictor.regions_missing}")
        return
    told = {
        "pixel_threshold": predictor.settings.thresholds.pixel,
        "roi": None if roi is None else asdict(roi),
        **asdict(rules),
    }
    say(f"regions by {json_text(told, sys.stderr)}")
