"""The words of `pyimgano-runtime calibrate`: its options, its table, its warnings."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

from .cli_options import (
    EXIT_INPUTS,
    add_max_memory,
    add_threads,
    add_trust,
    opened,
    say,
    warn_unlisted,
)
from .errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what only this command takes."""
    parser.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    parser.add_argument(
        "folder", metavar="FOLDER", help="good parts that did not train the bundle"
    )
    parser.add_argument("--category", help="which one, where the bundle holds several")
    parser.add_argument(
        "--target-false-alarm-rate",
        type=_rate,
        metavar="A",
        help="share of good parts that may be called anomalous (default: the one that "
        "the bundle was asked for, else 0.01)",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="file to write, complete or absent; not in the bundle",
    )
    parser.add_argument(
        "--group-by-folder",
        action="store_true",
        help="pictures of one sub-folder show one part",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace an existing thresholds file"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_threads(parser)
    add_max_memory(parser)
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Calibrate, write the file and print what changed; give the exit code.

    Raises:
        ConfigError: the output, the folder or the rate is refused.
    """
    from . import calibrate_command as command
    from .predictor import Predictor
    from .row_output import json_text

    bundle = opened(options)
    warn_unlisted(bundle.unlisted_files())
    if not options.folder:
        raise ConfigError("FOLDER is empty; name the folder of pictures of good parts")
    output = Path(options.output)
    set_at = command.timestamp(os.environ)
    command.refuse_output(output, bundle, force=options.force)
    predictor = Predictor.open(
        bundle, category=options.category, threads=options.threads
    )
    made = command.calibrate_folder(
        predictor,
        Path(options.folder),
        rate=options.target_false_alarm_rate,
        by_folder=options.group_by_folder,
        set_at=set_at,
    )
    if isinstance(made, command.Refused):
        for problem in made.problems:
            say(f"failed: {problem}")
        say(
            f"{len(made.problems)} pictures could not be scored, so nothing was "
            "written; replace or remove them"
        )
        return EXIT_INPUTS
    command.write_thresholds(made, output)
    for warning in made.warnings:
        say(f"warning: {warning}")
    if options.json:
        print(json_text(made.to_json(options.output), sys.stdout, indent=2))
    else:
        print("\n".join(made.table(options.output)))
    return 0


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1e-6 <= value <= 0.5:
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected a number from 0.000001 to 0.5'
        )
    return value
