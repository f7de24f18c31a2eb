"""What several commands of `pyimgano-runtime` take, and how they take it."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .bundle import Bundle
    from .providers import ProviderInUse

EXIT_ANOMALY: Final = 1
EXIT_USAGE: Final = 2
EXIT_BUNDLE: Final = 3
EXIT_INPUTS: Final = 4
EXIT_RUNTIME: Final = 5
EXIT_GATE: Final = 6
EXIT_INTERRUPTED: Final = 130
SIGNATURE_TEXT: Final = (
    "lies beside the bundle; not verified here (pyimgano bundle verify --signature)"
)


def say(line: str) -> None:
    """Show a line to the person at the screen: stdout carries results."""
    if sys.stderr is None:
        return  # it was closed before we began
    try:
        print(line, file=sys.stderr)
    except OSError:
        # Whoever read it went away, or its disk is full: that ends no run. What stdout
        # and the exit code tell is the result.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=positive_number,
        metavar="N",
        help="onnxruntime threads (default: the cores this process may use)",
    )


def add_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider",
        type=provider_names,
        action="extend",
        metavar="NAME",
        help="what computes, as onnxruntime names it or short: cuda, tensorrt, "
        "openvino, coreml, dml, ...; several: the preferred one first, and cpu only "
        'where it may stand in for them, such as "cuda,cpu" (default: cpu)',
    )


def add_max_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-memory",
        type=memory_size,
        metavar="SIZE",
        help="address space that this process may take, such as 4G; 0 or none: no "
        "limit (default: three quarters of the machine's or container's memory)",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expect-sha256",
        type=sha256_text,
        metavar="HEX",
        help="of infer_config.json, as the export printed it: any other is refused",
    )
    parser.add_argument(
        "--allow-hard-links",
        action="store_true",
        help="take files with several hard links (OSTree and the like make them)",
    )


def opened(options: argparse.Namespace) -> Bundle:
    from .bundle import open_bundle

    return open_bundle(
        options.bundle,
        allow_hard_links=options.allow_hard_links,
        expect_sha256=options.expect_sha256,
    )


def warn_unlisted(paths: Sequence[str]) -> None:
    from .bundle import unlisted_warnings

    for line in unlisted_warnings(paths):
        say(line)


def provider_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(name.isascii() and name.isalnum() for name in names):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected names such as cuda or cuda,cpu'
        )
    return names


def warn_fallback(provider: ProviderInUse | None) -> None:
    """Say it where another provider computes than the one that was asked for."""
    if provider is not None and provider.fallback:
        say(f"warning: --provider: {provider.fallback}")


def positive_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:5]) <= 1024):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected a whole number from 1 to 1024'
        )
    return int(text)


def picture_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) < 10**9):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected a whole number from 1 to 999999999'
        )
    return int(text)


def number_from_0(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:5]) <= 1024):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected a whole number from 0 to 1024'
        )
    return int(text)


def finite_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f'found "{text}", expected a finite number')
    return value


def number_above_0(text: str) -> float:
    value = finite_number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f'found "{text}", expected more than 0')
    return value


def seconds(text: str) -> float:
    value = finite_number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f'found "{text}", expected 0 or more seconds')
    return value


def share(text: str) -> float:
    value = finite_number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'found "{text}", expected a share, 0 to 1')
    return value


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise argparse.ArgumentTypeError(f'found "{text}", expected a whole number')
    return int(text)


def memory_size(text: str) -> int:
    from .memory_limit import parse_size

    try:
        return parse_size(text) or 0
    except ValueError as cause:
        raise argparse.ArgumentTypeError(str(cause)) from cause


def sha256_text(text: str) -> str:
    from .bundle import is_sha256

    if not is_sha256(text):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected 64 hexadecimal digits'
        )
    return text
