"""From a JPEG file to a result: how near the runtime is to decoding and the backbone.

    python benchmarks/image_to_answer.py --work bundles --output image_to_answer.json

Each detector is trained and exported by the real commands on generated parts of
1000 x 1000 pixels. Then, in one process and in turn: the file is read and judged by the
runtime's Predictor; and the limit, which is decoding and the backbone alone in
onnxruntime, same taps, at the model's size. The parts of the whole are timed between
them: decode, the graph up to the resized pixels, the backbone, and by subtraction what
follows it. The JSON has all of it, the Markdown on stdout is the table of
docs/performance.md.

--profile prints instead the nodes of each graph that cost most, by onnxruntime's
profiler: the fastest of the runs, convolutions together.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from pyimgano.datasets.generated_parts import draw_part
from pyimgano.detectors import create_detector
from pyimgano.detectors.patchcore import PatchCore
from pyimgano_runtime.predictor import Predictor

SIDE = 1000
N_PARTS = 30
MODELS: dict[str, dict[str, Any]] = {
    "patchcore (fast)": {"name": "patchcore", "preset": "fast"},
    "patchcore (fast, finest grid)": {
        "name": "patchcore",
        "preset": "fast",
        "options": {"grid": "finest", "sigma_px": 8},
    },
    "padim": {"name": "padim"},
    "dfm": {"name": "dfm"},
    "supersimplenet": {"name": "supersimplenet"},
}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
PARTS = ("decode", "resize", "backbone", "head and map", "post", "whole", "limit")
Step = Callable[[], Any]


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="data and bundles")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--threads", nargs="*", type=int, default=[2, 1])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="processor: time of all threads together; on a loaded machine",
    )
    parser.add_argument("--profile", action="store_true", help="the costliest nodes")
    options = parser.parse_args()
    manifest = generated(options.work / "data")
    results = []
    for label in options.models:
        folder = options.work / re.sub("[^a-z]+", "_", label).strip("_")
        bundle = trained(MODELS[label], manifest, folder)
        for threads in options.threads:
            picture = manifest.parent / "part_00.jpg"
            if options.profile:
                print_profile(label, bundle, picture, threads, options.rounds)
                continue
            steps = steps_of(MODELS[label], bundle, picture, threads)
            times = measured(steps, options.rounds, CLOCKS[options.clock])
            facts = {"model": label, "threads": threads, "clock": options.clock}
            results.append({**facts, **summary(times)})
            print(row(results[-1]), file=sys.stderr)
    if options.profile:
        return
    options.output.write_text(json.dumps(results, indent=2), encoding="utf-8")
    parts = " | ".join(f"{part} ms" for part in PARTS)
    print(f"| detector | threads | image to result / limit | {parts} |")
    print("|---|---|---|" + "---|" * len(PARTS))
    for result in results:
        print(row(result))


def generated(folder: Path) -> Path:
    """Give the manifest of generated parts, drawn where it is missing."""
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(N_PARTS):
        random = np.random.default_rng(index)
        image = draw_part("bracket", random, size=(SIDE, SIDE)).image_u8
        name = f"part_{index:02}.jpg"
        cv2.imwrite(str(folder / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        split = "train" if index < N_PARTS * 2 // 3 else "test"
        rows.append(
            {"image_path": name, "category": "part", "split": split, "label": 0}
        )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    manifest.write_text(lines, encoding="utf-8")
    return manifest


def trained(model: dict[str, Any], manifest: Path, folder: Path) -> Path:
    """Give the bundle of a detector, trained where it is missing."""
    bundle = folder / "run" / "bundle"
    if bundle.exists():
        return bundle
    folder.mkdir(parents=True, exist_ok=True)
    payload = {"dataset": {"manifest_path": str(manifest.resolve())}, "model": model}
    (folder / "config.json").write_text(json.dumps(payload), encoding="utf-8")
    command = [sys.executable, "-m", "pyimgano.cli", "train"]
    arguments = ["--config", "config.json", "--output", "run", "--export-bundle"]
    subprocess.run(
        [*command, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    return bundle


def steps_of(
    model: dict[str, Any], bundle: Path, picture: Path, threads: int
) -> dict[str, Step]:
    """Give what is timed, by name."""
    predictor = Predictor.open(bundle, threads=threads)
    image = predictor.read(picture)
    (graph,) = (bundle / "models").glob("*.onnx")
    resize = session(pixels_of(onnx.load(graph)), threads)
    backbone, shape = backbone_alone(model)
    alone = session(backbone, threads)
    pixels = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return {
        "decode": lambda: predictor.read(picture),
        "resize": lambda: resize.run(None, {"image": image[None]}),
        "backbone": lambda: alone.run(None, {"pixels": pixels}),
        "graph": lambda: predictor.engine.run(image[None], with_map=True),
        "whole": lambda: predictor.predict(predictor.read(picture)),
        "limit": lambda: (predictor.read(picture), alone.run(None, {"pixels": pixels})),
    }


def print_profile(
    label: str, bundle: Path, picture: Path, threads: int, rounds: int
) -> None:
    """Print the nodes of a bundle's graph that cost most, in its optimized form."""
    image = Predictor.open(bundle, threads=threads).read(picture)
    (graph,) = (bundle / "models").glob("*.onnx")
    with tempfile.TemporaryDirectory(prefix="profile-") as scratch:
        profiled = session(graph.read_bytes(), threads, profile=f"{scratch}/run")
        for _ in range(rounds):
            profiled.run(None, {"image": image[None]})
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    took: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event["name"].endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            shape = " ".join(str(s) for s in event["args"]["output_type_shape"])
            took.setdefault((event["name"], f"{operator} -> {shape}"), []).append(
                event["dur"] / 1000
            )
    costs: dict[str, float] = {}
    for (_, node), ms in took.items():
        own = "Conv, all of them" if node.startswith("Conv ") else node
        costs[own] = costs.get(own, 0.0) + min(ms)
    print(f"\n{label}, {threads} threads\n\n| node | ms |\n|---|---|")
    for node, cost in sorted(costs.items(), key=lambda item: -item[1])[:8]:
        print(f"| {node} | {cost:.2f} |")


