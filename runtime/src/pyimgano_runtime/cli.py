"""`pyimgano-runtime`: infer, check and info on a bundle, without torch.

Exit codes: 0 done; 1 an anomaly was seen (only with --fail-on-anomaly); 2 usage;
3 bundle refused; 4 some inputs failed; 5 runtime or parity failure; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from ._version import __version__
from .errors import BundleError, ConfigError, ParityError, PyimganoError

EXIT_ANOMALY: Final = 1
EXIT_USAGE: Final = 2
EXIT_BUNDLE: Final = 3
EXIT_INPUTS: Final = 4
EXIT_RUNTIME: Final = 5
EXIT_INTERRUPTED: Final = 130
SHOWN_UNLISTED: Final = 5

SHOWN_FAILURES: Final = 5

EXIT_TEXT: Final = (
    "exit codes: 0 done; 1 anomaly seen (with --fail-on-anomaly); 2 usage; "
    "3 bundle refused; 4 some inputs failed; 5 runtime or parity failure; "
    "130 interrupted"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    options = _parser().parse_args(arguments)
    commands = {"infer": _infer, "check": _check, "info": _info}
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any file name can be shown
    try:
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
        return _fail("out of memory; use smaller pictures", EXIT_RUNTIME)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except Exception:
        # A fault of ours must not end with Python's 1, which means "anomaly seen".
        traceback.print_exc()
        return _fail("this is a fault of pyimgano-runtime; report it", EXIT_RUNTIME)


def _fail(message: str, code: int) -> int:
    print(f"pyimgano-runtime: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyimgano-runtime",
        description="Run a PyImgAno bundle: needs numpy and onnxruntime, not torch.",
        epilog=EXIT_TEXT,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    infer = _command(
        commands,
        "infer",
        "score pictures, one JSON row each",
        "pyimgano-runtime infer --bundle bundle --save-overlays out photos/",
    )
    infer.add_argument("--bundle", required=True, help="the bundle folder")
    infer.add_argument("--category", help="which one, where the bundle holds several")
    infer.add_argument(
        "--threshold",
        type=_threshold,
        metavar="T",
        help="replaces the bundle's image threshold",
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
    infer.add_argument("input", nargs="+", metavar="INPUT", help="files or folders")

    check = _command(
        commands,
        "check",
        "prove on this machine that the bundle scores as it was trained",
        "pyimgano-runtime check bundle",
    )
    check.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    check.add_argument("--json", action="store_true", help="print JSON")
    _threads(check)

    info = _command(
        commands, "info", "say what a bundle is", "pyimgano-runtime info bundle"
    )
    info.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    info.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _command(
    commands: Any, name: str, summary: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example: {example}",
    )
    return parser


def _threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="onnxruntime threads (default: the cores this process may use)",
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:5]) <= 1024):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected a whole number from 1 to 1024'
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
    from .bundle import open_bundle
    from .predictor import Predictor
    from .rows import predict_files
    from .sources import list_inputs

    writer = _RowWriter(options.output, force=options.force)
    paths = list_inputs(options.input)
    bundle = open_bundle(options.bundle)
    _warn_unlisted(bundle.unlisted_files())
    predictor = Predictor.open(
        bundle,
        category=options.category,
        threads=options.threads,
        threshold=options.threshold,
    )
    saver = _PictureSaver(
        options.save_maps, options.save_overlays, predictor, force=options.force
    )
    rows = predict_files(predictor, paths, with_map=saver.needed)
    done = failed = anomalies = 0
    with writer, _Drain() as drain:
        for path, (row, image, prediction) in zip(paths, rows, strict=True):
            writer.write(row)
            done += 1
            failed += not row["ok"]
            if row["error"] is not None and options.output and failed <= SHOWN_FAILURES:
                # The rows go to a file: say on the screen what is wrong.
                print(f"failed: {row['error']['message']}", file=sys.stderr)
            anomalies += row["label"] == "anomaly"
            if image is not None and prediction is not None:
                saver.save(path, image, prediction)
            if drain.asked:
                break
    if drain.asked:
        print(
            f"stopped by SIGTERM after {done} of {len(paths)} pictures", file=sys.stderr
        )
    print(
        f"{done} pictures: {anomalies} anomaly, "
        f"{done - failed - anomalies} normal, {failed} failed",
        file=sys.stderr,
    )
    if drain.asked:
        return 0
    if failed:
        return EXIT_INPUTS
    return EXIT_ANOMALY if anomalies and options.fail_on_anomaly else 0


class _RowWriter:
    """Writes JSONL rows to stdout, or to a file that is complete or absent."""

    def __init__(self, output: str | None, *, force: bool) -> None:
        self._path = None if output is None else Path(output)
        self._stream: TextIO = sys.stdout
        if self._path is None:
            return
        if not self._path.name or self._path.is_dir():
            raise ConfigError(f'--output "{output}": is a folder, expected a file')
        if self._path.exists() and not self._path.is_file():
            raise ConfigError(f"--output {output}: is a device, expected a file")
        if self._path.exists() and not force:
            raise ConfigError(
                f"--output {output}: already exists and nothing is overwritten; "
                "name another file or pass --force to replace it"
            )
        self._temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.new")

    def __enter__(self) -> _RowWriter:
        if self._path is None:
            return self
        try:
            self._stream = self._temporary.open("w", encoding="utf-8", newline="\n")
        except OSError as cause:
            raise ConfigError(
                f"--output {self._path}: cannot be written ({cause.strerror}); "
                "name a file in a folder that exists and that you may write to"
            ) from cause
        return self

    def write(self, row: dict[str, Any]) -> None:
        self._stream.write(_json_text(row, self._stream) + "\n")
        if self._path is None:
            self._stream.flush()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._path is None:
            return
        try:
            if kind is None:
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._temporary.replace(self._path)
        finally:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)


class _Drain:
    """Turns SIGTERM into a wish: the picture at hand is finished, then no more."""

    def __enter__(self) -> _Drain:
        self.asked = False
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def _json_text(value: Any, stream: TextIO, *, indent: int | None = None) -> str:
    """Give JSON that the stream can hold: a file's name need not be valid text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, indent=indent)
    return text


