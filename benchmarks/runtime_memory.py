"""How much memory the runtime takes, against a bare session of the same model.

    python benchmarks/runtime_memory.py --work FOLDER [--bundle B] [--pictures 10000]

Each side is a process of its own on the same pictures, of changing sizes: scripts with
onnxruntime and nothing of ours, one that decodes nothing and one with OpenCV, and
`pyimgano-runtime infer` with its defaults on .npy files (no decoder) and on JPEG and
PNG files. Memory is resident: the peak after one picture, and over many, read on the
way. The pictures stay in FOLDER for another run (Linux only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from side_by_side import COLUMNS, Ratio, machine, row

from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.cores import usable_cores

HOUSE: Final = Path(__file__).parents[1]
GOAL: Final = 1.3
GROWTH_GOAL: Final = 1.05  # the last quarter of a folder against the second
SIZES: Final = 40  # different pictures
SMALLEST, LARGEST = 64, 640  # px a side
SAMPLES: Final = 100
PAIRS: Final = (
    ("infer, .npy", "session alone"),
    ("infer", "session and OpenCV"),
    ("infer", "session alone"),
)

BARE: Final = """
import json, sys, numpy, onnxruntime
model, threads, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with_opencv, paths = sys.argv[4] == "1", json.load(sys.stdin)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
name = session.get_inputs()[0].name
if with_opencv:
    import cv2
for number, (path, height, width) in enumerate(paths):
    if with_opencv:
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    else:
        image = numpy.zeros((height, width, 3), numpy.uint8)
    session.run(None, {name: image[None]})
    if number % every == every - 1:
        print(sample(), flush=True)
"""
# The command itself, looked at whenever it has made a row.
OURS: Final = """
import json, sys
from pyimgano_runtime import cli, rows
every = int(sys.argv[1])
suffix = sys.argv[2]
paths = [path + suffix for path, _, _ in json.load(sys.stdin)]
whole = rows.scored_row
count = 0
def sampled(*facts, **named):
    global count
    count += 1
    if count % every == 0:
        print(sample(), file=sys.stderr, flush=True)
    return whole(*facts, **named)
rows.scored_row = sampled
code = cli.main(["infer", *sys.argv[3:], *paths])
raise SystemExit(code)
"""
SAMPLE: Final = """
def sample():
    with open("/proc/self/status") as stream:
        facts = dict(line.split(":", 1) for line in stream)
    return " ".join(facts[key].split()[0] for key in ("VmRSS", "VmHWM"))
"""


def write_pictures(folder: Path) -> list[tuple[str, int, int]]:
    """Write pictures of changing sizes, unless they are there; give path and size."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(SIZES):
        height, width = (int(side) for side in rng.integers(SMALLEST, LARGEST, 2))
        path = folder / f"{number:03}{('.jpg', '.png')[number % 2]}"
        coarse = rng.normal(128, 40, (height // 8, width // 8, 3)).astype(np.float32)
        pixels = np.clip(cv2.resize(coarse, (width, height)), 0, 255).astype(np.uint8)
        if not path.exists():
            assert cv2.imwrite(str(path), pixels)
            np.save(f"{path}.npy", pixels)
        pictures.append((str(path), height, width))
    return pictures


def samples_mb(command: list[str], pictures: list[Any]) -> list[tuple[float, float]]:
    """Run a side and give (resident, peak) on the way."""
    done = subprocess.run(
        command, input=json.dumps(pictures), capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{command[:1]} ended with {done.returncode}: {done.stderr[-2000:]}")
    found = []
    for line in (done.stdout + "\n" + done.stderr).splitlines():
        words = line.split()
        if len(words) == 2 and all(word.isdecimal() for word in words):
            found.append((int(words[0]) / 1024, int(words[1]) / 1024))
    return found


def measure(
    bundle: Path, work: Path, *, n_pictures: int, rounds: int
) -> dict[str, Any]:
    """Give resident megabytes of every side, their ratios, and the growth."""
    opened = open_bundle(bundle)
    category, settings = next(iter(opened.config.categories.items()))
    model = str(opened.root / opened.config.models[settings.graph[0]].file)
    pictures = write_pictures(work)
    many = [pictures[number % SIZES] for number in range(n_pictures)]
    every = max(1, n_pictures // SAMPLES)

    def sides(each: int) -> dict[str, list[str]]:
        python = [sys.executable, "-c"]
        bare = [*python, SAMPLE + BARE, model, str(usable_cores()), str(each)]
        infer = ["--bundle", str(bundle), "--category", category]
        return {
            "session alone": [*bare, "0"],
            "session and OpenCV": [*bare, "1"],
            "infer, .npy": [*python, SAMPLE + OURS, str(each), ".npy", *infer],
            "infer": [*python, SAMPLE + OURS, str(each), "", *infer],
        }

    one: dict[str, list[float]] = {name: [] for name in sides(1)}
    for _ in range(rounds):
        for name, command in sides(1).items():
            one[name].append(samples_mb(command, pictures[:1])[-1][1])
    series = {name: samples_mb(c, many) for name, c in sides(every).items()}
    ratios = {}
    for ours, bare in PAIRS:
        ratios[f"one picture, peak, {ours} / {bare}"] = Ratio.of(one[ours], one[bare])
        ratios[f"{n_pictures:,} pictures, peak, {ours} / {bare}"] = Ratio.of(
            [series[ours][-1][1]], [series[bare][-1][1]]
        )
    growth = {}
    for name, found in series.items():
        resident = [now for now, _ in found]
        quarter = len(resident) // 4
        growth[name] = round(
            float(
                np.mean(resident[-quarter:]) / np.mean(resident[quarter : 2 * quarter])
            ),
            3,
        )
    return {
        "machine": machine(),
        "goal": GOAL,
        "ratios": ratios,
        "one_picture_peak_mb": {
            k: round(float(np.median(v)), 1) for k, v in one.items()
        },
        "many_pictures_peak_mb": {k: round(v[-1][1], 1) for k, v in series.items()},
        "resident_mb_on_the_way": {
            k: [round(now, 1) for now, _ in v[:: max(1, len(v) // 10)]]
            for k, v in series.items()
        },
        "last_quarter_by_second": growth,
    }


def main() -> None:
    """Measure, print JSON, then Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=HOUSE / "bundles/demo")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = measure(
        *(options.bundle, options.work / "sizes"),
        n_pictures=options.pictures,
        rounds=options.rounds,
    )
    ratios = found["ratios"]
    told = found | {"ratios": {name: r.to_json() for name, r in ratios.items()}}
    print(json.dumps(told, indent=2))
    print(f"\n{COLUMNS}\n|---|---|---|---|")
    for name, ratio in ratios.items():
        print(row(f"memory: {name}", f"<= {GOAL}", ratio))
    growth = found["last_quarter_by_second"]["infer"]
    what = f"memory: infer, last quarter of {options.pictures:,} / second quarter"
    print(row(what, f"<= {GROWTH_GOAL}", growth))


if __name__ == "__main__":
    main()
