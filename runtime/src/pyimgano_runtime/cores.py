"""How many cores this process may use: the default number of threads."""

from __future__ import annotations

import os
from typing import Final

CONTROL_GROUPS: Final = "/sys/fs/cgroup"
OWN_GROUP: Final = "/proc/self/cgroup"


def usable_cores(
    *, control_groups: str = CONTROL_GROUPS, own_group: str = OWN_GROUP
) -> int:
    """Give min(affinity, quota): a share of a core counts as none, but one is left.

    The quota is the least one of this process's control group and those above it, of
    version 2 or 1, as containers and systemd set them (`docker run --cpus`, CPUQuota).
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for group in _groups(control_groups, own_group):
        cores = min(cores, _quota(group) or cores)
    return cores


def _groups(control_groups: str, own_group: str) -> list[str]:
    """Give the folders of this process's groups that may limit it, from inside out."""
    found = []
    for line in _text(own_group).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, inner = rest.partition(":")
        if number == "0":
            top = control_groups
        elif "cpu" in controllers.split(","):
            top = f"{control_groups}/{controllers}"
        else:
            continue
        parts = [part for part in inner.split("/") if part not in ("", "..")]
        found += ["/".join((top, *parts[:n])) for n in range(len(parts), -1, -1)]
    return found or [control_groups]


def _quota(group: str) -> int | None:
    """Give the whole cores that a group may use; None where it has no quota."""
    words = _text(f"{group}/cpu.max").split()  # version 2: "max 100000"
    if not words:
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # version 1: -1 is none
        words = [_text(f"{group}/{name}").strip() for name in files]
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None
    quota, period = (int(word) for word in words)
    return max(1, quota // period) if period else None


def _text(path: str) -> str:
    """Give a small file's text; one that cannot be read says nothing."""
    try:
        with open(path, encoding="ascii", errors="replace") as stream:  # noqa: PTH123 - no pathlib at start-up
            return stream.read()
    except OSError:
        return ""
