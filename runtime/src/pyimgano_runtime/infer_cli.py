"""`pyimgano-runtime infer`: its options, and the way from inputs to rows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_options import (
    EXIT_ANOMALY,
    EXIT_GATE,
    EXIT_INPUTS,
    add_max_memory,
    add_provider,
    add_threads,
    add_trust,
    count,
    finite_number,
    number_above_0,
    number_from_0,
    picture_count,
    say,
    seconds,
    share,
)
from .region_flags import add_arguments as add_region_flags

if TYPE_CHECKING:
    from .drift_watch import DriftWatch
    from .health import HealthFile
    from .infer_report import InferReport
    from .infer_source import Source
    from .ledger import Ledger
    from .predictor import Predictor
    from .raw_frames import FrameShape
    from .row_output import Drain, RowWriter, Tally


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
        "--review-band",
        type=number_above_0,
        metavar="R",
        help="decision review where a score lies within R x |threshold| of the "
        "threshold, such as 0.1 (default: the decision is the label)",
    )
    _add_inputs(infer)
    _add_outputs(infer)
    add_region_flags(infer)
    _add_gates(infer)
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
        "--reload",
        action="store_true",
        help="take a replaced bundle into use as soon as it has passed its goldens",
    )


def _add_inputs(infer: argparse.ArgumentParser) -> None:
    source = infer.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "input",
        nargs="*",
        default=(),
        metavar="INPUT",
        help='files or folders; "-" is a list of paths on stdin, one a line',
    )
    source.add_argument(
        "--watch",
        metavar="DIR",
        help="judge each file that comes into a folder, once it is complete: when it "
        "was renamed in, or has stood still for a while; goes on where it was stopped",
    )
    source.add_argument(
        "--frames",
        type=_frame_shape,
        metavar="HxWxC",
        help="raw uint8 frames on stdin, C 1 (grey) or 3 (RGB)",
    )
    source.add_argument(
        "--video",
        metavar="FILE|INDEX",
        help="the frames of a video file or of a camera (needs OpenCV)",
    )
    infer.add_argument(
        "--pattern",
        action="append",
        default=[],
        metavar="GLOB",
        help="which files of folders, by name, or by path in the folder where it has "
        "a /; may be repeated (default: by the suffixes of pictures)",
    )
    infer.add_argument(
        "--null", action="store_true", help="the paths on stdin end with NUL"
    )
    infer.add_argument(
        "--settle",
        type=seconds,
        metavar="SECONDS",
        help="how long size and time of a watched file must stand still (default: 1)",
    )
    infer.add_argument(
        "--poll",
        type=number_above_0,
        metavar="SECONDS",
        help="how often a watched folder is looked through (default: 0.5)",
    )


def _add_outputs(infer: argparse.ArgumentParser) -> None:
    infer.add_argument(
        "--output",
        metavar="FILE",
        help="write the rows to FILE, complete or absent (default: stdout)",
    )
    infer.add_argument(
        "--format",
        choices=("jsonl", "csv"),
        default="jsonl",
        help="of the rows (default: jsonl)",
    )
    infer.add_argument(
        "--resume",
        action="store_true",
        help="go on with the rows of FILE: inputs that have one are passed by",
    )
    infer.add_argument(
        "--force", action="store_true", help="replace what exists at the outputs"
    )
    infer.add_argument(
        "--run-report",
        metavar="FILE",
        help="write counts, percentiles, errors and gates as JSON at the end",
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
    infer.add_argument(
        "--health-file",
        metavar="FILE",
        help="keep a JSON file up to date for a supervisor: counts and the last error",
    )
    infer.add_argument(
        "--stats-every",
        type=picture_count,
        metavar="N",
        help="a line of JSON on stderr every N pictures: how scores, brightness and "
        "sharpness of the last 200 lie against training",
    )
    infer.add_argument(
        "--drift-report",
        metavar="FILE",
        help="keep an HTML page of it, with a verdict in words",
    )


def _add_gates(infer: argparse.ArgumentParser) -> None:
    infer.add_argument(
        "--fail-on-anomaly", action="store_true", help="exit 1 if one was seen"
    )
    infer.add_argument(
        "--max-anomaly-rate",
        type=share,
        metavar="P",
        help="exit 6 if more of the pictures scored are anomalies",
    )
    infer.add_argument(
        "--max-error-rate",
        type=share,
        metavar="P",
        help="exit 6 if more of the inputs failed (one that failed is 4 already)",
    )
    infer.add_argument(
        "--min-processed",
        type=count,
        metavar="N",
        help="exit 6 if fewer pictures were scored",
    )


def run(options: argparse.Namespace) -> int:
    """Judge each input, write its row, and give the exit code."""
    from .garbage import no_collection
    from .infer_predictor import open_predictor
    from .infer_source import list_source, refuse_contradictions
    from .row_output import Drain

    refuse_contradictions(options)
    with ExitStack() as stack:
        drain = stack.enter_context(Drain())
        writer, ledger = _writer(options, stack)
        source = list_source(options)
        with no_collection():
            predictor = open_predictor(options, writer)
        if drain.asked:  # by SIGTERM, before there was anything to finish
            return 0
        return _judge(options, source, predictor, writer, ledger, drain)


def _judge(
    options: argparse.Namespace,
    source: Source,
    predictor: Predictor,
    writer: RowWriter | Ledger,
    ledger: Ledger | None,
    drain: Drain,
) -> int:
    """Write the rows, and the report where one is asked for; give the exit code."""
    from .infer_predictor import say_regions
    from .infer_source import decode_workers, open_source
    from .row_output import PictureSaver, Tally, write_rows

    tally, report = Tally(), _report(options, predictor)
    saver = PictureSaver(
        *(options.save_maps, options.save_overlays, predictor),
        force=options.force or options.resume or options.watch is not None,
        masks=options.save_masks,
    )
    say_regions(predictor)
    watch = _drift_watch(options, predictor)

    def pass_by(row: dict[str, Any]) -> None:
        tally.add(row)
        saver.pass_by(row)
        if report is not None:
            report.statistics.add(row)

    inputs = open_source(source, options, predictor.rules, ledger)
    if ledger is not None:
        ledger.begin(_settings(options, predictor), pass_by)
        if tally.done:
            say(f"{options.output}: goes on after the {tally.done} rows that are there")
    at_the_end = nullcontext() if report is None else report.written_at_the_end(tally)
    with at_the_end, _health(options, predictor) as health:
        observers: list[Callable[[dict[str, Any]], None]] = []
        if report is not None:  # first: it cannot fail
            observers.append(report.statistics.add)
        if health is not None:
            observers.append(health.row)

        def observe(row: dict[str, Any]) -> None:
            for told in observers:
                told(row)

        write_rows(
            *(predictor, inputs, writer, saver),
            say=say,
            decode_workers=decode_workers(options),
            review_band=options.review_band,
            tally=tally,
            observe=observe,
            idle=None if health is None else health.beat,
            total=source.total,
            drain=drain,
            watch=watch,
        )
    if watch is not None:
        watch.finish()
    missed = report is not None and report.missed_gates()
    return _exit_code(options, tally, missed)


def _exit_code(options: argparse.Namespace, tally: Tally, missed: bool) -> int:
    """Give the first code that is true: DESIGN section 7 orders them."""
    if tally.stopped:
        return 0
    if tally.failed:
        return EXIT_INPUTS
    if missed:
        return EXIT_GATE
    return EXIT_ANOMALY if tally.anomalies and options.fail_on_anomaly else 0


def _writer(
    options: argparse.Namespace, stack: ExitStack
) -> tuple[RowWriter | Ledger, Ledger | None]:
    """Give what takes the rows; a file is held until the stack ends."""
    from .row_format import row_format
    from .row_output import RowWriter

    watched = options.watch is not None
    form = row_format(options.format, watched=watched)
    if options.output is None:
        return RowWriter(None, force=False, form=form), None
    from .ledger import Ledger

    ledger = Ledger(options.output, form, watched=watched)
    stack.enter_context(ledger.locked(resume=options.resume, force=options.force))
    return ledger, ledger


def _report(options: argparse.Namespace, predictor: Predictor) -> InferReport | None:
    """Give what counts for a report or for gates, where one is asked for."""
    gates = (options.max_anomaly_rate, options.max_error_rate, options.min_processed)
    if options.run_report is None and gates == (None, None, None):
        return None
    from .infer_report import InferReport

    return InferReport(options, predictor)


def _drift_watch(
    options: argparse.Namespace, predictor: Predictor
) -> DriftWatch | None:
    """Give what watches drift, if that was asked for."""
    if options.stats_every is None and options.drift_report is None:
        return None
    from .drift_watch import watch_of

    return watch_of(options, predictor)


def _settings(options: argparse.Namespace, predictor: Predictor) -> dict[str, Any]:
    """Give what a row depends on besides its input: a ledger's rows have it equal.

    With --reload, what comes from the bundle may change while rows are written: then
    each row says which bundle it was, and the ledger says what was asked for.
    """
    from dataclasses import asdict

    bundle, settings = predictor.bundle, predictor.settings
    rules, roi = settings.regions, settings.roi
    of_bundle: dict[str, Any] = {}
    if not options.reload:
        of_bundle = {
            "bundle_sha256": None if bundle is None else bundle.sha256,
            "threshold": predictor.threshold,
            "threshold_source": predictor.threshold_source,
            "pixel_threshold": settings.thresholds.pixel,
            "roi": None if roi is None else asdict(roi),
            "regions": None if rules is None else asdict(rules),
        }
    else:
        asked = ("threshold", "thresholds", "region", "no_regions", "roi")
        of_bundle = {name: getattr(options, name) for name in asked}
        of_bundle["pixel_threshold"] = options.pixel_threshold
    return of_bundle | {
        "reload": options.reload,
        "category": predictor.category,
        "review_band": options.review_band,
        "format": options.format,
        "watch": options.watch,
        "save_maps": options.save_maps,
        "save_overlays": options.save_overlays,
        "save_masks": options.save_masks,
    }


def _frame_shape(text: str) -> FrameShape:
    from .raw_frames import parse_frames

    try:
        return parse_frames(text)
    except ValueError as cause:
        raise argparse.ArgumentTypeError(str(cause)) from cause


@contextmanager
def _health(
    options: argparse.Namespace, predictor: Predictor
) -> Iterator[HealthFile | None]:
    """Give the health file; None where none is asked for."""
    if options.health_file is None:
        yield None
        return
    from .health import HealthFile

    path = Path(options.health_file)
    with HealthFile(path, predictor, say=say) as health:
        yield health
