"""How long a frame cut into tiles takes, and how much memory, by tiles at once.

    python benchmarks/tiles.py --bundle B [--frame 4000 6000] [--at-once 1 2 4 8]

B is a bundle with tiles. Every number of tiles at once is a process of its own on the
same frame of noise, in turns; a ratio is taken within a round, against the number that
the runtime takes. Memory is the process's peak above what it held with the frame in
memory and the model warm (Linux only).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from side_by_side import COLUMNS, Ratio, machine, row

from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.tiling import TILES_AT_ONCE, tile_origins

CHILD: Final = """
import json, sys, time
from pathlib import Path
import numpy
from side_by_side import resident_mb
from pyimgano_runtime import tiling
from pyimgano_runtime.predictor import Predictor
tiling.TILES_AT_ONCE = int(sys.argv[3])
predictor = Predictor.open(Path(sys.argv[1]))
frame = numpy.load(sys.argv[2])
height, width = predictor.settings.tiling.size
predictor.predict(numpy.ascontiguousarray(frame[:height, :width]))
before, start, cpu = resident_mb(), time.perf_counter(), time.process_time()
score = predictor.predict(frame).score
print(json.dumps({"s": time.perf_counter() - start, "score": score,
                  "cpu_s": time.process_time() - cpu,
                  "mb": resident_mb("VmHWM") - before}))
"""


def measure(
    bundle: Path, frame: tuple[int, int], at_once: list[int], *, rounds: int
) -> dict[str, Any]:
    """Give seconds and megabytes of every number of tiles at once, round by round."""
    settings = next(iter(open_bundle(bundle).config.categories.values()))
    if settings.tiling is None:
        sys.exit(f"{bundle}: cuts no tiles; train with a tiling")
    noise = np.random.default_rng(0).integers(0, 256, (*frame, 3), dtype=np.uint8)
    found: dict[int, list[dict[str, float]]] = {number: [] for number in at_once}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.npy"
        np.save(path, noise)
        for _ in range(rounds):
            for number in at_once:
                command = [sys.executable, "-c", CHILD]
                command += [str(bundle), str(path), str(number)]
                done = subprocess.run(
                    command, capture_output=True, text=True, cwd=Path(__file__).parent
                )
                if done.returncode != 0:
                    sys.exit(done.stderr[-2000:])
                found[number].append(json.loads(done.stdout))
    scores = [one["score"] for each in found.values() for one in each]
    return {
        "machine": machine(),
        "frame": list(frame),
        "frame_mb": round(noise.nbytes / 2**20, 1),
        "tile": list(settings.tiling.size),
        "n_tiles": len(tile_origins(frame, settings.tiling)),
        "largest_score_difference": max(scores) - min(scores),
        "at_once": found,
    }


def main() -> None:
    """Measure, print JSON, then Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--frame", type=int, nargs=2, default=(4000, 6000))
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    at_once = sorted({*options.at_once, TILES_AT_ONCE})
    found = measure(
        options.bundle.absolute(),
        (options.frame[0], options.frame[1]),
        at_once,
        rounds=options.rounds,
    )
    print(json.dumps(found, indent=2))
    print(f"\n{COLUMNS}\n|---|---|---|---|")
    for key, what in (("s", "seconds"), ("cpu_s", "processor seconds")):
        usual = [one[key] for one in found["at_once"][TILES_AT_ONCE]]
        for number in at_once:
            rounds = found["at_once"][number]
            mb = statistics.median(one["mb"] for one in rounds)
            told = (
                f"{number} tiles at once, {mb:.0f} MB: {what} / {TILES_AT_ONCE} at once"
            )
            ratio = Ratio.of([one[key] for one in rounds], usual)
            print(row(told, "none", ratio))


if __name__ == "__main__":
    main()
