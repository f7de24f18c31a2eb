"""Streamed pixel metrics on anomaly maps of real photographs, against exact values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from pixel_brute_force import AUPRO_LIMITS, brute_force, seg_f1
from pyimgano.cli import main
from pyimgano.datasets.images import read_mask
from pyimgano.datasets.manifest import read_manifest
from pyimgano.metrics import PixelMetrics
from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.predictor import Predictor

pytestmark = pytest.mark.realdata

ROUNDING = 1e-11  # float64 sums in another order; measured below 1e-15
COARSE = 32  # every so many rows and columns: brute force takes each score in turn

Pictures = list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]


class Scored(NamedTuple):
    """Maps at the pictures' size with their masks, and their streamed metrics."""

    pictures: Pictures
    threshold: float  # the calibrated one
    report: dict[str, Any]


@pytest.fixture(scope="module")
def cookies(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """The test pictures of the cookies that count for pixels, by pixel_stats."""
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if not data:
        pytest.skip("PYIMGANO_TEST_DATA is not set")
    manifest = Path(data) / "cookies" / "manifest.jsonl"
    folder = tmp_path_factory.mktemp("cookies")
    payload = {
        "dataset": {"manifest_path": str(manifest)},
        "model": {"name": "pixel_stats"},
        "evaluation": {"bootstrap_resamples": 0, "pixel_metrics": False},
    }
    (folder / "config.json").write_text(json.dumps(payload), encoding="utf-8")
    config, run = str(folder / "config.json"), str(folder / "run")
    train = ["train", "--config", config, "--output", run, "--export-bundle"]
    assert main(train) == 0

    predictor = Predictor.open(folder / "run" / "bundle")
    pictures: Pictures = []
    for row in read_manifest(manifest):
        if row.split != "test":
            continue
        image = predictor.read(row.image_path)
        height, width = size = image.shape[:2]
        mask = read_mask(row.mask_path, size, predictor.rules, above=row.mask_above)
        if mask is None and row.label == 1:
            continue  # where the defect is, nobody has said
        anomaly_map = predictor.predict(image).anomaly_map
        assert anomaly_map is not None
        scores = map_to_image(anomaly_map, (height, width))
        pictures.append((scores, np.zeros(size, np.bool_) if mask is None else mask))
    threshold = predictor.settings.thresholds.pixel
    assert threshold is not None
    return Scored(pictures, threshold, _measure(pictures, threshold))


def _measure(pictures: Iterable[Any], threshold: float) -> dict[str, Any]:
    metrics = PixelMetrics(threshold)
    for scores, mask in pictures:
        metrics.add(scores, mask)
    return metrics.result().to_json()


def test_streamed_auroc_is_within_its_bound_of_scikit_learn_on_all_pixels(
    cookies: Scored,
) -> None:
    report = cookies.report
    exact = roc_auc_score(
        np.concatenate([mask.ravel() for _, mask in cookies.pictures]),
        np.concatenate([scores.ravel() for scores, _ in cookies.pictures]).astype(
            np.float64
        ),
    )
    bound = report["pixel_auroc_error_bound"]
    assert abs(report["pixel_auroc"] - exact) <= bound + ROUNDING
    assert bound < 1e-5  # measured 4e-7, with an error of 4e-11


def test_seg_f1_at_the_calibrated_threshold_is_exact(cookies: Scored) -> None:
    # 0 here: the calibrated threshold is 9.6, and no test pixel reaches 7.6.
    exact = seg_f1(cookies.pictures, cookies.threshold)
    assert cookies.report["seg_f1"] == exact


def test_seg_f1_is_exact_at_a_threshold_that_is_a_pixels_score(
    cookies: Scored,
) -> None:
    defect = np.concatenate([scores[mask] for scores, mask in cookies.pictures])
    threshold = float(np.sort(defect)[len(defect) // 2])
    exact = seg_f1(cookies.pictures, threshold)
    assert 0 < exact < 1
    assert _measure(cookies.pictures, threshold)["seg_f1"] == exact


def test_curves_are_within_their_bounds_of_brute_force_on_coarse_maps(
    cookies: Scored,
) -> None:
    coarse = [
        (scores[::COARSE, ::COARSE], mask[::COARSE, ::COARSE])
        for scores, mask in cookies.pictures
    ]
    report = _measure(coarse, cookies.threshold)
    exact = brute_force(coarse)
    for key in ("pixel_auroc", *AUPRO_LIMITS, "oracle_seg_f1"):
        bound = report[f"{key}_error_bound"]
        assert abs(report[key] - exact[key]) <= bound + ROUNDING, key
        assert bound < 1e-4, key  # measured 3e-6


def test_no_metric_of_real_maps_has_a_wide_bound(cookies: Scored) -> None:
    report = cookies.report
    for key in ("pixel_auroc", *AUPRO_LIMITS, "oracle_seg_f1"):
        assert 0 < report[key] < 1, key
        assert report[f"{key}_error_bound"] < 1e-5, key  # measured 2e-6
    # A threshold that saw no defect cannot beat the best one.
    bound = report["oracle_seg_f1_error_bound"]
    assert report["seg_f1"] <= report["oracle_seg_f1"] + bound
