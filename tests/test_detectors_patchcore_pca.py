"""PatchCore's optional projection: distances in the space of the components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyimgano.detectors import create_detector
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext
from pyimgano.detectors.nearest_neighbour import k_nearest, nearest
from pyimgano_exporters.onnx_graph import export_graph
from pyimgano_runtime.errors import ConfigError

CHANNELS = 112  # of stage5
GRID = (8, 8)
OPTIONS = {
    "backbone": "efficientnet_lite0",
    "taps": ["stage5"],
    "image_size": [128, 128],
    "sigma_px": 0.0,
}


@pytest.fixture
def context(tmp_path: Path) -> FitContext:
    return FitContext(
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        workspace=tmp_path,
        progress=lambda step, done, total: None,
    )


def features(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(2, 0.1, CHANNELS)[:, None, None]
    return 5 + torch.randn(count, CHANNELS, *GRID, generator=generator) * spread


def fitted(normals: torch.Tensor, context: FitContext, **options: Any) -> Any:
    detector = create_detector("patchcore", OPTIONS | options)
    values = FeatureSet(normals.numpy(), np.arange(len(normals)))
    return detector.fit_features(values, context=context)


def rows(maps: torch.Tensor) -> torch.Tensor:
    return maps.double().permute(0, 2, 3, 1).reshape(-1, CHANNELS)


def test_distances_are_those_between_projected_patches(context: FitContext) -> None:
    normals, queries = features(4, 1), features(2, 2)
    detector = fitted(normals, context, pca_dims=10, bank_size=5000)
    _, anomaly_map = detector.score_features(queries)

    mean = rows(normals).mean(dim=0)
    axes = torch.linalg.svd(rows(normals) - mean, full_matrices=False).Vh[:10].T
    projected = (rows(queries) - mean) @ axes
    bank = (rows(normals) - mean) @ axes
    distance = torch.cdist(projected, bank).amin(dim=1).float().reshape(2, *GRID)
    expected = detector.map_output(distance)
    # The bank is rounded to 16 bits, 11 of them digits.
    torch.testing.assert_close(anomaly_map, expected, rtol=1e-3, atol=1e-4)
    assert detector.bank.shape == (256, 10)


def test_all_components_give_the_distances_without_projection(
    context: FitContext,
) -> None:
    normals, queries = features(4, 1), features(2, 2)
    whole = fitted(normals, context, pca_dims=CHANNELS, bank_size=5000)
    plain = fitted(normals, context, bank_size=5000)
    torch.testing.assert_close(
        whole.score_features(queries)[0],
        plain.score_features(queries)[0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_projected_bank_makes_a_smaller_graph(context: FitContext) -> None:
    normals = features(8, 1)
    small = export_graph(fitted(normals, context, pca_dims=10, bank_size=500).eval())
    plain = export_graph(fitted(normals, context, bank_size=500).eval())
    # Banks are stored in 16 bits, the projection is not.
    saved = 2 * (500 * CHANNELS - 500 * 10) - 4 * CHANNELS * 10
    # Not all of it: the exporter may keep a small bank a second time, transposed.
    assert len(plain) - len(small) > 0.7 * saved


def test_more_components_than_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="pca_dims is 113, expected at most 112"):
        create_detector("patchcore", OPTIONS | {"pca_dims": 113})


def test_nearest_agrees_with_all_distances_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(300, 20, generator=generator)
    queries = torch.cat([torch.randn(40, 20, generator=generator), bank[:5]])
    distances = torch.cdist(queries.double(), bank.double())
    squared, row = nearest(queries, bank)
    assert torch.equal(row, distances.argmin(dim=1))
    expected = distances.amin(dim=1).square().float()
    torch.testing.assert_close(squared, expected, rtol=1e-5, atol=0.0)
    assert (squared[-5:] == 0).all()
    several = k_nearest(queries, bank, 7).sort(dim=1).values
    expected = distances.sort(dim=1).values[:, :7].square().float()
    torch.testing.assert_close(several, expected, rtol=1e-5, atol=1e-12)
