"""How long one picture takes from nothing, against what no runtime can avoid.

    python benchmarks/cold_start.py [--bundle bundles/demo] [--repeats 20]

The limit: python, import onnxruntime, a session of the same model with the same
threads, one run on a picture of the same size. With OpenCV: the same and the picture
decoded by it. Ours: `pyimgano-runtime infer` on that JPEG file. All are processes, in
turns. Help is measured in processor time, against nothing but its budget.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from side_by_side import COLUMNS, Ratio, machine, processes, row

from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.decode import read_image

HOUSE: Final = Path(__file__).parents[1]
GOAL: Final = 1.3
HELP_GOALS_MS: Final = {"pyimgano-runtime --help": 60, "pyimgano --help": 150}
IMPORT_ROUNDS: Final = 5

SESSION: Final = """
import sys, numpy, onnxruntime
model, threads, height, width = sys.argv[1], *map(int, sys.argv[2:5])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
image = numpy.zeros((1, height, width, 3), numpy.uint8)
"""
DECODE: Final = """
import cv2
image = cv2.cvtColor(cv2.imread(sys.argv[5]), cv2.COLOR_BGR2RGB)[None]
"""
RUN: Final = "session.run(None, {session.get_inputs()[0].name: image})"
OURS: Final = "from pyimgano_runtime.cli import main; raise SystemExit(main())"
TRAINING: Final = "from pyimgano.cli import main; raise SystemExit(main())"


def commands(bundle: Path, picture: Path) -> dict[str, list[str]]:
    """Give every side's command line."""
    opened = open_bundle(bundle)
    config = opened.config
    category, settings = next(iter(config.categories.items()))
    model = str(opened.root / config.models[settings.graph[0]].file)
    height, width, _ = read_image(picture, config.input).shape
    facts = [model, str(usable_cores()), str(height), str(width), str(picture)]
    infer = ["infer", "--bundle", str(bundle), "--category", category, str(picture)]
    sides = {
        "limit": [sys.executable, "-c", SESSION + RUN, *facts],
        "limit with OpenCV": [sys.executable, "-c", SESSION + DECODE + RUN, *facts],
        "ours": [sys.executable, "-c", OURS, *infer],
        "pyimgano-runtime --help": [sys.executable, "-c", OURS, "--help"],
    }
    if find_spec("pyimgano") is not None:  # not on a device
        sides["pyimgano --help"] = [sys.executable, "-c", TRAINING, "--help"]
    return sides


def import_profile(command: list[str]) -> dict[str, float]:
    """Give milliseconds of importing by package, the least of a few rounds."""
    least: dict[str, float] = {}
    for _ in range(IMPORT_ROUNDS):
        python, *rest = command
        done = subprocess.run(
            [python, "-X", "importtime", *rest],
            check=True,
            capture_output=True,
            text=True,
        )
        for line in done.stderr.splitlines():
            if found := re.match(r"import time: +(\d+) \| +\d+ \| +(.+)", line):
                ms, name = int(found[1]) / 1000, found[2]
                least[name] = min(least.get(name, ms), ms)
    shown = Counter[str]()
    for name, ms in least.items():
        package = name.partition(".")[0]
        ours = ("numpy", "onnxruntime", "cv2", "pyimgano_runtime")
        shown[package if package in ours else "the rest of Python"] += ms
    return {name: round(ms, 1) for name, ms in shown.most_common()}


def measure(bundle: Path, picture: Path, *, repeats: int) -> dict[str, Any]:
    """Give the ratios, the medians of every side, and where importing goes."""
    sides = commands(bundle, picture)
    times = processes(sides, repeats=repeats)
    ours = times["ours"]
    ratios = {}
    for name in ("limit", "limit with OpenCV"):
        ratios[f"{name}, wall"] = Ratio.of(ours.wall_s, times[name].wall_s)
        ratios[f"{name}, cpu"] = Ratio.of(ours.cpu_s, times[name].cpu_s)
    return {
        "machine": machine(),
        "goal": GOAL,
        "ratios": ratios,
        "sides": {name: times[name].to_json() for name in sides},
        "imports_ms": import_profile(sides["ours"]),
    }


def main() -> None:
    """Measure, print JSON, then Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=HOUSE / "bundles/demo")
    parser.add_argument(
        "--picture", type=Path, default=HOUSE / "bundles/demo/golden/000.jpg"
    )
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    found = measure(options.bundle, options.picture, repeats=options.repeats)
    ratios = found["ratios"]
    told = found | {"ratios": {name: r.to_json() for name, r in ratios.items()}}
    print(json.dumps(told, indent=2))
    print(f"\n{COLUMNS}\n|---|---|---|---|")
    for name, ratio in ratios.items():
        print(row(f"cold infer / {name}", f"<= {GOAL}", ratio))
    for name in HELP_GOALS_MS.keys() & found["sides"].keys():
        ms, goal = found["sides"][name], HELP_GOALS_MS[name]
        text = f"{ms['cpu_ms']} ms (least {ms['least_cpu_ms']})"
        print(row(f"{name}, processor time", f"<= {goal} ms", text))


if __name__ == "__main__":
    main()
