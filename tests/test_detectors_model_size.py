"""Every detector at a model size that is no square: map, place of a defect, export."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import SMALL_OPTIONS
from detector_trials import ImageList, context_of, create, score
from pyimgano.detectors import DETECTORS
from pyimgano_exporters.onnx_graph import export_graph, model_spec
from pyimgano_exporters.parity import MAP_OF_RANGE, SCORE_REL
from pyimgano_runtime.check import difference_of_range, relative_difference
from pyimgano_runtime.engine import OnnxEngine

# A few steps on a few pictures teach no detector that trains where a defect lies.
LEARN_LONGER = {"efficientad", "reverse_distillation", "stfpm", "supersimplenet"}
PICTURE = (60, 96)  # height, width
# These stand for the default run; an export takes seconds, so the others are slow.
QUICK = ("padim", "patchcore", "pixel_stats")
NAMES = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in sorted(DETECTORS)
]


def wide_options(name: str) -> dict[str, Any]:
    """Give the small options with every model size one and a half times as wide."""
    options: dict[str, Any] = copy.deepcopy(SMALL_OPTIONS[name])
    blocks = [member["options"] for member in options.get("members", {}).values()]
    for block in [options, *blocks]:
        if "image_size" in block:
            height, width = block["image_size"]
            # 70 is five patches of 14, and 112 eight.
            block["image_size"] = [height, 112 if height == 70 else width * 3 // 2]
    return options


def stripes(seed: int) -> np.ndarray:
    """Give a picture of upright stripes with a little noise."""
    random = np.random.default_rng(seed)
    height, width = PICTURE
    wave = 120 + 60 * np.sin(np.arange(width) / 3)
    picture = wave[None, :, None] + random.normal(0, 4, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8)


def with_spot(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """Give the picture with a bright spot."""
    spoilt = picture.copy()
    spoilt[row - 7 : row + 7, column - 7 : column + 7] = (255, 40, 40)
    return spoilt


@pytest.mark.parametrize("name", NAMES)
def test_a_wide_model_sees_where_a_defect_lies_and_exports(
    name: str, tmp_path: Path
) -> None:
    detector = create(name, **wide_options(name))
    normals = [stripes(seed) for seed in range(8)]
    detector.fit(ImageList(normals), context=context_of(tmp_path)).eval()

    places = [(15, 20), (15, 76), (45, 20), (45, 76)]
    spoilt = [with_spot(stripes(50 + i), *place) for i, place in enumerate(places)]
    scores, maps = score(detector, spoilt)
    assert torch.isfinite(scores).all()
    size = detector.map_size()
    if detector.has_map:
        assert maps is not None
        assert size is not None
        assert tuple(maps.shape[1:]) == size
        assert size[1] > size[0]
    if detector.has_map and name not in LEARN_LONGER:
        assert maps is not None
        for place, anomaly_map in zip(places, maps.numpy(), strict=True):
            peak = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
            shares = [(at + 0.5) / side for at, side in zip(peak, size, strict=True)]
            row, column = shares[0] * PICTURE[0], shares[1] * PICTURE[1]
            if detector.map_mode == "letterbox":
                # The picture fills the width; its rows lie in the middle.
                rows = size[1] * PICTURE[0] / PICTURE[1]
                row = (peak[0] + 0.5 - (size[0] - rows) / 2) / rows * PICTURE[0]
            assert abs(row - place[0]) < 14
            assert abs(column - place[1]) < 14

    engine = OnnxEngine(export_graph(detector), model_spec("m.onnx", detector), name)
    for index, picture in enumerate(spoilt[:2]):
        found, found_map = engine.run(picture[None], with_map=True)
        expected = float(score(detector, [picture])[0][0])
        assert relative_difference(float(found[0]), expected) <= SCORE_REL
        if found_map is not None and maps is not None:
            share = difference_of_range(found_map[0], maps[index].numpy())
            assert share <= MAP_OF_RANGE
