"""Mutants of bundles: only our own errors or success, no hang, no crash.

Workers are processes with a memory limit that take case after case; one that dies or
does not answer in time is a finding, and another takes its place.

    pytest -m fuzz runtime/tests/test_fuzz_bundle.py       all of COUNT cases
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

SEED = 20261123
FEW, MANY = 600, 20_000
SECONDS = 5.0  # for one case
SCRIPT = Path(__file__).with_name("fuzz_bundles.py")


class Worker:
    """A process that runs cases by their numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "work", str(self.seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        )
        self.answer(30)  # loading the libraries is not the case's time

    def answer(self, seconds: float) -> str | None:
        """Give the next line; None if it does not come in time or at all."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline().decode() if ready else ""
        return line.rstrip("\n") or None

    def run(self, number: int) -> str:
        """Give what became of a case: "fine ..." or a finding."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n".encode())
        self.process.stdin.flush()
        line = self.answer(SECONDS)
        if line is not None:
            return line
        if self.process.poll() is None:
            try:
                self.process.wait(0.5)  # it may be just dying
            except subprocess.TimeoutExpired:
                self.stop()
                self.start()
                return f"HANGS for more than {SECONDS:.0f} s"
        code, said = self.process.returncode, self.stop()
        self.start()
        return f"DIES with exit code {code}: {said}"

    def stop(self) -> str:
        """End the process and give the end of what it said on stderr."""
        self.process.kill()
        _, said = self.process.communicate()
        return said.decode(errors="replace")[-300:]


def findings(seed: int, numbers: Iterable[int], tally: Counter[str]) -> list[str]:
    """Run cases and give every one that did not end as it should."""
    worker, found = Worker(seed), []
    try:
        for number in numbers:
            line = worker.run(number)
            if line.startswith("HANGS"):  # or is the machine busy with other things?
                line = worker.run(number)
            if line.startswith("fine "):
                tally[line.split()[1]] += 1
            else:
                tally[line.split()[0]] += 1
                found.append(
                    f"{line[:2000]}\n  replay: python {SCRIPT} replay {seed} {number}"
                )
    finally:
        worker.stop()
    return found


def test_some_mutants_end_in_words() -> None:
    tally: Counter[str] = Counter()
    found = findings(SEED, range(FEW), tally)
    assert not found, "\n".join(found)
    assert tally.total() == FEW
    assert tally["ok"] > FEW // 20, "the mutants are too wild to reach the model"
    assert tally["BundleError"] > FEW // 4, "the mutants are too tame"


@pytest.mark.fuzz
def test_many_mutants_end_in_words() -> None:
    tally: Counter[str] = Counter()
    found = findings(SEED + 1, range(MANY), tally)
    print(f"seed {SEED + 1}, {MANY} cases: {dict(tally.most_common())}")
    assert not found, f"{len(found)} findings\n" + "\n".join(found[:20])


def test_a_worker_tells_of_a_crash_and_of_a_hang_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(SEED)
    try:
        worker.process.kill()
        worker.process.wait()
        monkeypatch.setattr(worker.process.stdin, "write", lambda _: None)
        monkeypatch.setattr(worker.process.stdin, "flush", lambda: None)
        assert worker.run(0).startswith("DIES with exit code -9")
        assert worker.run(1).startswith("fine ")
    finally:
        worker.stop()
