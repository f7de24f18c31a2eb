"""The coreset and the latency of PatchCore beside anomalib's, on the same features.

    sh benchmarks/peers/anomalib_env.sh anomalib-env
    PYIMGANO_TEST_DATA=... python benchmarks/fit.py --peer anomalib-env/bin/python \
        --output results

100 train pictures of a reference set, EfficientNet-Lite0 at 256 px, 1,000 picks. Each
side runs in a process of its own, in turn. The covering radius of both banks is taken
over all patches, in the features as they are, and set against the exact greedy's; the
image AUROC of each bank is that of our patchcore with it, on the set's test pictures.
Without --peer only our side is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyimgano.datasets.images import read_training_image
from pyimgano.datasets.rows import ManifestRow
from pyimgano.detectors import create_detector
from pyimgano.detectors.coreset import coverage_radius, greedy_coreset
from pyimgano.detectors.covering_bank import covering_bank, patches_of
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.nearest_neighbour import sampled_patches
from pyimgano.metrics.image import auroc
from pyimgano.workbench.runner import input_rules

PEER = Path(__file__).parent / "peers" / "anomalib_patchcore.py"
SIDE_PX = 256


def main() -> None:
    """Measure both sides in turn, or be the process of ours."""
    options = parse()
    if options.ours is not None:
        print(json.dumps(our_coreset(options)))
        return
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    options.output.mkdir(parents=True, exist_ok=True)
    results = []
    for name in options.sets:
        with tempfile.TemporaryDirectory(prefix="fit-") as scratch:
            found = measure(Path(data) / name, Path(scratch), options)
        results.append({"set": name} | found)
        result = options.output / "fit.json"
        result.write_text(json.dumps(results, indent=2), encoding="utf-8")
    print_table(results)


def parse() -> argparse.Namespace:
    """Give the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--peer", type=Path, help="Python of anomalib's environment")
    parser.add_argument("--sets", nargs="*", default=["mvtec_screw", "magnetic_tile"])
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--count", type=int, default=1000, help="picks")
    parser.add_argument("--candidates", type=int, nargs="*", default=[60_000, 20_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--features", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--picks", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(folder: Path, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Give times and radius ratios of every side on one set."""
    features = features_of(folder, options.pictures)
    np.save(scratch / "maps.npy", features)
    patches = torch.cat(
        list(patches_of(FeatureSet(features, np.arange(len(features)))))
    )
    np.save(scratch / "patches.npy", patches.numpy())
    exact = greedy_coreset(
        patches, options.count, generator=torch.Generator().manual_seed(0)
    )
    exact_radius = coverage_radius(patches, exact)
    test = tested(folder)

    own = [sys.executable, __file__, "--features", str(scratch / "maps.npy")]
    sides = {f"ours, {n:,}": [*own, "--ours", str(n)] for n in options.candidates}
    sides["sample of 60,000 alone"] = [*own, "--ours", "0"]
    if options.peer is not None:
        peer = [str(options.peer), str(PEER), "coreset"]
        sides["anomalib"] = [*peer, "--features", str(scratch / "patches.npy")]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, command in sides.items():
            picks = scratch / "picks.npy"
            more = ["--picks", str(picks), "--count", str(options.count)]
            more += ["--threads", str(options.threads)]
            done = subprocess.run(
                [*command, *more], stdout=subprocess.PIPE, check=True, text=True
            )
            cell = json.loads(done.stdout.splitlines()[-1])
            bank = torch.from_numpy(np.load(picks))
            vectors = patches[bank] if bank.dtype == torch.int64 else bank
            radius = radius_of(patches, vectors)
            cell |= {"radius": radius / exact_radius}
            found[name].append(cell | {"image_auroc": image_auroc(vectors, test)})
    return {"patches": len(patches), "sides": found}


def features_of(folder: Path, count: int) -> Any:
    """Give the features (n, C, h, w) of the first train normals."""
    good = [r for r in rows_of(folder) if r["split"] == "train" and r["label"] == 0]
    return maps_of(folder, good[:count])


def tested(folder: Path) -> tuple[Any, list[int]]:
    """Give the features (n, C, h, w) of the test pictures, and their labels."""
    rows = [row for row in rows_of(folder) if row["split"] == "test"]
    return maps_of(folder, rows), [row["label"] for row in rows]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Give the rows of a set's manifest."""
    lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def maps_of(folder: Path, rows: list[dict[str, Any]]) -> Any:
    """Give the features (n, C, h, w) of pictures."""
    torch.set_num_threads(2)
    detector: Any = create_detector("patchcore", our_options()).eval()
    maps = []
    for named in rows:
        row = ManifestRow(named["image_path"], folder, "part", "train", 0)
        image = read_training_image(row, input_rules())
        with torch.no_grad():
            maps.append(detector.features(torch.from_numpy(image)[None]).numpy())
    return np.concatenate(maps)


@torch.no_grad()
def image_auroc(bank: torch.Tensor, test: tuple[Any, list[int]]) -> float:
    """Give the image AUROC of patchcore with a bank (K, C)."""
    maps, labels = test
    detector: Any = create_detector("patchcore", our_options()).eval()
    detector.center = bank.mean(dim=0)
    detector.bank = bank - detector.center
    parts = torch.from_numpy(maps).split(8)
    scores = torch.cat([detector.score_features(part)[0] for part in parts])
    return auroc(scores.numpy().astype(np.float64), np.array(labels))


def our_options() -> dict[str, Any]:
    """Give the options of the peer's network."""
    return {"backbone": "efficientnet_lite0", "image_size": [SIDE_PX, SIDE_PX]}


def our_coreset(options: argparse.Namespace) -> dict[str, Any]:
    """Pick the bank as `patchcore` does, the sampling included.

    0 candidates: the greedy of a sample of 60,000 alone, as it was once done.
    """
    torch.set_num_threads(options.threads)
    maps = np.load(options.features)
    features = FeatureSet(maps, np.arange(len(maps)))
    generator = torch.Generator().manual_seed(0)
    start, cpu = time.perf_counter(), time.process_time()
    sample = sampled_patches(features, options.ours or 60_000, generator=generator)
    center = sample.mean(dim=0)
    sample -= center
    if options.ours:
        bank = covering_bank(
            features,
            sample,
            options.count,
            place=lambda patches: patches - center,
            generator=generator,
        )
    else:
        bank = sample[greedy_coreset(sample, options.count, generator=generator)]
    took = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
    }
    np.save(options.picks, (bank + center).numpy())
    return took


def radius_of(patches: torch.Tensor, bank: torch.Tensor) -> float:
    """Give the covering radius of a bank (K, C).

    In float64, so that it can judge between float32 implementations.
    """
    center = patches.mean(dim=0)
    picks = (bank - center).double()
    return max(
        float(torch.cdist((chunk - center).double(), picks).amin(dim=1).max())
        for chunk in torch.split(patches, 4096)
    )


def print_table(results: list[dict[str, Any]]) -> None:
    """Print the Markdown table: times are ratios against our first side, per round."""
    columns = ("CPU s", "CPU against ours", "wall against ours", "radius")
    print(f"| set | side | {' | '.join(columns)} | image AUROC |")
    print("|---|---|---|---|---|---|---|")
    for result in results:
        sides = result["sides"]
        base = next(iter(sides.values()))
        for name, cells in sides.items():
            values = (
                result["set"],
                name,
                f"{statistics.median(cell['cpu_seconds'] for cell in cells):.2f}",
                ratios(cells, base, "cpu_seconds"),
                ratios(cells, base, "seconds"),
                f"{max(cell['radius'] for cell in cells):.3f} x exact",
                f"{min(cell['image_auroc'] for cell in cells):.3f}",
            )
            print("| " + " | ".join(values) + " |")


def ratios(cells: list[dict[str, Any]], base: list[dict[str, Any]], key: str) -> str:
    """Give the median ratio of the rounds, and the lowest and highest."""
    found = [a[key] / b[key] for a, b in zip(cells, base, strict=True)]
    return f"{statistics.median(found):.2f} [{min(found):.2f}, {max(found):.2f}]"


if __name__ == "__main__":
    main()