def measured(
    steps: dict[str, Step], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Give the milliseconds of each step, all in turn."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 3):  # the first ones warm up
        for name, step in steps.items():
            start = clock()
            step()
            if index >= 3:
                times[name].append((clock() - start) * 1000)
    return times


def pixels_of(model: Any) -> bytes:
    """Give the part of a graph that makes the model's pixels of the picture."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    name = first.input[0]
    if made_by[name].op_type == "Pad":  # of the convolution
        name = made_by[name].input[0]
    wanted, needed = [name], set()
    while wanted:
        node = made_by.get(wanted.pop())
        if node is not None and node.output[0] not in needed:
            needed.add(node.output[0])
            wanted += node.input
    kept = [node for node in model.graph.node if node.output[0] in needed]
    output = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    part = onnx.helper.make_graph(
        kept, "pixels", model.graph.input, [output], model.graph.initializer
    )
    data: bytes = onnx.helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version
    ).SerializeToString()
    return data


def backbone_alone(model: dict[str, Any]) -> tuple[bytes, tuple[int, ...]]:
    """Give the ONNX bytes of a detector's backbone, and the shape of its input."""
    chosen = PatchCore.presets["fast"] if "preset" in model else {}
    detector: Any = create_detector(model["name"], dict(chosen))
    shape = (1, 3, *detector.config.image_size)
    program = torch.onnx.export(
        detector.backbone.eval(),
        (torch.zeros(shape),),
        dynamo=True,
        opset_version=20,
        input_names=["pixels"],
        verbose=False,
    )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data, shape


def session(data: bytes, threads: int, *, profile: str | None = None) -> Any:
    """Give a session with the options of the runtime's engine."""
    options = onnxruntime.SessionOptions()
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # initializers of the rest of the graph
    return onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"]
    )


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Give medians in ms, and the ratio of each turn: its quartiles."""
    ms = {name: statistics.median(values) for name, values in times.items()}
    ratios = pairwise(times["whole"], times["limit"])
    return {
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
        "ms": {
            "decode": ms["decode"],
            "resize": ms["resize"],
            "backbone": ms["backbone"],
            "head and map": ms["graph"] - ms["resize"] - ms["backbone"],
            "post": ms["whole"] - ms["decode"] - ms["graph"],
            "whole": ms["whole"],
            "limit": ms["limit"],
        },
        "fastest_ms": {name: min(values) for name, values in times.items()},
    }


def pairwise(left: list[float], right: list[float]) -> npt.NDArray[np.float64]:
    """Give the ratios of two steps within each turn, rising."""
    return np.sort(np.array(left) / np.array(right))


def row(result: dict[str, Any]) -> str:
    """Give one line of the table."""
    low, high = result["ratio_quartiles"]
    cells = [f"{result['ms'][part]:.1f}" for part in PARTS]
    ratio = f"{result['ratio']:.2f} x [{low:.2f}, {high:.2f}]"
    return (
        f"| {result['model']} | {result['threads']} | {ratio} | {' | '.join(cells)} |"
    )


if __name__ == "__main__":
    main()
