"""`pyimgano-runtime check`: its options and its words."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_options import (
    SIGNATURE_TEXT,
    add_max_memory,
    add_provider,
    add_threads,
    add_trust,
    opened,
    warn_fallback,
    warn_unlisted,
)
from .errors import ParityError, PyimganoError

if TYPE_CHECKING:
    from .check import CheckReport


def add_arguments(check: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    check.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    check.add_argument("--json", action="store_true", help="print JSON")
    add_provider(check)
    add_threads(check)
    add_max_memory(check)
    add_trust(check)
    check.add_argument(
        "--health-file",
        metavar="FILE",
        help="write the verdict as JSON for a supervisor: ok is true only after it "
        "has passed",
    )


def run(options: argparse.Namespace) -> int:
    """Replay the goldens and say whether they agree.

    Raises:
        ParityError: they do not, or there is none.
    """
    report = _replayed(options)
    if options.json:
        from .row_output import json_text

        print(json_text(report.to_json(), sys.stdout, indent=2))
    else:
        _print_check(report)
    warn_unlisted(report.unlisted)
    warn_fallback(report.provider)
    if not report.ok:
        raise ParityError(_failure(report))
    return 0


def _replayed(options: argparse.Namespace) -> CheckReport:
    """Give the report, which the health file has by then."""
    if options.health_file is None:
        return _report(options)
    from .health import check_facts, refuse_health_file, write_health

    path = Path(options.health_file)
    refuse_health_file(path, Path(options.bundle))
    # A kill must not leave the verdict of before.
    write_health(path, check_facts(None, ["the check has not come to its end"]))
    try:
        report = _report(options)
    except (PyimganoError, ImportError, OSError, MemoryError) as error:
        problem = str(error) or type(error).__name__
        write_health(path, check_facts(None, [problem]))
        raise
    problems = [] if report.ok else [_failure(report)]
    write_health(path, check_facts(report, problems))
    return report


def _report(options: argparse.Namespace) -> CheckReport:
    from .check import check_bundle

    return check_bundle(
        opened(options), threads=options.threads, providers=options.provider
    )


def _failure(report: CheckReport) -> str:
    reason = (
        "the model scores differently here than at export"
        if any(r.agrees is False for r in report.results)
        else "no golden could be judged here, so nothing is proven about the model "
        f"of {', '.join(report.unproven)}"
    )
    return f"{report.bundle}: {reason}"


def _print_check(report: CheckReport) -> None:
    print(f"bundle   {report.bundle}")
    on_cpu = report.provider.name == "CPUExecutionProvider"
    computed = "" if on_cpu else f" with {report.provider.describe()}"
    print(f"engine   {report.engine}{computed}, pictures read by {report.decoder}")
    kind = "the CPU" if on_cpu else "other kernels than the CPU's"
    print(
        f"allowed  scores within {report.score_tolerance:g}, relative (the bundle's "
        f"tolerance for {kind})"
    )
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
