"""`pyimgano-runtime`: infer, check and info on a bundle, without torch.

Exit codes: 0 done; 1 an anomaly was seen (only with --fail-on-anomaly); 2 usage;
3 bundle refused; 4 some inputs failed; 5 runtime or parity failure; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ._version import __version__
from .errors import BundleError, ConfigError, ParityError, PyimganoError

if TYPE_CHECKING:
    from pathlib import Path

    from .bundle import Bundle
    from .predictor import Predictor
    from .row_output import RowWriter

PROGRAM: Final = "pyimgano-runtime"
EXIT_ANOMALY: Final = 1
EXIT_USAGE: Final = 2
EXIT_BUNDLE: Final = 3
EXIT_INPUTS: Final = 4
EXIT_RUNTIME: Final = 5
EXIT_INTERRUPTED: Final = 130
SIGNATURE_TEXT: Final = (
    "lies beside the bundle; not verified here (pyimgano bundle verify --signature)"
)

EXIT_TEXT: Final = (
    "exit codes: 0 done; 1 anomaly seen (with --fail-on-anomaly); 2 usage; "
    "3 bundle refused; 4 some inputs failed; 5 runtime or parity failure; "
    "130 interrupted"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(given).parse_args(given)
    commands = {
        "infer": _infer,
        "check": _check,
        "info": _info,
        "calibrate": _calibrate,
    }
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any file name can be shown
    # numpy's and OpenCV's own threads do nothing here, but each takes time and memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from .memory_limit import limit_memory

        with limit_memory(_memory_limit(options)):
            code = commands[options.command](options)
        sys.stdout.flush()
        return code
    except BundleError as error:
        return _fail(str(error), EXIT_BUNDLE)
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except PyimganoError as error:
        return _fail(str(error), EXIT_RUNTIME)
    except BrokenPipeError:
        # The reader of our stdout went away (`| head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        return _fail(f"{error}: pip install numpy onnxruntime", EXIT_RUNTIME)
    except OSError as error:
        return _fail(f"{error}; check the disk and its permissions", EXIT_RUNTIME)
    except MemoryError:
        return _fail(
            "out of memory; use smaller pictures or allow more by --max-memory",
            EXIT_RUNTIME,
        )
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except Exception:
        import traceback  # here: help and results do not wait for it

        # A fault of ours must not end with Python's 1, which means "anomaly seen".
        traceback.print_exc()
        return _fail("this is a fault of pyimgano-runtime; report it", EXIT_RUNTIME)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _fail(message: str, code: int) -> int:
    _say(f"pyimgano-runtime: {message}")
    return code


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Give the parser of a command line; only the command in it gets its options."""
    if not {"-h", "--help"} & {*given}:
        # Each argument asks for a formatter, which imports shutil for the width.
        formatter: Any = partial(argparse.HelpFormatter, width=80)
    else:
        formatter = argparse.HelpFormatter
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Run a PyImgAno bundle: needs numpy and onnxruntime, not torch.",
        epilog=EXIT_TEXT,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog=PROGRAM
    )
    named = next((word for word in given if not word.startswith("-")), None)
    for name, (summary, example, add_arguments) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example: {PROGRAM} {example}",
            formatter_class=formatter,
        )
        if name == named:
            add_arguments(command)
    return parser


def _add_infer(infer: argparse.ArgumentParser) -> None:
    infer.add_argument("--bundle", required=True, help="the bundle folder")
    infer.add_argument("--category", help="which one, where the bundle holds several")
    which = infer.add_mutually_exclusive_group()
    which.add_argument(
        "--threshold",
        type=_threshold,
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
        "--fail-on-anomaly", action="store_true", help="exit 1 if one was seen"
    )
    _threads(infer)
    infer.add_argument(
        "--decode-workers",
        type=_workers,
        metavar="N",
        help="threads that decode pictures ahead of the model; 0: none (default: the "
        "cores this process may use, at most 4)",
    )
    _max_memory(infer)
    _trust(infer)
    infer.add_argument("input", nargs="+", metavar="INPUT", help="files or folders")


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    check.add_argument("--json", action="store_true", help="print JSON")
    _threads(check)
    _max_memory(check)
    _trust(check)


def _add_info(info: argparse.ArgumentParser) -> None:
    info.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    info.add_argument("--json", action="store_true", help="print JSON")
    _max_memory(info)
    _trust(info)


