"""`pyimgano-runtime`: infer, check, info, bench and calibrate, without torch.

Exit codes: 0 done; 1 an anomaly was seen (only with --fail-on-anomaly); 2 usage;
3 bundle refused; 4 some inputs failed; 5 runtime or parity failure; 6 a gate was
missed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, Final

from ._version import __version__
from .cli_options import EXIT_BUNDLE, EXIT_INTERRUPTED, EXIT_RUNTIME, EXIT_USAGE, say
from .errors import BundleError, ConfigError, PyimganoError

PROGRAM: Final = "pyimgano-runtime"
EXIT_TEXT: Final = (
    "exit codes: 0 done; 1 anomaly seen (with --fail-on-anomaly); 2 usage; "
    "3 bundle refused; 4 some inputs failed; 5 runtime or parity failure; "
    "6 gate missed; 130 interrupted"
)

_GPU_DRIVERS: Final = ("cuda", "gpu", "tensorrt", "trt", "nv", "migraphx", "rocm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(given).parse_args(given)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any file name can be shown
    # numpy's and OpenCV's own threads do nothing here, but each takes time and memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from .memory_limit import limit_memory

        with limit_memory(_memory_limit(options)):
            code: int = _command(options.command).run(options)
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
        from .onnxruntime_build import install_hint

        return _fail(f"{error}: {install_hint(error)}", EXIT_RUNTIME)
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


def _fail(message: str, code: int) -> int:
    say(f"pyimgano-runtime: {message}")
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
    for name, (summary, example) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example: {PROGRAM} {example}",
            formatter_class=formatter,
        )
        if name == named:
            _command(name).add_arguments(command)
    return parser


# name: (summary, example); the module <name>_cli declares its options and runs it
_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "infer": (
        "score pictures, one JSON row each",
        "infer --bundle bundle --save-overlays out photos/",
    ),
    "check": (
        "prove on this machine that the bundle scores as it was trained",
        "check bundle",
    ),
    "info": ("say what a bundle is", "info bundle"),
    "bench": (
        "measure speed and memory of a bundle on this device",
        "bench bundle --images photos/ --threads 1,2,4",
    ),
    "calibrate": (
        "set thresholds on this device's own pictures of good parts",
        "calibrate bundle good/ --output thresholds.json",
    ),
}


def _command(name: str) -> Any:
    """Give the module of a command; no other is imported."""
    return import_module(f".{name}_cli", __package__)


def _memory_limit(options: argparse.Namespace) -> int | None:
    """Give the bytes that the command may take; None for no limit."""
    if options.max_memory == 0:
        return None
    if options.max_memory is None and _reserves_much(options):
        return None
    from .cores import usable_cores
    from .memory_limit import HAS_EFFECT, default_limit, least_limit, show_size

    asked = getattr(options, "threads", None) or 1  # info starts none
    asked = max(asked) if isinstance(asked, list) else asked  # bench takes several
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
        say("warning: --max-memory has no effect on this system, only on Linux")
    return int(options.max_memory)


def _reserves_much(options: argparse.Namespace) -> bool:
    """Whether a GPU's driver is asked for: it reserves more addresses than memory."""
    names = getattr(options, "provider", None) or ()
    return any(name.lower().startswith(_GPU_DRIVERS) for name in names)
