"""Many categories on one device: a shared backbone against as many whole models.

    python benchmarks/many_categories.py --work FOLDER [--categories 15]

Trains PatchCore (preset "fast", 2,000 vectors) on generated parts, one category each,
and exports the run twice: with a shared backbone, and with a whole graph for every
category, which is what as many bundles hold. A process opens all categories of one of
them and scores four pictures by each; the memory and time that this adds to a process
that has imported onnxruntime are set against two others, in turns: the whole graphs in
the same runtime, and the whole graphs in bare onnxruntime sessions, each with memory of
its own. The scores must be equal to the bit. Run and bundles stay in FOLDER for another
time (Linux only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from side_by_side import COLUMNS, Ratio, machine, row

from pyimgano.cli import main as pyimgano
from pyimgano.datasets.generated_parts import draw_part
from pyimgano_runtime.png_writer import encode_png

GOAL: Final = 0.2
WORDS: Final = {"mb": "memory", "cpu_s": "opening, CPU time", "wall_s": "opening, wall"}
SIDE_PX: Final = 160
NORMALS, TESTED = 12, 2  # pictures a category, the tested ones with and without defect

OPEN: Final = """
import json, sys, time, numpy as np
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime
onnxruntime = load_onnxruntime()
def resident_mb():
    with open("/proc/self/status") as stream:
        facts = dict(line.split(":", 1) for line in stream)
    return int(facts["VmRSS"].split()[0]) / 1024
picture = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
def bare_session(path):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    feed = {"image": picture[None]}
    return lambda: float(session.run(["score", "anomaly_map"], feed)[0][0])
def ours(bundle, category):
    predictor = Predictor.open(bundle, category=category)
    return lambda: predictor.predict(picture).score
before, start, cpu = resident_mb(), time.perf_counter(), time.process_time()
bundle = open_bundle(sys.argv[1])
config = bundle.config
if sys.argv[2] == "bare":
    files = [config.models[c.graph[0]].file for c in config.categories.values()]
    scorers = [bare_session(str(bundle.root / file)) for file in files]
else:
    scorers = [ours(bundle, category) for category in config.categories]
opened = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
for _ in range(4):
    scores = [score().hex() for score in scorers]
print(json.dumps(opened | {"mb": resident_mb() - before, "scores": scores}))
"""


def write_parts(folder: Path, n_categories: int) -> Path:
    """Write pictures and their manifest; give the manifest."""
    rows = []
    for number in range(n_categories):
        category = f"part{number:02}"
        wanted: list[tuple[str, str | None]] = [("train", None)] * NORMALS
        wanted += [("test", None), ("test", "scratch")] * TESTED
        for index, (split, defect) in enumerate(wanted):
            drawn = draw_part(
                ("bracket", "connector")[number % 2],
                np.random.default_rng([number, index]),
                size=(SIDE_PX, SIDE_PX),
                defect=defect,
                severity=None if defect is None else 1.0,
            )
            path = folder / "images" / category / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(drawn.image_u8))
            rows.append(
                {
                    "image_path": str(path.relative_to(folder)),
                    "label": int(defect is not None),
                    "split": split,
                    "category": category,
                }
            )
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return manifest


def make_bundles(work: Path, n_categories: int) -> dict[str, Path]:
    """Train once and export twice, unless that is done."""
    folder = work / f"parts{n_categories}"
    run = folder / "run"
    bundles = {"shared": folder / "shared", "separate": folder / "separate"}
    if not run.exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "recipe": "industrial-adapt",
            "dataset": {
                "name": "manifest",
                "manifest_path": str(write_parts(folder, n_categories)),
            },
            "model": {"name": "patchcore", "preset": "fast"},
            "evaluation": {"bootstrap_resamples": 0},
        }
        path = folder / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        _run(["train", "--config", str(path), "--output", str(run)])
    for name, bundle in bundles.items():
        if not bundle.exists():
            sharing = {"shared": "auto", "separate": "never"}[name]
            export = ["bundle", "export", "--run", str(run), "--output", str(bundle)]
            _run([*export, "--share-backbone", sharing])
    return bundles


def _run(command: list[str]) -> None:
    code = pyimgano(command)
    if code != 0:
        sys.exit(f"pyimgano {' '.join(command)} ended with {code}")


def opened(bundle: Path, how: str) -> dict[str, Any]:
    """Give what a process adds that opens every category: "bare" or by our runtime."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(bundle), how],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(bundles: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Give the ratios of the shared bundle to the separate models."""
    sides = bundles | {"bare": bundles["separate"]}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, bundle in sides.items():
            found[name].append(opened(bundle, name))
    scores = {tuple(cell["scores"]) for cells in found.values() for cell in cells}
    if len(scores) != 1:
        sys.exit("the shared backbone gives other scores than the whole graphs")
    ratios = {
        (other, key): Ratio.of(
            [cell[key] for cell in found["shared"]],
            [cell[key] for cell in found[other]],
        )
        for other in ("bare", "separate")
        for key in WORDS
    }
    return {
        "machine": machine(),
        "goal": GOAL,
        "ratios": ratios,
        "files_mb": {name: _size_mb(bundle) for name, bundle in bundles.items()},
        "medians": {
            name: {
                key: round(float(np.median([cell[key] for cell in cells])), 3)
                for key in WORDS
            }
            for name, cells in found.items()
        },
    }


def _size_mb(bundle: Path) -> float:
    return round(sum(p.stat().st_size for p in bundle.glob("models/*")) / 1e6, 1)


def main() -> None:
    """Measure, print JSON, then Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--categories", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found = measure(make_bundles(options.work, options.categories), options.rounds)
    ratios = found["ratios"]
    told = {" / ".join(names): ratio.to_json() for names, ratio in ratios.items()}
    print(json.dumps(found | {"ratios": told}, indent=2))
    print(f"\n{COLUMNS}\n|---|---|---|---|")
    for (other, key), ratio in ratios.items():
        what = f"{options.categories} categories, shared / {other}: {WORDS[key]}"
        print(row(what, f"<= {GOAL}", ratio))


if __name__ == "__main__":
    main()
