"""A connection to a Ray cluster, and what it can hold."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.errors import ConfigError

CONNECT_S: Final = 10.0


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Give the module `ray`, connected; the connection ends with the block.

    Args:
        address: of a running cluster, "auto" for the one of this machine; None starts
            one on this machine, which ends with the block.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    # Read by Ray when it is imported: no usage statistics, and nothing is uploaded.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns of every actor that may be restarted.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
    except ImportError as cause:
        raise ConfigError(
            "--engine ray: needs Ray, which is not installed; in the checkout of this "
            'project: pip install -c constraints.txt ".[ray]"'
        ) from cause
    if address is None:
        # "local": one of its own, though another runs on this machine.
        options: dict[str, Any] = {"address": "local", "num_cpus": usable_cores()}
        options["include_dashboard"] = False
    else:
        _refuse_silent(address)
        options = {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as cause:
        raise _no_cluster(address, (str(cause).splitlines() or [""])[0]) from cause
    try:
        yield ray
    finally:
        ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself asks for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # "auto": Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as cause:
        raise _no_cluster(address, cause.strerror or str(cause)) from cause


def _no_cluster(address: str | None, reason: str) -> ConfigError:
    if address is None:
        return ConfigError(
            f"--engine ray: Ray could not be started on this machine ({reason}); name "
            "a running cluster by --ray-address"
        )
    return ConfigError(
        f"--ray-address {address}: no Ray cluster answers ({reason}); start one by "
        '"ray start --head", or leave the address out'
    )
