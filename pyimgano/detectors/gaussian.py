"""One Gaussian per position of a feature map, small enough to travel in a bundle.

PaDiM (Defard et al. 2021, section III-B) keeps a full covariance per position: C x C
numbers at each of h x w places, 95 MB at 152 channels and 32 x 32 positions. Here the
covariance of position p is

    Sigma_p = W^-1 (I + U_p diag(lambda_p - 1) U_p^T) W^-T

W whitens the covariance within positions, pooled over all of them (one C x C matrix:
how features vary anywhere on the part), and U_p, lambda_p are the `rank` directions in
which position p varies more than that. Read as a model, whitened features at p are

    W (x - mu_p) = U_p diag(lambda_p - 1)^(1/2) s + e,   s ~ N(0, I_rank), e ~ N(0, I_C)

factor analysis (Tipping & Bishop 1999, section 3) with the noise shared by the part.
The spread of a position is estimated from its n images and `prior_images` imagined ones
that vary as the pooled covariance says (the posterior of an inverse-Wishart prior), so
31 images do as well as 3,000: fewer data mean nearer to the pooled covariance.

Everything is fitted with symmetric eigenvalues in float64; the scoring is one 1x1
convolution, one matrix product and squares, without a matrix inverse in the graph.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

# Eigenvalues of the pooled covariance below this fraction of the largest are raised to
# it: channels that never vary (a dead ReLU) would otherwise score rounding noise.
RELATIVE_FLOOR = 1e-5
# For features without any variance at all: a finite score instead of a division by 0.
ABSOLUTE_FLOOR = 1e-12
CHUNK_POSITIONS = 64  # positions decomposed at once; bounds memory, not the result


@dataclass(slots=True)
class PositionMoments:
    """Count, mean and scatter of the features at each position, one pass, mergeable.

    The pairwise update of Chan, Golub & LeVeque (1983), eq. 1.5: no cancellation of
    large raw second moments, so float32 is enough. Memory is h * w * C * (C + 1)
    floats, whatever the number of images.
    """

    n_images: int
    mean: Tensor  # (P, C)
    scatter: Tensor  # (P, C, C) sum over images of (x - mean)(x - mean)^T
    grid: tuple[int, int]  # (h, w), P = h * w

    @classmethod
    def empty(
        cls,
        channels: int,
        grid: tuple[int, int],
        *,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Moments of no image yet."""
        n_positions = grid[0] * grid[1]
        return cls(
            n_images=0,
            mean=torch.zeros(n_positions, channels, device=device),
            scatter=torch.zeros(n_positions, channels, channels, device=device),
            grid=grid,
        )

    def update(self, features: Tensor) -> None:
        """Add a batch of feature maps (N, C, h, w); an empty batch changes nothing."""
        n_new, channels, height, width = features.shape
        if (channels, height, width) != (self.mean.shape[1], *self.grid):
            raise ValueError(
                f"features: found (C, h, w) = {(channels, height, width)}, "
                f"expected {(self.mean.shape[1], *self.grid)}"
            )
        if n_new == 0:
            return
        points = features.float().flatten(2).permute(2, 0, 1)  # (P, N, C)
        mean = points.mean(dim=1)  # (P, C)
        centred = points - mean[:, None]  # (P, N, C)
        self._combine(n_new, mean)
        self.scatter.baddbmm_(centred.transpose(1, 2), centred)

    def merge(self, other: Self) -> None:
        """Add the images of `other`, seen elsewhere (another fold, another process)."""
        if other.grid != self.grid or other.mean.shape != self.mean.shape:
            raise ValueError(
                f"moments: found {tuple(other.mean.shape)} on grid {other.grid}, "
                f"expected {tuple(self.mean.shape)} on grid {self.grid}"
            )
        if other.n_images == 0:
            return
        self._combine(other.n_images, other.mean)
        self.scatter += other.scatter

    def _combine(self, n_new: int, mean: Tensor) -> None:
        """Move count and mean; add the scatter between the old and the new mean."""
        total = self.n_images + n_new
        step = mean - self.mean  # (P, C)
        weight = self.n_images * n_new / total
        self.scatter.baddbmm_(step[:, :, None], step[:, None, :], alpha=weight)
        self.mean += step * (n_new / total)
        self.n_images = total


