"""`pyimgano-runtime check`: its options and its words."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .cli_options import (
    SIGNATURE_TEXT,
    add_max_memory,
    add_threads,
    add_trust,
    opened,
    warn_unlisted,
)
from .errors import ParityError


def add_arguments(check: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    check.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    check.add_argument("--json", action="store_true", help="print JSON")
    add_threads(check)
    add_max_memory(check)
    add_trust(check)


def run(options: argparse.Namespace) -> int:
    """Replay the goldens and say whether they agree.

    Raises:
        ParityError: they do not, or there is none.
    """
    from .check import check_bundle
    from .row_output import json_text

    report = check_bundle(opened(options), threads=options.threads)
    if options.json:
        print(json_text(report.to_json(), sys.stdout, indent=2))
    else:
        _print_check(report)
    warn_unlisted(report.unlisted)
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
