"""Runs the main path on the reference sets and prints the table of docs/benchmarks.md.

    PYIMGANO_TEST_DATA=... python benchmarks/reference_sets.py --output results

Each cell goes through the real commands: train, bundle export, a copy of the bundle in
another folder, `pyimgano-runtime check` and `infer` there, `benchmark`. Finished cells
are kept and not run again. The last lines on stdout are the Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETS = ("mvtec_screw", "magnetic_tile", "elpv_mono", "cookies", "sdu_composite")
MODELS = ("patchcore", "padim")
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run every missing cell, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--models", nargs="*", default=MODELS)
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        for model in options.models:
            result = options.output / f"{name}-{model}.json"
            if not result.exists():
                cell = run_cell(Path(data) / name / "manifest.jsonl", model)
                result.write_text(json.dumps(cell, indent=2), encoding="utf-8")
            print(f"{name} {model} done", file=sys.stderr)
    print(markdown(options.output, options.sets, options.models))


def run_cell(manifest: Path, model: str) -> dict[str, Any]:
    """Take one detector and one set through the whole path."""
    with tempfile.TemporaryDirectory(prefix="reference-") as scratch:
        work = Path(scratch)
        config = {
            "dataset": {"manifest_path": str(manifest)},
            "model": {"name": model},
        }
        (work / "config.json").write_text(json.dumps(config), encoding="utf-8")
        command("pyimgano.cli", "train", "--config", "config.json", "--output", "run",
                cwd=work)  # fmt: skip
        command("pyimgano.cli", "bundle", "export", "--run", "run", "--output",
                "bundle", cwd=work)  # fmt: skip
        device = work / "a device" / "bundle"
        shutil.copytree(work / "bundle", device)
        check = json.loads(
            command("pyimgano_runtime", "check", str(device), "--json", cwd=Path("/"))
        )
        rows = work / "rows.jsonl"
        start = time.perf_counter()
        command("pyimgano_runtime", "infer", "--bundle", str(device), "--output",
                str(rows), str(manifest.parent / "images" / "test"),
                cwd=Path("/"))  # fmt: skip
        infer_seconds = time.perf_counter() - start
        command("pyimgano.cli", "benchmark", "--run", "run", "--bundle", str(device),
                "--output", "bench", cwd=work)  # fmt: skip
        report = json.loads((work / "bench" / "report.json").read_text())
        lines = rows.read_text(encoding="utf-8").splitlines()
        size = sum(f.stat().st_size for f in device.rglob("*") if f.is_file())
        return {
            "check_ok": check["ok"],
            "infer_rows": len(lines),
            "infer_failed": sum(not json.loads(line)["ok"] for line in lines),
            "infer_seconds": infer_seconds,
            "bundle_mb": size / 1e6,
            "report": report,
        }


def command(module: str, *arguments: str, cwd: Path) -> str:
    """Run a command of this checkout and give its stdout."""
    paths = [ROOT, ROOT / "exporters", ROOT / "runtime" / "src"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{module} {' '.join(arguments)}: exit code {done.returncode}")
    return done.stdout


def markdown(folder: Path, sets: list[str], models: list[str]) -> str:
    """Give the table of all finished cells."""
    lines = [
        "| set | detector | image AUROC [95 %] | pixel AUROC | AUPRO 0.3 | recall "
        "| false alarms promised / achieved | fit s | ms torch / onnx | score diff "
        "| map diff | flips (closest to threshold) | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    machine = ""
    for name in sets:
        for model in models:
            path = folder / f"{name}-{model}.json"
            if path.exists():
                cell = json.loads(path.read_text())
                machine = cell["report"]["environment"]["machine"]
                lines += [
                    row(name, model, cell, c)
                    for c in cell["report"]["categories"].values()
                ]
    return "\n".join([*lines, "", f"Machine: {machine}."])


def row(name: str, model: str, cell: dict[str, Any], category: dict[str, Any]) -> str:
    """Give one line of the table."""
    torch, onnx = category["engines"]["torch"], category["engines"]["onnx"]
    parity = category["parity"]
    low, high = onnx["image_auroc_ci95"]

    def shown(value: float | None, pattern: str = "{:.3f}") -> str:
        return "-" if value is None else pattern.format(value)

    cells = [
        name,
        model,
        f"{onnx['image_auroc']:.3f} [{low:.3f}, {high:.3f}]",
        shown(onnx["pixel_auroc"]),
        shown(onnx["aupro_0.3"]),
        shown(onnx["recall"]),
        f"{category['promised_false_alarm_rate']:.1%} / {onnx['false_alarm_rate']:.1%}",
        f"{category['fit_seconds']:.0f}",
        f"{torch['latency_ms']['p50']:.0f} / {onnx['latency_ms']['p50']:.0f}",
        f"{parity['max_abs_score_diff']:.1e}",
        shown(parity["max_abs_map_diff"], "{:.1e}"),
        f"{parity['label_flips']} ({parity['min_threshold_distance']:.2g})",
        f"{cell['bundle_mb']:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