class PositionGaussian(nn.Module):
    """Squared Mahalanobis distance of each feature to the Gaussian of its position.

    forward: features (N, C, h, w) -> squared distance (N, h, w), >= 0; for a normal
    image its mean is about C. Size in bytes: 4 * (h * w * C * (rank + 1) + C * C).

    float32 against a float64 reference with the dense covariance: relative error below
    1e-5 for condition numbers up to 1e5 (held by `tests/test_detectors_gaussian.py`).
    """

    whitener: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(self, *, channels: int, grid: tuple[int, int], rank: int) -> None:
        """An unfitted Gaussian (the standard normal everywhere) of the given shape."""
        super().__init__()
        if not 0 <= rank <= channels:
            raise ValueError(f"rank: found {rank}, expected 0 to {channels}")
        n_positions = grid[0] * grid[1]
        self.grid = grid
        self.register_buffer("whitener", torch.eye(channels))  # (C, C) W
        self.register_buffer("mean", torch.zeros(channels, *grid))  # (C, h, w) mu_p
        self.register_buffer("factor", torch.zeros(n_positions, channels, rank))

    @classmethod
    def fit(
        cls, moments: PositionMoments, *, rank: int = 16, prior_images: float = 16.0
    ) -> Self:
        """The Gaussian of each position, from the moments of at least one image.

        Args:
            moments: of the normal images.
            rank: directions kept per position beyond the pooled covariance.
            prior_images: weight, in images, of the pooled covariance at each position.

        Raises:
            ValueError: no image, a rank outside 0..C, or a negative prior.
        """
        if moments.n_images < 1:
            raise ValueError("moments: found 0 images, expected at least 1")
        if prior_images < 0:
            raise ValueError(f"prior_images: found {prior_images}, expected >= 0")
        channels = moments.mean.shape[1]
        gaussian = cls(channels=channels, grid=moments.grid, rank=rank)
        gaussian = gaussian.to(moments.mean.device)

        whitener = _whitener(_pooled_covariance(moments))  # (C, C) float64
        gaussian.whitener.copy_(whitener)
        gaussian.mean.copy_(moments.mean.T.reshape(channels, *moments.grid))
        if rank > 0:
            gaussian.factor.copy_(
                _factor(moments, whitener, rank=rank, prior_images=prior_images)
            )
        return gaussian

    def forward(self, features: Tensor) -> Tensor:
        """Squared Mahalanobis distance (N, h, w) of features (N, C, h, w)."""
        kernel = self.whitener[:, :, None, None]  # (C, C, 1, 1)
        # Centred first: rounding is then relative to the deviation, not to the feature.
        white = nn.functional.conv2d(features - self.mean, kernel)  # (N, C, h, w)
        points = white.flatten(2).permute(2, 0, 1)  # (P, N, C)
        # Woodbury: (I + U diag(lambda - 1) U^T)^-1 = I - G G^T. G lies as (P, C, r) for
        # the vector kernel of onnxruntime (one image: 1.1 ms; as (P, r, C) 6 ms).
        explained = torch.matmul(points, self.factor)  # (P, N, r)
        squared = points.square().sum(dim=2) - explained.square().sum(dim=2)  # (P, N)
        return squared.clamp_min(0.0).T.reshape(-1, *self.grid)  # (N, h, w)

    def whitened(self, features: Tensor) -> Tensor:
        """Give (N, C, h, w) features that vary alike everywhere: normals by N(0, I).

        Their squared length is what `forward` gives.
        """
        kernel = self.whitener[:, :, None, None]  # (C, C, 1, 1)
        white = nn.functional.conv2d(features - self.mean, kernel)  # (N, C, h, w)
        points = white.flatten(2).permute(2, 0, 1)  # (P, N, C)
        # The columns of G have the length (1 - 1 / lambda)^(1/2); what they explain is
        # shrunk by lambda^(-1/2).
        squared = self.factor.square().sum(dim=1, keepdim=True)  # (P, 1, r)
        share = 1 / (1 + (1 - squared).clamp_min(0).sqrt())  # (P, 1, r)
        explained = torch.matmul(points, self.factor) * share  # (P, N, r)
        points = points - torch.matmul(explained, self.factor.transpose(1, 2))
        return points.permute(1, 2, 0).reshape(white.shape)

    def dense_covariance(self) -> Tensor:
        """The covariance (P, C, C) in float64 that the stored form stands for."""
        whitener = self.whitener.double()
        eye = torch.eye(whitener.shape[0], dtype=torch.float64, device=whitener.device)
        factor = self.factor.double()  # (P, C, r)
        inner = eye - factor @ factor.transpose(1, 2)  # (P, C, C)
        precision = whitener.T @ inner @ whitener  # (P, C, C)
        return torch.cholesky_inverse(torch.linalg.cholesky(precision))


def _pooled_covariance(moments: PositionMoments) -> Tensor:
    """Covariance (C, C) in float64 within positions, averaged over all of them.

    One image has no spread within a position; the spread between positions stands in.
    """
    n_positions = moments.mean.shape[0]
    if moments.n_images == 1:
        mean = moments.mean.double()  # (P, C)
        centred = mean - mean.mean(dim=0)
        return centred.T @ centred / n_positions
    scatter = moments.scatter.sum(dim=0, dtype=torch.float64)  # (C, C)
    return scatter / (n_positions * (moments.n_images - 1))


def _whitener(covariance: Tensor) -> Tensor:
    """W (C, C) with W covariance W^T = I, small eigenvalues raised to a floor."""
    values, vectors = torch.linalg.eigh(covariance)  # (C,), (C, C)
    floor = max(RELATIVE_FLOOR * float(values[-1]), ABSOLUTE_FLOOR)
    scaled: Tensor = vectors / values.clamp_min(floor).sqrt()
    return scaled.T


def _factor(
    moments: PositionMoments, whitener: Tensor, *, rank: int, prior_images: float
) -> Tensor:
    """G (P, C, rank) with (I + U diag(lambda - 1) U^T)^-1 = I - G G^T."""
    weight = max(moments.n_images - 1 + prior_images, 1.0)

    def factor_of(scatter: Tensor) -> Tensor:
        white = whitener @ scatter.double() @ whitener.T  # (K, C, C)
        values, vectors = torch.linalg.eigh(white)  # ascending
        top = vectors[:, :, -rank:]  # (K, C, r) U_p
        spread = (values[:, -rank:] + prior_images) / weight  # (K, r)
        gain = 1 - spread.clamp_min(1.0).reciprocal()  # (K, r) 1 - 1 / lambda
        factor: Tensor = top * gain.sqrt()[:, None, :]
        return factor

    chunks = torch.split(moments.scatter, CHUNK_POSITIONS)  # (K, C, C) each
    # LAPACK decomposes one small matrix after the other; several threads inside of one
    # of them only wait for each other (256 matrices: 0.8 s by one thread, 3 to 12 s by
    # two on a busy machine). So each thread takes chunks of its own.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return torch.cat(list(pool.map(factor_of, chunks)))
    finally:
        torch.set_num_threads(threads)
