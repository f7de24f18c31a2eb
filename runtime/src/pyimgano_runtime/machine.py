"""What this machine is, for numbers that mean nothing without it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from .cores import usable_cores


def describe_machine() -> dict[str, Any]:
    """Give processor, cores, system, Python and the load of the last minute.

    `load_1min` counts the threads that wanted to run before we began; None where the
    system does not tell.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": processor_name(),
        "cores": os.cpu_count() or 1,
        "usable_cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1min": None if load is None else round(load, 2),
    }


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Give the processor's name as the system has it, at least its architecture."""
    names = ("model name", "Model", "Hardware")  # the second on Raspberry-type boxes
    found: dict[str, str] = {}
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in names and value.strip():
            found.setdefault(key.strip(), value.strip())
    known = next((found[name] for name in names if name in found), "")
    architecture = platform.machine()
    if not known:
        known = platform.processor()
    return f"{known} ({architecture})" if known != architecture else architecture
