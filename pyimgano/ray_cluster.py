"""Connects to Ray, for commands that spread their work over machines.

ray is imported here only, and only when a command asks for it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.errors import ConfigError

LISTENS_S: Final = 10.0
CONNECT_S: Final = 30
_QUIET: Final[dict[str, Any]] = {
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": logging.CRITICAL,  # what failed is told in our own words
}
_OF_OURS: Final = {  # of a Ray that is started here; one may set them otherwise
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent
    "RAY_worker_niceness": "0",  # 15 starves workers beside any other program
}
_TRY: Final = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)"


def require_ray() -> Any:
    """Give the module `ray`.

    Raises:
        ConfigError: it is not installed.
    """
    # Read when ray is imported. Below "fatal" it warns of every actor that may restart.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
    except ModuleNotFoundError as cause:
        raise ConfigError(
            f"--engine ray: Ray cannot be imported ({cause}); it is an extra: run "
            'pip install -c constraints.txt ".[ray]" in the checkout of this project'
        ) from cause
    return ray


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Give the module `ray`, connected until the block ends.

    What is printed to stdout within the block goes to stderr: Ray tells lost workers
    there, and stdout is for results.

    Args:
        address: "auto" for the cluster that this machine belongs to, or HOST:PORT of
            its head; None: a Ray is started here, with the cores that this process may
            use, and ended with the block.

    Raises:
        ConfigError: ray is not installed, or no cluster answers at the address.
    """
    ray = require_ray()
    with redirect_stdout(sys.stderr):
        if address is None:
            for name, value in _OF_OURS.items():
                os.environ.setdefault(name, value)
            # "local": one of its own, though another runs on this machine.
            _join(ray, address="local", num_cpus=usable_cores())
        else:
            _refuse_unreachable(address)
            _join(ray, address=address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _join(ray: Any, **options: Any) -> None:
    """Connect, and leave SIGTERM to who sees to it: Ray makes it an exit with 15."""
    before = signal.getsignal(signal.SIGTERM)
    ray.init(**options, **_QUIET)
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _refuse_unreachable(address: str) -> None:
    """Refuse an address where Ray itself would wait for minutes, in C++."""
    found = _not_listening(address) or _not_joined(address)
    if found is not None:
        raise ConfigError(
            f"--ray-address {address}: no Ray cluster can be joined there ({found}); "
            'expected "auto" on a machine of the cluster, or HOST:PORT of its head; '
            "leave it out to start a Ray here"
        )


def _not_listening(address: str) -> str | None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return None  # "auto": Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=LISTENS_S).close()
    except OSError as cause:
        return cause.strerror or str(cause)
    return None


def _not_joined(address: str) -> str | None:
    """Try to join, in a process of its own, and say why it did not succeed."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY, address],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=CONNECT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nothing answered within {CONNECT_S} s"
    if tried.returncode == 0:
        return None
    return (tried.stderr.strip().splitlines() or ["it ended without a word"])[-1]