def _add_calibrate(calibrate: argparse.ArgumentParser) -> None:
    from .calibrate_cli import add_arguments

    add_arguments(calibrate)
    _threads(calibrate)
    _max_memory(calibrate)
    _trust(calibrate)


# name: (summary, example, what declares its options)
_COMMANDS: Final[
    dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]]
] = {
    "infer": (
        "score pictures, one JSON row each",
        "infer --bundle bundle --save-overlays out photos/",
        _add_infer,
    ),
    "check": (
        "prove on this machine that the bundle scores as it was trained",
        "check bundle",
        _add_check,
    ),
    "info": ("say what a bundle is", "info bundle", _add_info),
    "calibrate": (
        "set thresholds on this device's own pictures of good parts",
        "calibrate bundle good/ --output thresholds.json",
        _add_calibrate,
    ),
}


def _threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="onnxruntime threads (default: the cores this process may use)",
    )


def _max_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-memory",
        type=_memory,
        metavar="SIZE",
        help="address space that this process may take, such as 4G; 0 or none: no "
        "limit (default: three quarters of the machine's or container's memory)",
    )


def _memory_limit(options: argparse.Namespace) -> int | None:
    """Give the bytes that the command may take; None for no limit."""
    if options.max_memory == 0:
        return None
    from .cores import usable_cores
    from .memory_limit import HAS_EFFECT, default_limit, least_limit, show_size

    asked = getattr(options, "threads", None) or 1  # info starts none
    workers = getattr(options, "decode_workers", None) or 1
    threads = max(asked, workers, usable_cores())  # OpenCV uses all
    least = least_limit(threads)
    if options.max_memory is None:
        return default_limit(threads)
    if options.max_memory < least:
        raise ConfigError(
            f"--max-memory: found {show_size(options.max_memory)}, expected at least "
            f"{show_size(least)}: what the libraries reserve for {threads} threads"
        )
    if not HAS_EFFECT:
        _say("warning: --max-memory has no effect on this system, only on Linux")
    return int(options.max_memory)


def _memory(text: str) -> int:
    from .memory_limit import parse_size

    try:
        return parse_size(text) or 0
    except ValueError as cause:
        raise argparse.ArgumentTypeError(str(cause)) from cause


def _trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expect-sha256",
        type=_sha256,
        metavar="HEX",
        help="of infer_config.json, as the export printed it: any other is refused",
    )
    parser.add_argument(
        "--allow-hard-links",
        action="store_true",
        help="take files with several hard links (OSTree and the like make them)",
    )


def _sha256(text: str) -> str:
    from .bundle import is_sha256

    if not is_sha256(text):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected 64 hexadecimal digits'
        )
    return text


def _opened(options: argparse.Namespace) -> Bundle:
    from .bundle import open_bundle

    return open_bundle(
        options.bundle,
        allow_hard_links=options.allow_hard_links,
        expect_sha256=options.expect_sha256,
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:5]) <= 1024):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected a whole number from 1 to 1024'
        )
    return int(text)


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:5]) <= 1024):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected a whole number from 0 to 1024'
        )
    return int(text)


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f'found "{text}", expected a finite number')
    return value