def _warn_unlisted(paths: Sequence[str]) -> None:
    for path in paths[:SHOWN_UNLISTED]:
        print(
            f"warning: {path} is in the bundle folder but not in its list of files; "
            "it is never read",
            file=sys.stderr,
        )
    if len(paths) > SHOWN_UNLISTED:
        print(
            f"warning: {len(paths) - SHOWN_UNLISTED} more such files", file=sys.stderr
        )


class _PictureSaver:
    """Saves maps and overlays beside the rows, one file a picture."""

    def __init__(
        self, maps: str | None, overlays: str | None, predictor: Any, *, force: bool
    ) -> None:
        self._maps = Path(maps) if maps else None
        self._overlays = Path(overlays) if overlays else None
        self._predictor = predictor
        self._names: set[str] = set()
        self.needed = bool(maps or overlays)
        if not self.needed:
            return
        from .atomic import refuse_existing

        if not predictor.engine.has_map:
            raise ConfigError(
                "--save-maps and --save-overlays: this bundle's model gives a score "
                "only, no anomaly map"
            )
        if overlays:
            from .pictures import require_opencv

            require_opencv()
        for folder in (self._maps, self._overlays):
            if folder is not None:
                refuse_existing(folder, force=force)
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as cause:
                    raise ConfigError(
                        f"{folder}: cannot be made ({cause.strerror}); "
                        "name a folder in a place you may write to"
                    ) from cause

    def save(self, path: Path, image: Any, prediction: Any) -> None:
        from .paths import plain_name

        stem = plain_name(f"{path.parent.name}_{path.stem}", self._names)
        if self._maps is not None:
            from .pictures import save_map

            save_map(self._maps / f"{stem}.npy", prediction.anomaly_map)
        if self._overlays is not None:
            from .pictures import save_overlay

            save_overlay(
                self._overlays / f"{stem}.png", image, prediction, self._predictor
            )


def _check(options: argparse.Namespace) -> int:
    from .bundle import open_bundle
    from .check import check_bundle

    report = check_bundle(open_bundle(options.bundle), threads=options.threads)
    if options.json:
        print(_json_text(report.to_json(), sys.stdout, indent=2))
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
    if not report.results:
        print("verdict  no goldens in this bundle: nothing is proven about the model")
        return
    print(
        f"verdict  {agreed} of {len(judged)} goldens agree with the trained model"
        + (f", {left} could not be judged here" if left else "")
    )


def _info(options: argparse.Namespace) -> int:
    from .bundle import open_bundle

    bundle = open_bundle(options.bundle)
    if options.json:
        print(_json_text(bundle.config.to_dict(), sys.stdout, indent=2))
        return 0
    _print_info(bundle)
    return 0


def _print_info(bundle: Any) -> None:
    config = bundle.config
    print(f"bundle     {config.bundle.name} {config.bundle.version}")
    print(f"created    {config.bundle.created}")
    print(f"sha256     {bundle.sha256}")
    producer = ", ".join(f"{k} {v}" for k, v in config.bundle.producer.items())
    print(f"made with  {producer}")
    print(f"size       {sum(e.size for e in config.files) / 1e6:.1f} MB")
    for name, category in config.categories.items():
        image = category.thresholds.provenance["image"]
        training = (config.training.get("categories") or {}).get(name, {})
        parity = config.parity.categories.get(name)
        print(f"category   {name}")
        print(f"  detector   {training.get('detector', 'unknown')}")
        print(
            f"  threshold  {category.thresholds.image:.6g} by {image.method} on "
            f"{image.n_images} held-out normals ({image.source})"
        )
        if image.used_false_alarm_rate is not None:
            print(
                f"  promised   {'about' if image.approximate else 'at most'} "
                f"{image.used_false_alarm_rate:.2%} false alarms"
                + (
                    f" (asked for {image.requested_false_alarm_rate:.2%})"
                    if image.requested_false_alarm_rate is not None
                    else ""
                )
            )
        for warning in training.get("warnings") or []:
            print(f"  warning    {warning}")
        if parity is not None:
            print(
                f"  parity     {parity.label_flips} label flips on {parity.n_images} "
                f"{parity.images} images, score rel diff "
                f"{parity.max_rel_score_diff:.1e}"
            )
