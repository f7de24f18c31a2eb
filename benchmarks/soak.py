"""Many small frames through `infer`, killed at random: exactly one row a file?

    python benchmarks/soak.py --work FOLDER [--frames 20000] [--kills 40]

Two ways, one after the other: a folder that is watched while frames are renamed into
it, and a list of paths on stdin that is given again at every start. Both write to a
ledger. Processes are ended at random moments (three of four by SIGKILL, one by SIGTERM)
over the first half of the frames; the second half is one process, whose resident memory
is read on the way. FOLDER/soak is made anew (Linux only).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from side_by_side import COLUMNS, machine, row

HOUSE: Final = Path(__file__).parents[1]
HEIGHT, WIDTH = 48, 64
MEMORY_GOAL: Final = 1.05  # last quarter of the long process against its second
SAMPLE_EVERY_S: Final = 0.25
WARM_UP_ROWS: Final = 50  # of each process, before its memory is read
STALLED_S: Final = 300.0  # without a row: a fault
MOST_AHEAD: Final = 200  # frames that wait in the watched folder


@dataclass(slots=True)
class Soak:
    """What was seen of one way."""

    starts: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    resident_mb: list[float] = field(default_factory=list)  # of the last process
    rows: int = 0
    missing: int = 0
    twice: int = 0
    failed: int = 0
    seconds: float = 0.0

    def growth(self) -> float | None:
        """Give the last quarter of the long process's memory against its second."""
        quarter = len(self.resident_mb) // 4
        if quarter == 0:
            return None
        second = self.resident_mb[quarter : 2 * quarter]
        return float(np.mean(self.resident_mb[-quarter:]) / np.mean(second))

    def to_json(self) -> dict[str, Any]:
        """Give everything, with few of the memory samples."""
        step = max(1, len(self.resident_mb) // 20)
        growth = self.growth()
        return {
            "rows": self.rows,
            "missing": self.missing,
            "twice": self.twice,
            "failed": self.failed,
            "starts": self.starts,
            "ends": dict(self.ends),
            "seconds": round(self.seconds, 1),
            "resident_mb": [round(mb, 1) for mb in self.resident_mb[::step]],
            "resident_last_quarter_by_second": growth and round(growth, 3),
        }

    def in_words(self) -> str:
        """Give the result as one cell of a table."""
        growth = self.growth()
        memory = "not measured" if growth is None else f"{growth:.2f}"
        return (
            f"{self.rows:,} rows, {self.missing} missing, {self.twice} twice, "
            f"{self.failed} failed; {self.ends['SIGKILL']} SIGKILL, "
            f"{self.ends['SIGTERM']} SIGTERM; memory {memory}"
        )


def frame(number: int) -> bytes:
    """Give a small picture as PGM: its own noise."""
    pixels = np.random.default_rng(number).integers(90, 166, (HEIGHT, WIDTH), np.uint8)
    return b"P5\n%d %d\n255\n" % (WIDTH, HEIGHT) + pixels.tobytes()


class Counting:
    """Counts rows as they are appended, without reading any byte twice."""

    def __init__(self, ledger: Path) -> None:
        self._paths = (ledger, ledger.with_name(f"{ledger.name}.partial"))
        self._offset = self.rows = 0

    def now(self) -> int:
        for path in self._paths:
            try:
                with path.open("rb") as stream:
                    stream.seek(self._offset)
                    data = stream.read()
            except FileNotFoundError:
                continue
            end = data.rfind(b"\n") + 1  # a torn line is cut at the next start
            self.rows += data.count(b"\n")
            self._offset += end
            return self.rows
        return self.rows


def rename_in(folder: Path, n_frames: int, counting: Counting) -> threading.Thread:
    """Begin to write frames beside the folder and rename them in, not far ahead."""
    made = folder.with_name("made")
    made.mkdir()

    def work() -> None:
        for number in range(n_frames):
            while number - counting.rows > MOST_AHEAD:
                time.sleep(0.005)
            path = made / f"{number:06}.pgm"
            path.write_bytes(frame(number))
            path.rename(folder / path.name)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def soak(
    command: list[str],
    ledger: Path,
    counting: Counting,
    *,
    n_frames: int,
    kills: int,
    given: Path | None,
    rng: random.Random,
) -> Soak:
    """Run a command again and again until every frame has its row."""
    seen = Soak()
    begin = time.monotonic()
    # Where each process is ended, in rows: over the first half.
    ends = sorted(rng.randrange(1, max(2, n_frames // 2)) for _ in range(kills))
    while True:
        seen.starts += 1
        seen.resident_mb = []
        while ends and ends[0] <= counting.now():
            ends.pop(0)
        stream = subprocess.DEVNULL if given is None else given.open("rb")
        child = subprocess.Popen(command, stdin=stream, stderr=subprocess.PIPE)
        wanted = ends[0] if ends else n_frames
        follow(child, counting, wanted, seen)
        if ends and child.poll() is None:
            time.sleep(rng.random() * 0.01)
            fourth = seen.ends.total() % 4 == 3
            how = signal.SIGTERM if fourth else signal.SIGKILL
            child.send_signal(how)
            seen.ends[how.name] += 1
        elif child.poll() is None and given is None:
            child.terminate()  # a watched folder has no end
        _, err = child.communicate()
        if not isinstance(stream, int):
            stream.close()
        if child.returncode not in (0, -signal.SIGKILL):
            sys.exit(f"{command} ended with {child.returncode}: {err.decode()[-2000:]}")
        if counting.now() >= n_frames and not ends:
            break
    seen.seconds = time.monotonic() - begin
    return seen


def follow(
    child: subprocess.Popen[bytes], counting: Counting, wanted: int, seen: Soak
) -> None:
    """Watch a process until there are enough rows or it ends; note its memory."""
    rows = begun = counting.now()
    since, sampled = time.monotonic(), 0.0
    while counting.now() < wanted and child.poll() is None:
        now = time.monotonic()
        if counting.rows > rows:
            rows, since = counting.rows, now
        if now - since > STALLED_S:
            child.kill()
            sys.exit(f"no row for {STALLED_S:.0f} s after {rows} rows")
        started = counting.rows >= begun + WARM_UP_ROWS
        if started and now - sampled >= SAMPLE_EVERY_S:
            sampled = now
            mb = resident_mb(child.pid)
            if mb is not None:
                seen.resident_mb.append(mb)
        time.sleep(0.01)


def resident_mb(process: int) -> float | None:
    """Give another process's resident memory; None once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) / 1024 if lines else None


def judge(seen: Soak, ledger: Path, paths: list[Path]) -> Soak:
    """Compare the ledger with the files that there were."""
    with ledger.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    times = Counter(row["input"] for row in rows)
    seen.rows = len(rows)
    seen.missing = sum(times[str(path)] == 0 for path in paths)
    seen.twice = sum(n > 1 for n in times.values())
    seen.failed = sum(not row["ok"] for row in rows)
    return seen


def measure(
    bundle: Path, work: Path, *, n_frames: int, kills: int, seed: int
) -> dict[str, Soak]:
    """Soak both ways."""
    rng = random.Random(seed)
    infer = [
        *(sys.executable, "-m", "pyimgano_runtime", "infer"),
        *("--bundle", str(bundle), "--output"),
    ]
    folder = work / "watched"
    folder.mkdir(parents=True)
    found = {}

    ledger = work / "watch.jsonl"
    counting = Counting(ledger)
    producer = rename_in(folder, n_frames, counting)
    command = [*infer, str(ledger), "--watch", str(folder), "--poll", "0.1"]
    watch = soak(
        *(command, ledger, counting),
        n_frames=n_frames,
        kills=kills,
        given=None,
        rng=rng,
    )
    producer.join()
    paths = sorted(folder.iterdir())
    found["--watch"] = judge(watch, ledger, paths)

    ledger, listed = work / "list.jsonl", work / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    listing = soak(
        *([*infer, str(ledger), "--resume", "-"], ledger, Counting(ledger)),
        n_frames=n_frames,
        kills=kills,
        given=listed,
        rng=rng,
    )
    found["path list"] = judge(listing, ledger, paths)
    return found


def main() -> None:
    """Measure, print JSON, then Markdown rows; exit 1 unless every file has one row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=HOUSE / "bundles/demo")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = options.work / "soak"
    shutil.rmtree(work, ignore_errors=True)
    found = measure(
        *(options.bundle, work),
        n_frames=options.frames,
        kills=options.kills,
        seed=options.seed,
    )
    told = {name: seen.to_json() for name, seen in found.items()}
    print(json.dumps({"machine": machine(), "frames": options.frames} | told, indent=2))
    print(f"\n{COLUMNS}\n|---|---|---|---|")
    goal = f"one row each, memory <= {MEMORY_GOAL}"
    for name, seen in found.items():
        what = f"soak: {options.frames:,} frames by {name}"
        print(row(what, goal, seen.in_words()))
    if any(
        seen.missing or seen.twice or seen.rows != options.frames
        for seen in found.values()
    ):
        sys.exit("not every file has exactly one row")


if __name__ == "__main__":
    main()
