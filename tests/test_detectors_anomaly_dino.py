"""AnomalyDINO's distances and score against the paper's formulas, written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pyimgano.detectors import create_detector
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext
from pyimgano_runtime.errors import ConfigError

TINY = {"backbone": "dino_vit_tiny", "image_size": [210, 280]}
GRID = (15, 20)


@pytest.fixture
def context(tmp_path: Path) -> FitContext:
    return FitContext(
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        workspace=tmp_path,
        progress=lambda step, done, total: None,
    )


# The bank is rounded to 16 bits, 11 of them digits.
ROUNDED: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}


def patches(count: int, seed: int) -> torch.Tensor:
    """(count, 64, h, w) of length one."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 64, *GRID, generator=generator), dim=1)


def fitted(normals: torch.Tensor, context: FitContext, **options: Any) -> Any:
    detector = create_detector("anomaly_dino", TINY | options)
    features = FeatureSet(normals.numpy(), np.arange(len(normals)))
    return detector.fit_features(features, context=context)


def cosine_distances(queries: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """(N, h*w) smallest 1 - cos."""
    bank = normals.double().permute(0, 2, 3, 1).reshape(-1, 64)
    each = queries.double().permute(0, 2, 3, 1).reshape(len(queries), -1, 64)
    return (1 - each @ bank.T).amin(dim=2)


@pytest.mark.parametrize(("share", "n_highest"), [(0.0, 1), (0.01, 3), (0.5, 150)])
def test_the_score_is_the_mean_of_the_most_distant_patches(
    share: float, n_highest: int, context: FitContext
) -> None:
    normals, queries = patches(2, 1), patches(3, 2)
    detector = fitted(normals, context, score_share=share)
    found, _ = detector.score_features(queries)
    distances = cosine_distances(queries, normals).sort(dim=1, descending=True).values
    expected = distances[:, :n_highest].mean(dim=1).float()
    torch.testing.assert_close(found, expected, **ROUNDED)


def test_the_map_is_the_distances_and_may_exceed_the_score(context: FitContext) -> None:
    normals, queries = patches(2, 1), patches(3, 2)
    detector = fitted(normals, context, sigma_px=0.0)
    scores, anomaly_map = detector.score_features(queries)
    distances = cosine_distances(queries, normals).float().reshape(3, *GRID)
    expected = F.interpolate(distances[:, None], (210, 280), mode="bilinear")[:, 0]
    torch.testing.assert_close(anomaly_map, expected, **ROUNDED)
    assert (anomaly_map.amax(dim=(1, 2)) > scores).any()


def test_a_picture_of_the_bank_scores_nothing(context: FitContext) -> None:
    normals = patches(2, 1)
    scores, _ = fitted(normals, context).score_features(normals)
    assert scores.max() < 1e-6  # what is left of the bank's rounding


def test_all_patches_are_kept_up_to_the_bank_size(context: FitContext) -> None:
    normals = patches(2, 1)
    kept = fitted(normals, context).bank
    assert kept.shape == (600, 64)
    thinned = fitted(normals, context, bank_size=50).bank
    assert thinned.shape == (50, 64)
    assert all((kept == row).all(dim=1).any() for row in thinned)


def test_features_have_length_one() -> None:
    detector = create_detector("anomaly_dino", TINY)
    images = torch.zeros(1, 30, 30, 3, dtype=torch.uint8)
    length = detector.features(images).square().sum(dim=1).sqrt()
    assert length.shape == (1, *GRID)
    torch.testing.assert_close(length, torch.ones_like(length))


def test_a_size_that_cuts_patches_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"multiples of 14.*take \[252, 322\]"):
        create_detector("anomaly_dino", TINY | {"image_size": [256, 320]})


def test_taps_of_several_strides_are_refused() -> None:
    options = {
        "backbone": "efficientnet_lite0",
        "taps": ["stage3", "stage5"],
        "image_size": [64, 64],
    }
    with pytest.raises(ConfigError, match=r"strides \[8, 16\], expected one"):
        create_detector("anomaly_dino", options)


def test_without_weights_the_default_says_where_to_get_them() -> None:
    with pytest.raises(ConfigError, match=r"weights_file.*timm:vit_small_patch14"):
        create_detector("anomaly_dino")
