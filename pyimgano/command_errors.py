"""How a click command begins and ends: thread policy, errors, exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import click

from pyimgano_runtime.errors import ExportError, OutputError, PluginError, PyimganoError

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2
EXIT_INTERRUPTED: Final = 130


def exit_code_of(
    command: click.Command, arguments: Sequence[str] | None, program: str
) -> int:
    """Run a command; 0 done, 1 failed, 2 refused, 130 interrupted."""
    # Read by OpenMP when torch loads. Threads that wait by spinning take the cores from
    # each other on a busy machine: 0.18 s of a core for a picture instead of 0.05 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        result = command.main(
            None if arguments is None else list(arguments),
            prog_name=program,
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        return EXIT_REFUSED
    except (click.Abort, KeyboardInterrupt):
        print(f"{program}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except PluginError as error:
        # Not our code, and its author needs the place.
        traceback.print_exception(error.__cause__, file=sys.stderr)
        print(f"{program}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except PyimganoError as error:
        print(f"{program}: {error}", file=sys.stderr)
        failed = isinstance(error, ExportError | OutputError)
        return EXIT_FAILED if failed else EXIT_REFUSED
    except OSError as error:
        # A full disk or a lost folder: nothing half-written stays (see atomic.py).
        place = f"{error.filename}: " if error.filename else ""
        print(f"{program}: {place}{error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM leave the block as an exception, so that it is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
