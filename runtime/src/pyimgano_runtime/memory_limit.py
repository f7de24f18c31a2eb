"""Bounds this process's memory, so that a hostile model cannot take the machine.

The limit is on address space (RLIMIT_AS), which is more than what is resident: each
thread reserves some that it never uses. What exceeds it is refused by the system, and
onnxruntime, numpy and OpenCV turn that into an error that can be said in words.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
HAS_EFFECT: Final = sys.platform.startswith("linux")
# Measured with bundles/demo, Python 3.11, onnxruntime 1.32, OpenCV 5.0 on two cores
# (peak of address space), with as many decode workers, at most 4: 404 MB on one
# thread, 614 on 2, 909 on 4, 1,130 on 8, 1,471 on 16. Less than needed does not end in
# an error: OpenCV was seen to crash while it loaded, so there is some more for other
# versions and for what a caller has loaded before.
_LIBRARIES: Final = 640 * MIB
_THREAD: Final = 96 * MIB
_SIZE: Final = r"(\d{1,15})([KMGTkmgt]?)(?:[iI]?[bB])?"
_LARGEST: Final = MIB * MIB * MIB  # RLIMIT_AS is a signed number of 64 bits
_UNITS: Final = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB, "T": MIB * MIB}


def parse_size(text: str) -> int | None:
    """Give the bytes of "4G", "512M" or "1000000"; None for "none" and "0".

    Raises:
        ValueError: it is no size, or more than the system can be told.
    """
    if text.lower() == "none":
        return None
    match = re.fullmatch(_SIZE, text) if text.isascii() else None
    if match is None:
        raise ValueError(f'found "{text}", expected a size such as 4G or 512M')
    size = int(match[1]) * _UNITS[match[2].upper()]
    if size > _LARGEST:
        raise ValueError(f'found "{text}", expected at most {_LARGEST // MIB // MIB}T')
    return size or None


def show_size(n_bytes: int) -> str:
    """Give a size as it would be written on the command line."""
    if n_bytes % (1024 * MIB) == 0:
        return f"{n_bytes // (1024 * MIB)}G"
    return f"{n_bytes // MIB}M" if n_bytes >= MIB else f"{n_bytes} bytes"


def least_limit(threads: int) -> int:
    """The lowest limit under which a bundle like the demo's runs, in bytes."""
    return _LIBRARIES + _THREAD * threads


def default_limit(threads: int) -> int | None:
    """Three quarters of the machine's memory, but enough to run; None if unknown."""
    memory = machine_memory()
    return None if memory is None else max(memory * 3 // 4, least_limit(threads))


def machine_memory(
    *,
    control_groups: Path = Path("/sys/fs/cgroup"),
    own_group: Path = Path("/proc/self/cgroup"),
) -> int | None:
    """Bytes that this process may count on: the machine's, within its cgroup v2."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        return None  # not a POSIX system
    try:
        lines = own_group.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    inner = next((line[3:] for line in lines if line.startswith("0::")), "/")
    place = control_groups / inner.strip("/")
    for folder in (place, *place.parents):
        if not folder.is_relative_to(control_groups):
            break
        try:
            found.append(int((folder / "memory.max").read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # no such group here, or "max"
    return min(found)


@contextmanager
def limit_memory(n_bytes: int | None) -> Iterator[bool]:
    """Bound the process's address space; gives whether that has an effect here.

    A lower limit that is set already stays. What is allocated before counts, and the
    former limit is back at the end: a caller in the same process is not bound by it.
    """
    if n_bytes is None or not HAS_EFFECT:
        yield False
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = [side for side in (n_bytes, soft, hard) if side != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(wanted), hard))
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
