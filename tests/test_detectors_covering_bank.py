"""A bank out of a sample covers all patches about as well as one out of all."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pyimgano.detectors.coreset import coverage_radius, greedy_coreset
from pyimgano.detectors.covering_bank import FarFrom, covering_bank, patches_of
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.nearest_neighbour import sampled_patches

# The budget of the design.
LARGEST_RATIO = 1.05
N_PICKS = 120


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 40, *, seed: int = 0) -> FeatureSet:
    """Draw pictures of 10 x 10 patches: a common surface, and rare patches far off."""
    generator = seeded(seed)
    surface = torch.randn(n, 8, 10, 10, generator=generator)
    rare = torch.rand(n, 1, 10, 10, generator=generator) < 0.01
    far = 8 * torch.randn(n, 8, 10, 10, generator=generator)
    values = torch.where(rare, far, surface) + 50  # far from the origin
    return FeatureSet(values.numpy(), np.arange(n))


def bank_of(features: FeatureSet, limit: int, n_picks: int = N_PICKS) -> Tensor:
    sample = sampled_patches(features, limit, generator=seeded(1))
    return covering_bank(
        features,
        sample,
        n_picks,
        place=lambda patches: patches,
        generator=seeded(2),
    )


def everything(features: FeatureSet) -> Tensor:
    return torch.cat(list(patches_of(features)))


def radius(patches: Tensor, bank: Tensor) -> float:
    return float(torch.cdist(patches.double(), bank.double()).amin(dim=1).max())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_quarter_of_the_patches_in_memory_covers_all_of_them(seed: int) -> None:
    features = pictures(seed=seed)
    patches = everything(features)
    exact = coverage_radius(
        patches, greedy_coreset(patches, N_PICKS, generator=seeded(2))
    )
    ratio = radius(patches, bank_of(features, 1000)) / exact
    assert ratio <= LARGEST_RATIO


def test_the_sample_alone_would_not_cover_them() -> None:
    features = pictures()
    patches = everything(features)
    sample = sampled_patches(features, 1000, generator=seeded(1))
    alone = sample[greedy_coreset(sample, N_PICKS, generator=seeded(2))]
    assert radius(patches, alone) > 1.2 * radius(patches, bank_of(features, 1000))


def test_the_bank_of_all_patches_is_their_greedy_coreset() -> None:
    features = pictures(10)
    patches = everything(features)
    picks = greedy_coreset(patches, N_PICKS, generator=seeded(2))
    chosen = {tuple(patch) for patch in patches[picks].tolist()}
    assert {tuple(patch) for patch in bank_of(features, 1000).tolist()} == chosen


def test_every_vector_of_the_bank_is_a_patch() -> None:
    features = pictures()
    distances = torch.cdist(
        bank_of(features, 1000).double(), everything(features).double()
    )
    # The mean is taken off and added again: float32 at 50 has steps of 4e-6.
    assert float(distances.amin(dim=1).max()) < 1e-4


def test_the_same_seed_gives_the_same_bank() -> None:
    features = pictures()
    assert torch.equal(bank_of(features, 1000), bank_of(features, 1000))


@pytest.mark.parametrize("limit", [7, 90, 10_000])
def test_of_what_is_far_the_farthest_are_held(limit: int) -> None:
    features = pictures()
    patches = everything(features)
    picks = patches[greedy_coreset(patches, 100, generator=seeded())]
    nearest = torch.cdist(patches.double(), picks.double()).amin(dim=1)
    distance = 2.0
    n_far = int((nearest >= distance).sum())
    assert n_far > 90
    search = FarFrom.picks(picks, patches[:2000], squared=distance**2)
    points, bounds = search.farthest(patches_of(features), limit=limit)
    assert len(points) == len(bounds) == min(limit, n_far)
    expected = nearest.topk(len(bounds)).values.sort().values
    assert bounds.sqrt().double().sort().values == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("n_picks", [1, 2, 3, 5])
def test_a_few_picks_are_so_many(n_picks: int) -> None:
    assert len(bank_of(pictures(), 500, n_picks)) == n_picks


def test_equal_patches_fill_a_bank() -> None:
    same = FeatureSet(np.ones((30, 4, 5, 5), dtype=np.float32), np.arange(30))
    assert torch.equal(bank_of(same, 200, 50), torch.ones(50, 4))


def test_more_pictures_than_the_limit_give_one_patch_each() -> None:
    sample = sampled_patches(pictures(30), 12, generator=seeded())
    assert len(sample) == 12
