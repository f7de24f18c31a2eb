"""Which blend and which score of tiles for what: the same tiles, joined in every way.

    python benchmarks/tile_joins.py --bundle B --manifest data/manifest.jsonl

B is a bundle with tiles of one category, trained on that manifest. Every test picture
is cut and scored once; then its tiles are joined by every blend and every score rule.
A seam is judged on the test normals: how much the map jumps from cell to cell where a
tile ends, against elsewhere (1.00: the seams do not show). No threshold is used.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from pyimgano.datasets.images import read_mask
from pyimgano.datasets.manifest import read_manifest
from pyimgano.metrics.image import auroc
from pyimgano.metrics.pixel import PixelMetrics
from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.tiling import (
    BLENDS,
    Tiling,
    cut_tiles,
    merge_maps,
    merge_scores,
    tile_origins,
)

TOP_KS: Final = (2, 3, 5)


def jump_at_seams(
    anomaly_map: Any, size: tuple[int, int], tiling: Tiling
) -> tuple[float, float]:
    """Give the mean jump between cells where a tile begins or ends, and elsewhere."""
    at, elsewhere = [], []
    for axis in (0, 1):
        jumps = np.abs(np.diff(anomaly_map, axis=axis)).mean(axis=1 - axis)
        scale = anomaly_map.shape[axis] / size[axis]
        starts = {origin[axis] for origin in tile_origins(size, tiling)}
        ends = {start + tiling.size[axis] for start in starts}
        borders = {round(place * scale) - 1 for place in starts | ends}
        seams = np.isin(np.arange(len(jumps)), list(borders))
        at.append(jumps[seams])
        elsewhere.append(jumps[~seams])
    return float(np.concatenate(at).mean()), float(np.concatenate(elsewhere).mean())


def measure(predictor: Predictor, manifest: Path, blends: tuple[str, ...]) -> Any:
    """Give labels, tile scores of each picture, and per blend metrics and jumps."""
    tiling, rules = predictor.settings.tiling, predictor.rules
    if tiling is None:
        raise SystemExit("this bundle cuts no tiles; train with a tiling")
    labels, scores = [], []
    pixels = {blend: PixelMetrics() for blend in blends}
    jumps: dict[str, list[tuple[float, float]]] = {blend: [] for blend in blends}
    for row in read_manifest(manifest):
        if row.split != "test":
            continue
        image = predictor.read(row.image_path)
        size = (image.shape[0], image.shape[1])
        tiles = cut_tiles(image, tiling)
        found = [predictor.engine.run(tile[None], with_map=True) for tile in tiles]
        labels.append(row.label)
        scores.append(np.concatenate([score for score, _ in found]))
        maps = np.concatenate([one for _, one in found if one is not None])
        mask = read_mask(row.mask_path, size, rules, above=row.mask_above)
        for blend in blends:
            chosen = replace(tiling, blend=blend)
            joined = merge_maps(maps, size, chosen)
            if row.label == 0:
                jumps[blend].append(jump_at_seams(joined, size, chosen))
            if row.label == 0 or mask is not None:
                over = map_to_image(joined, size, mode="tiles")
                pixels[blend].add(over, np.zeros(size, bool) if mask is None else mask)
    return np.array(labels), scores, pixels, jumps


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    predictor = Predictor.open(options.bundle)
    labels, scores, pixels, jumps = measure(predictor, options.manifest, BLENDS)
    tiling = predictor.settings.tiling
    assert tiling is not None
    print(
        f"{len(labels)} pictures, {labels.sum()} with a defect, {len(scores[0])} tiles"
    )
    print("\n| blend | pixel AUROC | AUPRO 0.3 | jump at seams / elsewhere |")
    print("|---|---|---|---|")
    for blend in BLENDS:
        result = pixels[blend].result()
        at, elsewhere = np.mean(jumps[blend], axis=0)
        print(
            f"| {blend} | {result.pixel_auroc:.3f} | {result.aupro_0_3:.3f} "
            f"| {at / elsewhere:.2f} |"
        )
    print("\n| score | image AUROC |\n|---|---|")
    rules: list[tuple[str, int | None]] = [("max", None)]
    rules += [("top_k", k) for k in TOP_KS]
    for score, top_k in [*rules, ("mean", None)]:
        chosen = replace(tiling, score=score, top_k=top_k)
        joined = [float(merge_scores(of_tiles, chosen)) for of_tiles in scores]
        name = score if top_k is None else f"{score}, {top_k}"
        print(f"| {name} | {auroc(np.array(joined), labels):.3f} |")


if __name__ == "__main__":
    main()
