"""One picture through our PatchCore bundle and through anomalib's PatchCore.

    sh benchmarks/peers/anomalib_env.sh anomalib-env
    python benchmarks/anomalib_latency.py --peer anomalib-env/bin/python --bundle B

EfficientNet-Lite0 at 256 px and as many bank vectors on all sides, onnxruntime for our
bundle and for the peer's ONNX file, torch for the peer's model. The picture is decoded
and has 256 x 256 pixels; ours is uint8, and resizing and normalizing it are in our
time, the peer's is a normalized tensor. Every round measures each side in a process of
its own, in turns; ratios are taken within a round. B: a bundle of `patchcore` with the
preset "fast" and 2,000 vectors, such as `benchmarks/many_categories.py` leaves in
FOLDER/parts15/separate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from side_by_side import Ratio, machine

from pyimgano_runtime.bundle import open_bundle

PEER: Final = Path(__file__).parent / "peers" / "anomalib_patchcore.py"
CHANNELS: Final = 152  # of its taps, 40 and 112
GOALS: Final = {"anomalib, torch": ">= 8", "anomalib, ONNX": ">= 1.3"}

RUN: Final = """
import json, sys, time, numpy as np, onnxruntime
path, threads, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
given = session.get_inputs()[0]
random = np.random.default_rng(0)
if given.type == "tensor(uint8)":
    picture = random.integers(0, 256, (1, 256, 256, 3), np.uint8)
else:
    picture = random.uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32)
wall, cpu = [], []
for number in range(runs + 3):
    start, started = time.perf_counter(), time.process_time()
    session.run(None, {given.name: picture})
    if number >= 3:
        wall.append((time.perf_counter() - start) * 1000)
        cpu.append((time.process_time() - started) * 1000)
print(json.dumps({"ms": wall, "cpu_ms": cpu}))
"""


def last_line(command: list[str]) -> dict[str, Any]:
    """Run a side and give the JSON of its last line."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:3])} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Give the medians of every side and round, and the peer's time against ours."""
    bundle = open_bundle(options.bundle)
    name, settings = next(iter(bundle.config.categories.items()))
    if len(settings.graph) > 1:
        sys.exit(f"{options.bundle}: its categories share a backbone; name one of one")
    told = bundle.config.training["categories"][name]["hyper_parameters"]
    count = int(told["bank_size"])
    ours = bundle.root / bundle.config.models[settings.graph[0]].file
    features = scratch / "features.npy"
    random = np.random.default_rng(0)
    np.save(features, random.normal(size=(count, CHANNELS)).astype(np.float32))
    peer = [str(options.peer), str(PEER)]
    common = ["--features", str(features), "--count", str(count)]
    graph = scratch / "peer.onnx"
    last_line([*peer, "onnx", *common, "--graph", str(graph)])
    how = [str(options.threads), str(options.runs)]
    more = ["--threads", str(options.threads), "--runs", str(options.runs)]
    sides = {
        "ours": [sys.executable, "-c", RUN, str(ours), *how],
        "anomalib, torch": [*peer, "latency", *common, *more],
        "anomalib, ONNX": [sys.executable, "-c", RUN, str(graph), *how],
    }
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side, command in sides.items():
            found[side].append(last_line(command))
    medians = {
        side: {
            key: [float(np.median(cell[key])) for cell in cells]
            for key in ("ms", "cpu_ms")
        }
        for side, cells in found.items()
    }
    return {
        "machine": machine(),
        "vectors": count,
        "threads": options.threads,
        "medians": medians,
        "ratios": {
            side: {
                key: Ratio.of(medians[side][key], medians["ours"][key]).to_json()
                for key in ("ms", "cpu_ms")
            }
            for side in GOALS
        },
    }


def main() -> None:
    """Measure, print JSON, then Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latency-") as scratch:
        found = measure(options, Path(scratch))
    print(json.dumps(found, indent=2))
    print("\n| side | goal | its CPU time / ours | its wall time / ours |")
    print("|---|---|---|---|")
    for side, goal in GOALS.items():
        cells = [found["ratios"][side][key] for key in ("cpu_ms", "ms")]
        said = [
            f"{c['median']:.1f} [{c['quartiles'][0]:.1f}, {c['quartiles'][1]:.1f}]"
            for c in cells
        ]
        print(f"| {side} | {goal} | {said[0]} | {said[1]} |")


if __name__ == "__main__":
    main()
