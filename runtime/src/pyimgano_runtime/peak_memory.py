"""The memory that this process holds, and the most that it has held."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_rss_mb() -> float | None:
    """Give the largest resident memory of this process in MB; None where unknown."""
    # On Linux getrusage keeps, across exec, the memory of the process that started
    # this one; VmHWM belongs to this program alone.
    found = _from_status("VmHWM:")
    return _from_rusage() if found is None else found


def rss_mb() -> float | None:
    """Give the resident memory of this process in MB; None where unknown."""
    return _from_status("VmRSS:")


def _from_status(field: str) -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return None


def _from_rusage() -> float | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
