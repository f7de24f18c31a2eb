"""What a bundle in 8 bits gains and costs against the one in float32.

    pyimgano bundle export --run RUN --output F32
    pyimgano bundle export --run RUN --output I8 --precision int8
    python benchmarks/int8.py F32 I8 [F32 I8 ...]

Both bundles of a pair score the same generated picture of 1000 x 1000 pixels in turns,
in one process; a ratio is taken within a turn. AUROC and labels are those that the
export in 8 bits measured on the test pictures and wrote into its document.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from side_by_side import Ratio, machine

from pyimgano_runtime.bundle import Bundle, open_bundle
from pyimgano_runtime.predictor import Predictor

SIDE_PX: Final = 1000


def model_mb(bundle: Bundle) -> float:
    """Give the size of the model files in MB."""
    models = [entry for entry in bundle.config.files if entry.role == "model"]
    return sum(entry.size for entry in models) / 1e6


def measure(pair: tuple[Path, Path], rounds: int, threads: int) -> dict[str, Any]:
    """Give ratios of 8 bits to float32, and what the export measured."""
    bundles = [open_bundle(path) for path in pair]
    (name,) = bundles[1].config.categories
    predictors = [Predictor.open(b, category=name, threads=threads) for b in bundles]
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    took: list[list[float]] = [[], []]
    for number in range(rounds + 3):
        for times, predictor in zip(took, predictors, strict=True):
            start = time.process_time()
            predictor.predict(picture)
            if number >= 3:  # the first ones warm up
                times.append(time.process_time() - start)
    training = bundles[1].config.training["categories"][name]
    parity = bundles[1].config.parity.categories[name]
    return {
        "category": name,
        "detector": training["detector"],
        "cpu_time": Ratio.of(took[1], took[0]).to_json(),
        "cpu_ms": [round(float(np.median(t)) * 1000, 1) for t in took],
        "model_mb": [round(model_mb(b), 2) for b in bundles],
        "image_auroc": [
            training["int8"]["image_auroc_fp32"],
            training["metrics"]["image_auroc"],
        ],
        "max_rel_score_diff": parity.max_rel_score_diff,
        "label_flips": parity.label_flips,
        "n_images": parity.n_images,
    }


def main() -> None:
    """Measure, print JSON, then Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", metavar="F32 I8")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if len(options.bundles) % 2:
        parser.error("name pairs of bundles: float32, then int8")
    pairs = zip(options.bundles[::2], options.bundles[1::2], strict=True)
    found = [measure(pair, options.rounds, options.threads) for pair in pairs]
    print(json.dumps({"machine": machine(), "bundles": found}, indent=2))
    print(
        "\n| set | detector | image AUROC fp32 | int8 | labels that differ | score "
        "difference | model MB | CPU time, int8 / fp32 |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for cell in found:
        low, high = cell["cpu_time"]["quartiles"]
        before, after = cell["image_auroc"]
        print(
            f"| {cell['category']} | {cell['detector']} | {before:.3f} | {after:.3f} | "
            f"{cell['label_flips']} of {cell['n_images']} | "
            f"{cell['max_rel_score_diff']:.1%} | "
            f"{cell['model_mb'][0]:.1f} to {cell['model_mb'][1]:.1f} | "
            f"{cell['cpu_time']['median']:.2f} [{low:.2f}, {high:.2f}] |"
        )


if __name__ == "__main__":
    main()
