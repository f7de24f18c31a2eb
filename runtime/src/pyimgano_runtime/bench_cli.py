"""`pyimgano-runtime bench`: its options and its tables."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from .cli_options import (
    EXIT_RUNTIME,
    add_max_memory,
    add_provider,
    add_trust,
    number_from_0,
    opened,
    positive_number,
    say,
    warn_fallback,
)

if TYPE_CHECKING:
    from .bench import BenchPicture, BenchRun
    from .bundle import Bundle

BENCH_SCHEMA_VERSION: Final = "1.0"
FEW: Final = 100  # pictures: with fewer, p99 is little more than the slowest
MOST_SECONDS: Final = 86_400.0
MOST_SIDE: Final = 100_000
# One number of threads each in a process of its own: memory that one has taken is not
# counted for the next. The paths are ours, not the folder that we stand in.
_CHILD: Final = (
    "import sys; paths = sys.argv.pop(1); sys.path[:] = paths.split({separator!r}); "
    "from pyimgano_runtime.cli import main; sys.exit(main())"
)


def add_arguments(bench: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    bench.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    bench.add_argument("--category", help="which one, where the bundle holds several")
    what = bench.add_mutually_exclusive_group()
    what.add_argument(
        "--images",
        metavar="FOLDER",
        help="its pictures (default: the goldens of the bundle)",
    )
    what.add_argument(
        "--size",
        type=picture_size,
        metavar="HxW",
        help="generated pixels of that size, such as 1080x1920; nothing is decoded",
    )
    how_long = bench.add_mutually_exclusive_group()
    how_long.add_argument(
        "--seconds",
        type=seconds,
        default=5.0,
        metavar="S",
        help="measure at least so long (default: 5)",
    )
    how_long.add_argument(
        "--rounds",
        type=positive_number,
        metavar="N",
        help="measure every picture N times instead",
    )
    bench.add_argument(
        "--warmup",
        type=number_from_0,
        default=5,
        metavar="N",
        help="pictures that are judged first and not counted (default: 5)",
    )
    bench.add_argument(
        "--threads",
        type=thread_counts,
        metavar="N",
        help="onnxruntime threads (default: the cores this process may use); several "
        "are compared: 1,2,4",
    )
    add_provider(bench)
    bench.add_argument(
        "--no-map", action="store_true", help="leave the anomaly maps out"
    )
    bench.add_argument("--json", action="store_true", help="print JSON")
    add_max_memory(bench)
    add_trust(bench)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    from .row_output import json_text

    counts = options.threads or [None]
    if len(counts) == 1:
        document = _document(options, counts[0])
    else:
        documents = []
        for count in counts:
            code, found = _in_a_child(options, count)
            if code != 0:
                return code
            documents.append(found)
        document = documents[0] | {"runs": [d["runs"][0] for d in documents]}
    if options.json:
        print(json_text(document, sys.stdout, indent=2))
    else:
        print_bench(document)
    return 0


def _document(options: argparse.Namespace, threads: int | None) -> dict[str, Any]:
    """Measure in this process, with one number of threads."""
    from .bench import BenchPlan, measure
    from .cores import usable_cores
    from .decode import decoder_name
    from .infer_config import select_category
    from .machine import describe_machine
    from .onnxruntime_build import describe_build
    from .predictor import Predictor
    from .quiet_onnxruntime import load_onnxruntime

    machine = describe_machine()
    bundle = opened(options)
    category = select_category(list(bundle.config.categories), options.category)
    source, pictures = _pictures(options, bundle, category)
    load_onnxruntime()  # its import is no part of opening a bundle

    def open_predictor() -> Predictor:
        return Predictor.open(
            opened(options),
            category=category,
            threads=threads,
            providers=options.provider,
        )

    plan = BenchPlan(
        *(options.seconds, options.rounds, options.warmup), not options.no_map
    )
    found = measure(open_predictor, pictures, plan)
    warn_fallback(found.provider)
    _warn_failed(found)
    return {
        "schema_version": BENCH_SCHEMA_VERSION,
        "machine": machine,
        "onnxruntime": describe_build(),
        "engine": found.engine,
        "decoder": decoder_name(),
        "bundle": {
            "path": str(bundle.root),
            "name": bundle.config.bundle.name,
            "version": bundle.config.bundle.version,
            "sha256": bundle.sha256,
            "category": category,
        },
        "pictures": {"source": source, "count": len(pictures)},
        "warmup": options.warmup,
        "with_map": plan.with_map,
        "runs": [{"threads": threads or usable_cores(), **found.to_json()}],
    }


def _pictures(
    options: argparse.Namespace, bundle: Bundle, category: str
) -> tuple[str, list[BenchPicture]]:
    """Give the pictures to measure with, and what they are."""
    from .bench import folder_pictures, generated_pictures, golden_pictures

    rules = bundle.config.input
    if options.images is not None:
        return options.images, folder_pictures(options.images)
    if options.size is not None:
        return "generated, nothing to decode", generated_pictures(rules, options.size)
    goldens = golden_pictures(bundle, category)
    if goldens:
        return "goldens of the bundle", goldens
    return "generated (no goldens here), nothing to decode", generated_pictures(rules)


def _in_a_child(
    options: argparse.Namespace, threads: int
) -> tuple[int, dict[str, Any]]:
    """Measure with one number of threads in a process of its own.

    Gives its exit code and what it measured. Where it failed, it has said why.
    """
    import json
    import os
    import subprocess

    say(f"measuring with --threads {threads}")
    code = _CHILD.format(separator=os.pathsep)
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
    done = subprocess.run(
        [sys.executable, "-c", code, paths, *_arguments(options, threads)],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode < 0:
        say(f"--threads {threads}: the process was ended by signal {-done.returncode}")
        return EXIT_RUNTIME, {}
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else {}


def _arguments(options: argparse.Namespace, threads: int) -> list[str]:
    """Give the command line of one number of threads."""
    words = ["bench", "--json", "--threads", str(threads)]
    words += ["--warmup", str(options.warmup)]
    if options.rounds is None:
        words += ["--seconds", repr(options.seconds)]
    else:
        words += ["--rounds", str(options.rounds)]
    if options.size is not None:
        words += ["--size", "x".join(map(str, options.size))]
    for flag in ("images", "category", "expect_sha256"):
        if (value := getattr(options, flag)) is not None:
            words.append(f"--{flag.replace('_', '-')}={value}")
    if options.max_memory is not None:
        words += ["--max-memory", str(options.max_memory)]
    if options.provider:
        words += ["--provider", ",".join(options.provider)]
    for flag in ("no_map", "allow_hard_links"):
        words += [f"--{flag.replace('_', '-')}"] * getattr(options, flag)
    return [*words, "--", options.bundle]


def _warn_failed(found: BenchRun) -> None:
    for name, why in list(found.failed.items())[:5]:
        say(f"warning: {name} is left out: {why}")
    if len(found.failed) > 5:
        say(f"warning: {len(found.failed) - 5} more are left out")


def print_bench(document: dict[str, Any]) -> None:
    """Print what was measured as a table."""
    bundle, machine = document["bundle"], document["machine"]
    pictures = document["pictures"]
    first = document["runs"][0]
    load, cores = machine["load_1min"], machine["usable_cores"]
    busy = "" if load is None else f", load {load:g} before"
    if load is not None and load > cores / 2:
        busy += ": busy, alone it may be faster than this"
    height, width = first["largest"]
    print(f"bundle    {bundle['name']} {bundle['version']}, {bundle['category']}")
    print(f"sha256    {bundle['sha256']}")
    print(f"machine   {machine['processor']}, {cores} usable cores")
    print(f"          {machine['system']}{busy}")
    print(f"engine    {document['onnxruntime']}, {_provider(first)}")
    print(
        f"pictures  {pictures['count']} {pictures['source']}, up to {height} x {width} "
        f"pixels, read by {document['decoder']}"
    )
    print(f"          {'with' if document['with_map'] else 'without'} anomaly map")
    for run in document["runs"]:
        print()
        _print_run(run)
    if len(document["runs"]) > 1:
        best = max(document["runs"], key=lambda run: run["pictures_per_s"])
        print(f"\nmost pictures a second: --threads {best['threads']}")


def _provider(run: dict[str, Any]) -> str:
    operators = run["operators"] or {}
    if len(operators) < 2:
        return str(run["provider"])
    share = f"{operators[run['provider']]} of {sum(operators.values())} operators"
    return f"{run['provider']} ({share})"


def _print_run(run: dict[str, Any]) -> None:
    word = "thread" if run["threads"] == 1 else "threads"
    print(f"{run['threads']} {word:<8}     p50       p90       p99       max  ms")
    for step, shares in run["ms"].items():
        cells = "".join(f"{value:>10.2f}" for value in shares.values())
        print(f"  {step:<7}{cells}")
    memory = (
        f"{run['rss_mb']:.0f} MB now, {run['peak_rss_mb']:.0f} MB at most"
        if run["rss_mb"] is not None and run["peak_rss_mb"] is not None
        else "unknown on this system"
    )
    print(f"  {run['pictures_per_s']:.1f} pictures a second, one after the other")
    few = " (few: p99 is little more than the slowest)" if run["pictures"] < FEW else ""
    print(f"  {run['pictures']} pictures measured{few}; memory {memory}")
    print(
        f"  opened in {run['open_ms']:.0f} ms, first picture {run['first_ms']:.0f} ms"
    )


def picture_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    sides = [int(s) if s.isascii() and s.isdigit() else 0 for s in (height, width)]
    if not all(1 <= side <= MOST_SIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected HEIGHTxWIDTH in pixels, such as 1080x1920'
        )
    return sides[0], sides[1]


def thread_counts(text: str) -> list[int]:
    return list(dict.fromkeys(positive_number(part) for part in text.split(",")))


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(
            f'found "{text}", expected seconds above 0, at most {MOST_SECONDS:g}'
        )
    return value
