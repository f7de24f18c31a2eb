"""The measured numbers of the detectors' pages, out of the folder of a suite.

    pyimgano benchmark --suite detectors --suite-root DATA --output suite --resume
    python benchmarks/detector_table.py suite           print what was measured
    python benchmarks/detector_table.py suite --write   docs/detectors/results.json and
                                                        the pages that are made of it

Several folders are taken together; where two have a cell of one detector and set, the
later folder's counts. Only cells at a detector's defaults are taken. --write replaces
all that was measured before, --keep only what was measured anew.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "docs" / "detectors" / "results.json"
GENERATE = REPOSITORY / "docs" / "generate.py"
ENGINE = "onnx"  # what devices run
# Report keys of the engine, and of the category.
OF_ENGINE = (
    *("image_auroc", "image_auroc_ci95", "image_ap", "recall", "false_alarm_rate"),
    *("pixel_auroc", "pixel_auroc_ci95", "aupro_0.3", "aupro_0.3_ci95", "aupro_0.05"),
    *("peak_rss_mb",),
)
OF_CATEGORY = ("promised_false_alarm_rate", "fit_seconds")
OF_PARITY = (
    *("max_abs_score_diff", "max_rel_score_diff", "max_abs_map_diff"),
    *("max_map_diff_of_range", "label_flips", "min_threshold_distance"),
)


def main() -> int:
    """Print what was measured, or write it where the docs find it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="+", type=Path, metavar="SUITE_OUTPUT")
    parser.add_argument("--write", action="store_true", help="write results.json")
    parser.add_argument("--keep", action="store_true", help="keep what is not in them")
    options = parser.parse_args()
    detectors: dict[str, dict[str, Any]] = {}
    if options.keep and RESULTS.exists():
        detectors = json.loads(RESULTS.read_text(encoding="utf-8"))["detectors"]
    for suite in options.suites:
        for name, sets in measured(suite).items():
            detectors.setdefault(name, {}).update(sets)
    if not detectors:
        print("no finished cell at a detector's defaults", file=sys.stderr)
        return 1
    results = {
        "schema_version": "1.0",
        "command": "pyimgano benchmark --suite detectors --suite-root DATA "
        "--output suite --resume",
        "detectors": {name: detectors[name] for name in sorted(detectors)},
    }
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    if not options.write:
        print(text, end="")
        return 0
    RESULTS.write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, str(GENERATE)], check=False).returncode


def measured(suite: Path) -> dict[str, dict[str, Any]]:
    """Give the numbers of each detector and data set of a suite's folder."""
    document = json.loads((suite / "suite.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = {}
    for id, planned in document["cells"].items():
        model, data = planned["model"], planned["dataset_name"]
        folder = suite / "cells" / id
        at_defaults = model["preset"] is None and not model["options"]
        if not at_defaults or not (folder / "report.json").is_file():
            continue
        sets = found.setdefault(model["name"], {})
        if data in sets:
            sys.exit(f"{suite}: {model['name']} has several cells on {data}; the table "
                     "takes one category and one seed of a set")  # fmt: skip
        sets[data] = cell_numbers(folder, planned["category"])
    return found


def cell_numbers(folder: Path, category: str) -> dict[str, Any]:
    """Give what the docs show of one finished cell."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    facts = report["categories"][category]
    engine = facts["engines"][ENGINE]
    bundle = folder / "bundle"
    stem = facts["folder"]
    checkpoint = folder / "run" / "checkpoints" / stem / "model.safetensors"
    versions = report["environment"]["packages"]
    numbers = {
        **{key: engine.get(key) for key in OF_ENGINE},
        **{key: facts.get(key) for key in OF_CATEGORY},
        **{key: facts["parity"][key] for key in OF_PARITY},
        "latency_ms_p50": engine["latency_ms"]["p50"],
        "model_mb": engine["file_mb"],
        "bundle_mb": size_mb(bundle),
        "parameters": parameters(checkpoint),
        "test_normals": facts["counts"]["test_normals"],
        "test_anomalies": facts["counts"]["test_anomalies"],
        "train_normals": facts["dataset_summary"]["train"],
        "machine": report["environment"]["machine"],
        "threads": report["threads"],
        "torch": versions["torch"],
        "onnxruntime": versions["onnxruntime"],
        "finished": report["finished"][:10],
    }
    return {key: shortened(value) for key, value in numbers.items()}


def shortened(value: Any) -> Any:
    """Give a number with four significant digits: more of it is noise."""
    if isinstance(value, list):
        return [shortened(one) for one in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.4g}")
    return value


def size_mb(folder: Path) -> float:
    """Give the size of all files of a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def parameters(checkpoint: Path) -> int:
    """Give how many numbers a checkpoint holds; its tensors are not read."""
    with checkpoint.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return sum(math.prod(entry["shape"]) for entry in header.values())


if __name__ == "__main__":
    sys.exit(main())
