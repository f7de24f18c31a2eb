"""`pyimgano-runtime`: infer, check and info on a bundle, without torch.

Exit codes: 0 done; 1 an anomaly was seen (only with --fail-on-anomaly); 2 usage;
3 bundle refused; 4 some inputs failed; 5 runtime or parity failure; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from ._version import __version__
from .errors import BundleError, ConfigError, ParityError, PyimganoError

EXIT_ANOMALY: Final = 1
EXIT_USAGE: Final = 2
EXIT_BUNDLE: Final = 3
EXIT_INPUTS: Final = 4
EXIT_RUNTIME: Final = 5
EXIT_INTERRUPTED: Final = 130

EXIT_TEXT: Final = (
    "exit codes: 0 done; 1 anomaly seen (with --fail-on-anomaly); 2 usage; "
    "3 bundle refused; 4 some inputs failed; 5 runtime or parity failure; "
    "130 interrupted"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    options = _parser().parse_args(arguments)
    commands = {"infer": _infer, "check": _check, "info": _info}
    try:
        return commands[options.command](options)
    except BundleError as error:
        return _fail(error, EXIT_BUNDLE)
    except ConfigError as error:
        return _fail(error, EXIT_USAGE)
    except PyimganoError as error:
        return _fail(error, EXIT_RUNTIME)
    except BrokenPipeError:
        # The reader of our stdout went away (`| head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("pyimgano-runtime: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _fail(error: PyimganoError, code: int) -> int:
    print(f"pyimgano-runtime: {error}", file=sys.stderr)
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
        "--threshold", type=float, metavar="T", help="replaces the bundle's threshold"
    )
    infer.add_argument(
        "--output", metavar="FILE", help="write the rows to FILE (default: stdout)"
    )
    infer.add_argument(
        "--force", action="store_true", help="replace an existing --output FILE"
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
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"found {value}, expected 1 to 1024")
    return value


def _infer(options: argparse.Namespace) -> int:
    from .predictor import Predictor
    from .rows import predict_files
    from .sources import list_inputs

    paths = list_inputs(options.input)
    predictor = Predictor.open(
        options.bundle,
        category=options.category,
        threads=options.threads,
        threshold=options.threshold,
    )
    saver = _PictureSaver(options.save_maps, options.save_overlays, predictor)
    rows = predict_files(predictor, paths, with_map=saver.needed)
    failed = anomalies = 0
    with _RowWriter(options.output, force=options.force) as writer:
        for path, (row, image, prediction) in zip(paths, rows, strict=True):
            writer.write(row)
            failed += not row["ok"]
            anomalies += row.get("label") == "anomaly"
            if image is not None and prediction is not None:
                saver.save(path, image, prediction)
    print(
        f"{len(paths)} pictures: {anomalies} anomaly, "
        f"{len(paths) - failed - anomalies} normal, {failed} failed",
        file=sys.stderr,
    )
    if failed:
        return EXIT_INPUTS
    return EXIT_ANOMALY if anomalies and options.fail_on_anomaly else 0


class _RowWriter:
    """Writes JSONL rows to stdout, or to a file that is complete or absent."""

    def __init__(self, output: str | None, *, force: bool) -> None:
        self._path = Path(output) if output else None
        self._stream: IO[str] = sys.stdout
        if self._path is None:
            return
        if self._path.exists() and not force:
            raise ConfigError(
                f"--output {self._path}: already exists and nothing is overwritten; "
                "name another file or pass --force to replace it"
            )
        self._temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            self._stream = self._temporary.open("w", encoding="utf-8", newline="\n")
        except OSError as cause:
            raise ConfigError(
                f"--output {self._path}: cannot be written ({cause.strerror})"
            ) from cause

    def __enter__(self) -> _RowWriter:
        return self

    def write(self, row: dict[str, Any]) -> None:
        self._stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        if self._path is None:
            self._stream.flush()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._path is None:
            return
        self._stream.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


class _PictureSaver:
    """Saves maps and overlays beside the rows, one file a picture."""

    def __init__(self, maps: str | None, overlays: str | None, predictor: Any) -> None:
        self._maps = Path(maps) if maps else None
        self._overlays = Path(overlays) if overlays else None
        self._predictor = predictor
        self._names: set[str] = set()
        self.needed = bool(maps or overlays)
        if not self.needed:
            return
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
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as cause:
                    raise ConfigError(
                        f"{folder}: cannot be made ({cause.strerror})"
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
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _print_check(report)
    for path in report.unlisted:
        print(f"warning: {path} does not stand in files; never read", file=sys.stderr)
    if not report.ok:
        reason = (
            "the model scores differently here than at export"
            if any(r.agrees is False for r in report.results)
            else "no golden could be replayed, so nothing is proven"
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
    print("files    all listed files present, size and sha256 correct")
    print(f"verdict  {agreed} of {len(judged)} goldens agree with the trained model")


def _info(options: argparse.Namespace) -> int:
    from .bundle import open_bundle

    bundle = open_bundle(options.bundle)
    if options.json:
        print(json.dumps(bundle.config.to_dict(), indent=2, ensure_ascii=False))
        return 0
    config = bundle.config
    print(f"bundle     {config.bundle.name} {config.bundle.version}")
    print(f"created    {config.bundle.created}")
    print(f"sha256     {bundle.sha256}")
    producer = ", ".join(f"{k} {v}" for k, v in config.bundle.producer.items())
    print(f"made with  {producer}")
    print(f"size       {sum(e.size for e in config.files) / 1e6:.1f} MB")
    for name, category in config.categories.items():
        image = category.thresholds.provenance["image"]
        training = config.training.get("categories", {}).get(name, {})
        parity = config.parity.categories.get(name)
        print(f"category   {name}")
        print(f"  detector   {training.get('detector', 'unknown')}")
        print(
            f"  threshold  {category.thresholds.image:.6g} by {image.method} on "
            f"{image.n_images} held-out normals ({image.source})"
        )
        if image.used_false_alarm_rate is not None:
            print(
                f"  promised   at most {image.used_false_alarm_rate:.2%} false alarms"
                + (
                    f" (asked for {image.requested_false_alarm_rate:.2%})"
                    if image.requested_false_alarm_rate is not None
                    else ""
                )
            )
        if parity is not None:
            print(
                f"  parity     {parity.label_flips} label flips on {parity.n_images} "
                f"{parity.images} images, score rel diff "
                f"{parity.max_rel_score_diff:.1e}"
            )
    return 0
