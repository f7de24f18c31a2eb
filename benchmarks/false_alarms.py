"""Promised against achieved false-alarm rates on the reference sets.

    PYIMGANO_TEST_DATA=... python benchmarks/false_alarms.py --output results

Each cell trains with the default settings (`pyimgano train`) and reads its report: what
the threshold promises, and how many test normals reach it, with Clopper-Pearson
bounds by pictures and by groups. Finished cells are kept. The last lines on stdout are
the Markdown table of docs/calibration.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETS = ("mvtec_screw", "magnetic_tile", "elpv_mono", "cookies", "sdu_composite")
MODELS = ("patchcore", "padim")


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
    print("| set | detector | set on | promised | test normals | achieved |"
          " 95 % by pictures | 95 % by groups | the tool says |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.sets:
        for model in options.models:
            result = options.output / f"{name}-{model}.json"
            if not result.exists():
                cell = train(Path(data) / name / "manifest.jsonl", model)
                result.write_text(json.dumps(cell, indent=2), encoding="utf-8")
            print(row(name, model, json.loads(result.read_text(encoding="utf-8"))))


def train(manifest: Path, model: str) -> dict[str, Any]:
    """Give the report and the thresholds of one training run."""
    with tempfile.TemporaryDirectory(prefix="false-alarms-") as scratch:
        config, run = Path(scratch) / "config.json", Path(scratch) / "run"
        payload = {
            "dataset": {"manifest_path": str(manifest)},
            "model": {"name": model},
            "evaluation": {"pixel_metrics": False, "bootstrap_resamples": 0},
        }
        config.write_text(json.dumps(payload), encoding="utf-8")
        command = [sys.executable, "-m", "pyimgano.cli", "train", "--json"]
        arguments = ["--config", str(config), "--output", str(run)]
        done = subprocess.run(
            [*command, *arguments], stdout=subprocess.PIPE, check=True, text=True
        )
        (report,) = json.loads(done.stdout)["categories"].values()
        (place,) = run.glob("categories/*/calibration.json")
        calibration = json.loads(place.read_text(encoding="utf-8"))
        return {"report": report, "thresholds": calibration["thresholds"]}


def row(name: str, model: str, cell: dict[str, Any]) -> str:
    """Give one line of the table."""
    report = cell["report"]
    provenance = cell["thresholds"]["provenance"]["image"]
    bounds = report["false_alarm_rate_bounds"]
    about = "about" if provenance["approximate"] else "at most"
    codes = sorted({warning.split(":")[0] for warning in report["warnings"]})
    values = (
        *(name, model),
        f"{provenance['n_images']} ({provenance['source']})",
        f"{about} {provenance['used_false_alarm_rate']:.1%}",
        f"{bounds['n_images']} of {bounds['n_groups']} groups",
        f"{bounds['images_above'] / bounds['n_images']:.1%} ({bounds['images_above']})",
        interval(bounds["by_images"]),
        interval(bounds["by_groups"]),
        ", ".join(f"`{code}`" for code in codes) or "-",
    )
    return "| " + " | ".join(values) + " |"


def interval(ends: list[float]) -> str:
    """Give `0.1% to 3.4%`."""
    return f"{ends[0]:.1%} to {ends[1]:.1%}"


if __name__ == "__main__":
    main()
