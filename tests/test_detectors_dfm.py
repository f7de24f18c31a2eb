"""DFM's score against a reconstruction from the components, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyimgano.detectors import create_detector
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext
from pyimgano.detectors.principal_components import Moments

CHANNELS = 112  # of stage5
GRID = (8, 8)
OPTIONS = {"taps": ["stage5"], "image_size": [128, 128], "sigma_px": 0.0}


@pytest.fixture
def context(tmp_path: Path) -> FitContext:
    return FitContext(
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        workspace=tmp_path,
        progress=lambda step, done, total: None,
    )


def on_a_plane(count: int, seed: int, dims: int = 5) -> torch.Tensor:
    """(count, C, h, w) features in `dims` directions, with a little noise."""
    basis = torch.randn(dims, CHANNELS, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(count, *GRID, dims, generator=generator)
    noise = torch.randn(count, *GRID, CHANNELS, generator=generator)
    return (20 + weights @ basis + 0.01 * noise).permute(0, 3, 1, 2).contiguous()


def fitted(normals: torch.Tensor, context: FitContext, **options: Any) -> Any:
    detector = create_detector("dfm", OPTIONS | options)
    features = FeatureSet(normals.numpy(), np.arange(len(normals)))
    return detector.fit_features(features, context=context)


def rebuilt_error(
    normals: torch.Tensor, queries: torch.Tensor, components: int
) -> torch.Tensor:
    """(N, h, w) |x - mean - P P^T (x - mean)|, from a singular value decomposition."""
    patches = normals.double().permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    mean = patches.mean(dim=0)
    axes = torch.linalg.svd(patches - mean, full_matrices=False).Vh[:components].T
    centred = queries.double().permute(0, 2, 3, 1) - mean  # (N, h, w, C)
    error = centred - centred @ axes @ axes.T
    return error.square().sum(dim=3).sqrt().float()


@pytest.mark.parametrize("components", [3, 5, 60])
def test_the_score_is_the_largest_reconstruction_error(
    components: int, context: FitContext
) -> None:
    normals, queries = on_a_plane(4, 1), on_a_plane(3, 2)
    detector = fitted(normals, context, n_components=components)
    found, anomaly_map = detector.score_features(queries)
    error = rebuilt_error(normals, queries, components)
    expected = detector.map_output(error)
    torch.testing.assert_close(anomaly_map, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, expected.amax(dim=(1, 2)), rtol=1e-4, atol=1e-5)


def test_retained_variance_keeps_the_fewest_components_that_reach_it(
    context: FitContext,
) -> None:
    normals = on_a_plane(6, 1)
    patches = normals.double().permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    variances = torch.linalg.svdvals(patches - patches.mean(dim=0)).square()
    for share in (0.3, 0.7, 0.99):
        reached = variances.cumsum(dim=0) / variances.sum() >= share
        kept = int(reached.nonzero()[0]) + 1
        detector = fitted(normals, context, retained_variance=share)
        assert detector.unused_axes.shape == (CHANNELS, CHANNELS - kept)


def test_a_patch_off_the_plane_scores_its_distance_from_it(context: FitContext) -> None:
    normals = on_a_plane(6, 1)
    detector = fitted(normals, context, n_components=5)
    strange = on_a_plane(1, 2)
    off = detector.unused_axes[:, 0]  # of length one, orthogonal to the plane
    strange[0, :, 3, 4] += 50 * off
    scores, anomaly_map = detector.score_features(strange)
    # No pixel of the map lies in the middle of a patch: the nearest is 1/32 away.
    assert scores[0] == pytest.approx(50 * (31 / 32) ** 2, rel=0.01)
    row, column = divmod(int(anomaly_map[0].argmax()), anomaly_map.shape[2])
    assert (row // 16, column // 16) == (3, 4)


def test_one_axis_is_left_where_all_components_are_asked(context: FitContext) -> None:
    detector = fitted(on_a_plane(3, 1), context, n_components=CHANNELS)
    assert detector.unused_axes.shape == (CHANNELS, 1)


def test_moments_in_batches_keep_their_digits_far_from_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    points = 1e4 + torch.randn(1000, 6, generator=generator)
    moments = Moments()
    for chunk in torch.split(points, 130):
        moments.update(chunk)
    expected = torch.cov(points.double().T, correction=0)
    torch.testing.assert_close(moments.covariance, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moments.mean, points.double().mean(dim=0))
    variances, axes = moments.axes()
    assert (variances.diff() <= 0).all()
    rebuilt = axes @ torch.diag(variances) @ axes.T
    torch.testing.assert_close(rebuilt, expected, rtol=1e-9, atol=1e-9)
