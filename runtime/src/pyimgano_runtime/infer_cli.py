"""`pyimgano-runtime infer`: its options, and the way from inputs to rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_options import (
    EXIT_ANOMALY,
    EXIT_INPUTS,
    add_max_memory,
    add_provider,
    add_threads,
    add_trust,
    finite_number,
    number_from_0,
    opened,
    say,
    warn_fallback,
    warn_unlisted,
)
from .errors import ConfigError
from .region_flags import add_arguments as add_region_flags

if TYPE_CHECKING:
    from .bundle import Bundle
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
    add_provider(infer)
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
    infer.add_argument(
        "--health-file",
        metavar="FILE",
        help="keep a JSON file up to date for a supervisor: counts and the last error",
    )
    infer.add_argument(
        "--reload",
        action="store_true",
        help="take a replaced bundle into use as soon as it has passed its goldens",
    )
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
    with _health(options, predictor) as observe:
        tally = write_rows(
            *(predictor, paths, writer, saver),
            say=say,
            decode_workers=options.decode_workers,
            observe=observe,
        )
    if tally.stopped:
        return 0
    if tally.failed:
        return EXIT_INPUTS
    return EXIT_ANOMALY if tally.anomalies and options.fail_on_anomaly else 0


@contextmanager
def _health(
    options: argparse.Namespace, predictor: Predictor
) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Give what takes each row for the health file; None where none is asked for."""
    if options.health_file is None:
        yield None
        return
    from .health import HealthFile

    path = Path(options.health_file)
    with HealthFile(path, predictor, say=say) as health:
        yield health.row


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
    if options.reload and options.expect_sha256 is not None:
        raise ConfigError(
            "--reload, --expect-sha256: give one of them; the second takes one release "
            "and no other"
        )
    writer = RowWriter(options.output, force=options.force)
    paths = list_inputs(options.input)
    bundle = opened(options)
    writer.keep_out_of(bundle.root)
    if options.health_file is not None:
        from .health import refuse_health_file

        refuse_health_file(Path(options.health_file), bundle.root)
    warn_unlisted(bundle.unlisted_files())
    regions = RegionFlags.of(options)

    def predictor_on(bundle: Bundle) -> Predictor:
        return Predictor.open(
            bundle,
            category=options.category,
            threads=options.threads,
            threshold=options.threshold,
            thresholds=thresholds,
            regions=regions,
            providers=options.provider,
        )

    if not options.reload:
        predictor = predictor_on(bundle)
    else:
        from .reload import ReloadingPredictor

        predictor = ReloadingPredictor(
            bundle.root,
            predictor_on,
            say=say,
            allow_hard_links=options.allow_hard_links,
            threads=options.threads,
            providers=options.provider,
            needs_map=bool(options.save_maps or options.save_overlays),
            needs_regions=bool(options.save_masks),
        )
    warn_fallback(predictor.provider_in_use)
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