def _infer(options: argparse.Namespace) -> int:
    with _no_collection():
        paths, predictor, writer = _ready(options)
    from .row_output import PictureSaver, write_rows

    saver = PictureSaver(
        options.save_maps, options.save_overlays, predictor, force=options.force
    )
    tally = write_rows(
        *(predictor, paths, writer, saver),
        say=_say,
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
    from .row_output import RowWriter
    from .sources import list_inputs

    thresholds = None
    if options.thresholds is not None:
        from .thresholds_file import read_thresholds_file

        thresholds = read_thresholds_file(options.thresholds)
    writer = RowWriter(options.output, force=options.force)
    paths = list_inputs(options.input)
    bundle = _opened(options)
    writer.keep_out_of(bundle.root)
    _warn_unlisted(bundle.unlisted_files())
    predictor = Predictor.open(
        bundle,
        category=options.category,
        threads=options.threads,
        threshold=options.threshold,
        thresholds=thresholds,
    )
    return paths, predictor, writer


def _calibrate(options: argparse.Namespace) -> int:
    from .calibrate_cli import run

    bundle = _opened(options)
    _warn_unlisted(bundle.unlisted_files())
    return 0 if run(options, bundle, say=_say) else EXIT_INPUTS


def _warn_unlisted(paths: Sequence[str]) -> None:
    from .bundle import unlisted_warnings

    for line in unlisted_warnings(paths):
        _say(line)


def _check(options: argparse.Namespace) -> int:
    from .check import check_bundle
    from .row_output import json_text

    report = check_bundle(_opened(options), threads=options.threads)
    if options.json:
        print(json_text(report.to_json(), sys.stdout, indent=2))
    else:
        _print_check(report)
    _warn_unlisted(report.unlisted)
    if not report.ok:
        reason = (
            "the model scores differently here than at export"
            if any(r.agrees is False for r in report.results)
            else "no golden could be judged here, so nothing is proven about the model "
            f"of {', '.join(report.unproven)}"
        )
        raise ParityError(f"{report.bundle}: {reason}")
    return 0


def _print_check(report: Any) -> None:
    print(f"bundle   {report.bundle}")
    print(f"engine   {report.engine}, pictures read by {report.decoder}")
    for result in report.results:
        verdict = {True: "ok", False: "DISAGREES", None: "not judged"}[result.agrees]
        line = f"{verdict:<10} {result.image:<22} {result.category}"
        if result.score is None:
            line += "  cannot be decoded here (pip install opencv-python-headless)"
        else:
            line += (
                f"  score {result.score:.6g} expected {result.expected_score:.6g}"
                f"  rel diff {result.score_rel_diff:.1e}"
            )
        if result.map_diff_of_range is not None:
            line += f"  map diff {result.map_diff_of_range:.1e} of range"
        if result.decoder == "differs":
            line += "  (this decoder gives other pixels than the one at export)"
        print(line)
    judged = [r for r in report.results if r.agrees is not None]
    agreed = sum(r.agrees is True for r in judged)
    left = len(report.results) - len(judged)
    print("files    all listed files present, size and sha256 correct")
    print(f"config   infer_config.json has sha256 {report.bundle_sha256}")
    print("         it lists the others and holds the thresholds, which may be edited:")
    print("         compare with the sha256 that the export printed")
    if report.signature:
        print(f"signature  {report.signature} {SIGNATURE_TEXT}")
    if not report.results:
        print("verdict  no goldens in this bundle: nothing is proven about the model")
        return
    print(
        f"verdict  {agreed} of {len(judged)} goldens agree with the trained model"
        + (f", {left} could not be judged here" if left else "")
    )


def _info(options: argparse.Namespace) -> int:
    from .row_output import json_text

    bundle = _opened(options)
    if options.json:
        signature = bundle.signature.name if bundle.signature else None
        document = bundle.config.to_dict() | {"signature": signature}
        print(json_text(document, sys.stdout, indent=2))
        return 0
    print_info(bundle)
    return 0


def print_info(bundle: Bundle) -> None:
    """Print what a bundle says of itself."""
    from .int8_words import int8_sentence
    from .threshold_words import describe_threshold

    config = bundle.config
    print(f"bundle     {config.bundle.name} {config.bundle.version}")
    print(f"created    {config.bundle.created}")
    print(f"sha256     {bundle.sha256}")
    if bundle.signature:
        print(f"signature  {bundle.signature.name} {SIGNATURE_TEXT}")
    producer = ", ".join(f"{k} {v}" for k, v in config.bundle.producer.items())
    print(f"made with  {producer}")
    print(f"size       {sum(e.size for e in config.files) / 1e6:.1f} MB")
    for name, category in config.categories.items():
        image = category.thresholds.provenance["image"]
        training = (config.training.get("categories") or {}).get(name, {})
        parity = config.parity.categories.get(name)
        print(f"category   {name}")
        if len(category.graph) > 1:
            files = [config.models[model].file for model in category.graph]
            print(f"  models     {', then '.join(files)}")
        print(f"  detector   {training.get('detector', 'unknown')}")
        print(
            f"  threshold  {category.thresholds.image:.6g}: {describe_threshold(image)}"
        )
        for warning in training.get("warnings") or []:
            print(f"  warning    {warning}")
        if parity is not None:
            print(
                f"  parity     {parity.label_flips} label flips on {parity.n_images} "
                f"{parity.images} images, score rel diff "
                f"{parity.max_rel_score_diff:.1e}"
            )
        in_int8 = int8_sentence(training, parity)
        if in_int8:
            print(f"  int8       {in_int8}")
