"""knn's score against the distances written out, and what its options change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyimgano.detectors import create_detector
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext

CHANNELS = 304  # of stage5 and stage6


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


def vectors(count: int, seed: int) -> torch.Tensor:
    """(count, C), channels of very different spread."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.01, 5, CHANNELS)
    return 3 + torch.randn(count, CHANNELS, generator=generator) * spread


def fitted(normals: torch.Tensor, context: FitContext, **options: Any) -> Any:
    detector = create_detector("knn", options)
    values = normals[:, :, None, None].numpy()
    features = FeatureSet(values, np.arange(len(values)))
    return detector.fit_features(features, context=context)


def scores(detector: Any, queries: torch.Tensor) -> torch.Tensor:
    found, anomaly_map = detector.score_features(queries[:, :, None, None])
    assert anomaly_map is None
    return found


def mean_of_nearest(queries: torch.Tensor, bank: torch.Tensor, k: int) -> torch.Tensor:
    """The score of Bergman et al. 2020, in float64."""
    distances = torch.cdist(queries.double(), bank.double())
    return distances.sort(dim=1).values[:, :k].mean(dim=1).float()


def test_the_score_is_the_mean_distance_to_the_k_nearest(context: FitContext) -> None:
    normals, queries = vectors(20, 1), vectors(6, 2)
    detector = fitted(normals, context, standardize=False, neighbours=4)
    expected = mean_of_nearest(queries, normals, 4)
    torch.testing.assert_close(scores(detector, queries), expected, **ROUNDED)


def test_standardized_channels_weigh_alike(context: FitContext) -> None:
    normals, queries = vectors(400, 1), vectors(6, 2)
    detector = fitted(normals, context, neighbours=2)
    spread = normals.double().var(dim=0, correction=0)
    spread = ((400 * spread + 4 * spread.mean()) / 404).sqrt()
    expected = mean_of_nearest(queries / spread, normals / spread, 2)
    torch.testing.assert_close(scores(detector, queries), expected, **ROUNDED)


def test_vectors_of_unit_length_ignore_their_scale(context: FitContext) -> None:
    normals, queries = vectors(20, 1), vectors(6, 2)
    detector = fitted(normals, context, unit_length=True)
    torch.testing.assert_close(
        scores(detector, queries), scores(detector, 7 * queries), rtol=1e-4, atol=1e-5
    )
    plain = fitted(normals, context)
    assert not torch.allclose(scores(plain, queries), scores(plain, 7 * queries))


def test_fewer_normals_than_neighbours_are_all_used(context: FitContext) -> None:
    normals, queries = vectors(2, 1), vectors(3, 2)
    detector = fitted(normals, context, standardize=False, neighbours=9)
    expected = mean_of_nearest(queries, normals, 2)
    torch.testing.assert_close(scores(detector, queries), expected, **ROUNDED)


def test_a_large_set_is_sampled_down_to_the_bank_size(context: FitContext) -> None:
    detector = fitted(vectors(50, 1), context, bank_size=30)
    assert detector.bank.shape == (30, CHANNELS)


@pytest.mark.parametrize(
    ("pooling", "channels"), [("max", 304), ("mean", 304), ("mean_max", 608)]
)
def test_pooling_keeps_what_it_says(pooling: str, channels: int) -> None:
    options = {"image_size": [64, 96], "pooling": pooling}
    detector = create_detector("knn", options)
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(
        0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=generator
    )
    with torch.inference_mode():
        features = detector.features(images)
        level = detector.backbone(detector.pixels(images))[0]  # stage5
    assert features.shape == (2, channels, 1, 1)
    first = features[:, :112, 0, 0]
    flat = level.reshape(2, 112, -1)
    expected = flat.max(dim=2).values if pooling == "max" else flat.mean(dim=2)
    torch.testing.assert_close(first, expected)
