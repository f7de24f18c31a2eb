"""The low-rank Gaussian equals the dense Gaussian that it stands for."""

import pytest
import torch
from torch import Tensor

from pyimgano.detectors.gaussian import PositionGaussian, PositionMoments

GRID = (4, 5)
CHANNELS = 12
# float32 forward against float64 with the dense covariance, relative.
# Measured on these data: 4e-7; on the ill-conditioned ones 2.3e-6.
FLOAT32_TOLERANCE = 1e-5
# float32 moments, one pass in uneven batches against one batch. Measured: 5e-7.
STREAM_TOLERANCE = 1e-5


def feature_maps(
    n_images: int, *, seed: int = 0, condition: float = 100.0, channels: int = CHANNELS
) -> Tensor:
    """Correlated channels, and positions that differ in mean and in spread."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -0.5, channels) ** torch.log10(torch.tensor(condition))
    mix = torch.linalg.qr(torch.randn(channels, channels, generator=generator)).Q
    place = 1 + 3 * torch.rand(channels, *GRID, generator=generator)
    mean = 20 + 5 * torch.randn(channels, *GRID, generator=generator)
    images = torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(n_images, channels, *GRID, generator=images) * place
    return torch.einsum("dc,nchw->ndhw", mix * scale, noise) + mean


def moments_of(features: Tensor, *, batch_size: int | None = None) -> PositionMoments:
    moments = PositionMoments.empty(features.shape[1], GRID)
    for batch in torch.split(features, batch_size or len(features)):
        moments.update(batch)
    return moments


def brute_force(features: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """(x - mean)^T covariance^-1 (x - mean), position by position, in float64."""
    points = features.double().flatten(2).permute(2, 1, 0)  # (P, C, N)
    centred = points - mean.double()[:, :, None]
    solved: Tensor = torch.linalg.solve(covariance, centred)  # (P, C, N)
    squared = (centred * solved).sum(dim=1)  # (P, N)
    return squared.T.reshape(len(features), *GRID)


def largest_relative_error(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected) / expected).abs().max())


@pytest.mark.parametrize("rank", [0, 1, 5, CHANNELS])
def test_distance_equals_mahalanobis_with_the_dense_covariance(rank: int) -> None:
    moments = moments_of(feature_maps(60))
    gaussian = PositionGaussian.fit(moments, rank=rank)
    features = feature_maps(9, seed=7)
    expected = brute_force(features, moments.mean, gaussian.dense_covariance())
    error = largest_relative_error(gaussian(features).double(), expected)
    assert error < FLOAT32_TOLERANCE


def test_float32_keeps_its_accuracy_when_the_covariance_is_ill_conditioned() -> None:
    train = feature_maps(80, condition=1e5)
    moments = moments_of(train)
    gaussian = PositionGaussian.fit(moments, rank=6)
    expected = brute_force(train, moments.mean, gaussian.dense_covariance())
    error = largest_relative_error(gaussian(train).double(), expected)
    assert error < FLOAT32_TOLERANCE


def test_full_rank_is_pooled_and_own_covariance_where_a_position_varies_more() -> None:
    """Eigenvalues below the pooled covariance are raised to it, the rest are exact."""
    moments = moments_of(feature_maps(60))
    prior = 10.0
    gaussian = PositionGaussian.fit(moments, rank=CHANNELS, prior_images=prior)

    scatter = moments.scatter.double()
    pooled = scatter.mean(dim=0) / 59
    root = torch.linalg.cholesky(pooled)
    white = torch.linalg.solve(root, torch.linalg.solve(root, scatter).mT)
    eye = torch.eye(CHANNELS, dtype=torch.float64)
    values, vectors = torch.linalg.eigh((white + prior * eye) / (59 + prior))
    clipped = vectors @ (values.clamp_min(1.0)[:, :, None] * vectors.mT)
    expected = root @ clipped @ root.T
    torch.testing.assert_close(
        gaussian.dense_covariance(), expected, rtol=1e-4, atol=1e-4
    )


def test_rank_0_is_the_pooled_covariance_everywhere() -> None:
    moments = moments_of(feature_maps(60))
    dense = PositionGaussian.fit(moments, rank=0).dense_covariance()
    pooled = moments.scatter.double().mean(dim=0) / 59
    torch.testing.assert_close(dense, pooled.expand_as(dense), rtol=1e-4, atol=1e-4)


def test_batches_of_any_size_give_the_same_moments() -> None:
    features = feature_maps(23)
    whole, streamed = moments_of(features), moments_of(features, batch_size=4)
    assert streamed.n_images == whole.n_images == 23
    torch.testing.assert_close(streamed.mean, whole.mean, rtol=STREAM_TOLERANCE, atol=0)
    torch.testing.assert_close(
        streamed.scatter, whole.scatter, rtol=STREAM_TOLERANCE, atol=1e-3
    )


def test_merged_moments_equal_those_of_all_images() -> None:
    features = feature_maps(23)
    merged = moments_of(features[:9])
    merged.merge(moments_of(features[9:]))
    merged.merge(PositionMoments.empty(CHANNELS, GRID))
    whole = moments_of(features)
    assert merged.n_images == 23
    torch.testing.assert_close(
        merged.scatter, whole.scatter, rtol=STREAM_TOLERANCE, atol=1e-3
    )


def test_moments_equal_mean_and_scatter_computed_directly() -> None:
    features = feature_maps(15)
    moments = moments_of(features, batch_size=2)
    points = features.double().flatten(2).permute(2, 0, 1)  # (P, N, C)
    centred = points - points.mean(dim=1, keepdim=True)
    scatter = centred.mT @ centred
    torch.testing.assert_close(moments.scatter.double(), scatter, rtol=1e-4, atol=1e-2)


def test_an_empty_batch_changes_nothing() -> None:
    moments = moments_of(feature_maps(5))
    before = moments.scatter.clone()
    moments.update(torch.zeros(0, CHANNELS, *GRID))
    assert moments.n_images == 5
    assert torch.equal(moments.scatter, before)


@pytest.mark.parametrize("n_images", [1, 2, 3, 5])
def test_fewer_images_than_channels_still_score(n_images: int) -> None:
    moments = moments_of(feature_maps(n_images))
    gaussian = PositionGaussian.fit(moments, rank=8)
    usual = gaussian(feature_maps(40, seed=0))
    odd = gaussian(feature_maps(40, seed=0) + 30.0)
    assert bool(torch.isfinite(usual).all())
    assert float(odd.min()) > float(usual.median())


def test_held_out_normals_score_about_one_per_channel() -> None:
    features = feature_maps(400)
    gaussian = PositionGaussian.fit(moments_of(features[:300]), rank=4)
    per_channel = float(gaussian(features[300:]).mean()) / CHANNELS
    assert 0.7 < per_channel < 1.3


def test_features_without_any_variance_score_finitely() -> None:
    constant = torch.ones(6, CHANNELS, *GRID)
    gaussian = PositionGaussian.fit(moments_of(constant), rank=4)
    assert float(gaussian(constant).max()) == 0.0
    assert bool(torch.isfinite(gaussian(constant + 1)).all())


def test_a_dead_channel_does_not_drown_the_others() -> None:
    features = feature_maps(60)
    features[:, 3] = 0.0
    gaussian = PositionGaussian.fit(moments_of(features), rank=4)
    assert float(gaussian(features).mean()) < 2 * CHANNELS


def test_distances_are_never_negative() -> None:
    features = feature_maps(30)
    moments = moments_of(features)
    gaussian = PositionGaussian.fit(moments, rank=8)
    at_the_mean = moments.mean.T.reshape(1, CHANNELS, *GRID)
    assert float(gaussian(at_the_mean).min()) >= 0.0


def test_an_image_scores_the_same_alone_and_in_a_batch() -> None:
    features = feature_maps(30)
    gaussian = PositionGaussian.fit(moments_of(features), rank=8)
    alone = torch.cat([gaussian(image[None]) for image in features[:5]])
    torch.testing.assert_close(alone, gaussian(features[:5]), rtol=1e-5, atol=1e-5)


def test_fit_is_deterministic() -> None:
    moments = moments_of(feature_maps(30))
    first, second = (PositionGaussian.fit(moments, rank=8) for _ in range(2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_state_can_be_loaded_into_an_unfitted_gaussian() -> None:
    fitted = PositionGaussian.fit(moments_of(feature_maps(30)), rank=8)
    loaded = PositionGaussian(channels=CHANNELS, grid=GRID, rank=8)
    loaded.load_state_dict(fitted.state_dict())
    features = feature_maps(3, seed=5)
    assert torch.equal(loaded(features), fitted(features))


def test_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="found 0 images"):
        PositionGaussian.fit(PositionMoments.empty(CHANNELS, GRID))


def test_a_rank_above_the_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="rank: found 13"):
        PositionGaussian.fit(moments_of(feature_maps(5)), rank=CHANNELS + 1)


def test_features_of_another_shape_are_refused() -> None:
    moments = PositionMoments.empty(CHANNELS, GRID)
    with pytest.raises(ValueError, match="expected \\(12, 4, 5\\)"):
        moments.update(torch.zeros(2, CHANNELS, 5, 4))
