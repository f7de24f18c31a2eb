"""What the scripts here share: both sides measured in turns, and said in one row.

    times = processes({"limit": [...], "ours": [...]}, repeats=20)
    ratio = Ratio.of(times["ours"].wall_s, times["limit"].wall_s)
    print(row("cold start", "<= 1.3", ratio))

Each round measures every side once, so that a machine that slows down slows both; a
ratio is taken within a round, and the median of the rounds is quoted.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime.cores import usable_cores

PACKAGES: Final = ("numpy", "onnxruntime", "opencv-python-headless")
COLUMNS: Final = "| what | goal | ratio, median [quartiles] of rounds | machine |"


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one side took what the other took, over rounds."""

    median: float
    quartiles: tuple[float, float]
    rounds: int

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        """Give the ratio of two sides measured in the same rounds."""
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        low, middle, high = (
            statistics.quantiles(ratios, n=4, method="inclusive")
            if len(ratios) > 1
            else ratios * 3
        )
        return cls(round(middle, 3), (round(low, 3), round(high, 3)), len(ratios))

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.median:.2f} [{low:.2f}, {high:.2f}] of {self.rounds}"

    def to_json(self) -> dict[str, Any]:
        """Give the ratio as a JSON object."""
        return asdict(self)


@dataclass(slots=True)
class Times:
    """What one side took, round by round."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)  # user and system, all threads

    def to_json(self) -> dict[str, float]:
        """Give the medians in milliseconds."""
        return {
            "wall_ms": round(statistics.median(self.wall_s) * 1000, 1),
            "cpu_ms": round(statistics.median(self.cpu_s) * 1000, 1),
            "least_cpu_ms": round(min(self.cpu_s) * 1000, 1),
        }


def processes(
    commands: Mapping[str, Sequence[str]], *, repeats: int
) -> dict[str, Times]:
    """Run every command in turns, a round to warm the disk's cache first."""
    times = {name: Times() for name in commands}
    for number in range(repeats + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            child = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _, status, used = os.wait4(child.pid, 0)
            wall_s = time.perf_counter() - start
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != 0:
                sys.exit(f"{name} ended with {child.returncode}: {' '.join(command)}")
            if number > 0:
                times[name].wall_s.append(wall_s)
                times[name].cpu_s.append(used.ru_utime + used.ru_stime)
    return times


def machine() -> dict[str, Any]:
    """Say what was measured on, with the versions that matter."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "none"
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **packages,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def row(what: str, goal: str, ratio: object) -> str:
    """Give a row under `COLUMNS`."""
    about = machine()
    where = f"{about['processor']}, {about['cores']} cores, load {about['load']}"
    return f"| {what} | {goal} | {ratio} | {where} |"


def resident_mb(key: str = "VmRSS") -> float:
    """Give this process's resident memory now, or its peak by "VmHWM" (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith(key + ":")]
    return int(line.split()[1]) / 1024
