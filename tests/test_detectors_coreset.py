"""The coreset is the exact farthest-point greedy, whatever shortcut computes it."""

import itertools
import time

import pytest
import torch
from torch import Tensor

from pyimgano.detectors import coreset
from pyimgano.detectors.coreset import coverage_radius, greedy_coreset

# The budget of the design is 1.05; the algorithm is exact, so only rounding is left
# (measured: equal to the last digit on real features, 1 - 1e-7 on these).
RADIUS_TOLERANCE = 1e-4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brute_force(features: Tensor, n_picks: int, first: int) -> Tensor:
    """Algorithm 1 of PatchCore, one pick a pass over everything, in float64."""
    points = features.double()
    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64)  # (P,)
    picks = [first]
    while len(picks) < n_picks:
        distance = (points - points[picks[-1]]).norm(dim=1)
        nearest = torch.minimum(nearest, distance)
        picks.append(int(nearest.argmax()))
    return torch.tensor(picks)


def clusters(n_features: int, dims: int, *, seed: int = 0) -> Tensor:
    """Clusters of unequal size and spread in a subspace: like patches of a part."""
    generator = seeded(seed)
    centres = 10 * torch.randn(20, 6, generator=generator)
    which = torch.randint(20, (n_features,), generator=generator) ** 2 // 20
    spread = torch.rand(20, 1, generator=generator)
    inner = torch.randn(n_features, 6, generator=generator) * spread[which]
    lift = torch.randn(6, dims, generator=generator)
    noise = 0.05 * torch.randn(n_features, dims, generator=generator)
    return (centres[which] + inner) @ lift + noise + 100  # far from the origin


@pytest.mark.parametrize("front_size", [1, 16, 2048])
def test_picks_equal_brute_force_greedy(
    front_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreset, "FRONT_SIZE", front_size)
    features = torch.randn(400, 24, generator=seeded(1))
    picks = greedy_coreset(features, 80, generator=seeded(2))
    assert picks.tolist() == brute_force(features, 80, int(picks[0])).tolist()


def test_chunks_of_rows_do_not_change_the_picks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = clusters(3000, 16)
    expected = greedy_coreset(features, 200, generator=seeded())
    monkeypatch.setattr(coreset, "CHUNK_ROWS", 17)
    assert torch.equal(greedy_coreset(features, 200, generator=seeded()), expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_radius_over_all_features_is_that_of_exact_greedy(seed: int) -> None:
    features = clusters(5000, 24, seed=seed)
    picks = greedy_coreset(features, 150, generator=seeded(seed))
    exact = brute_force(features, 150, int(picks[0]))
    ratio = coverage_radius(features, picks) / coverage_radius(features, exact)
    assert ratio == pytest.approx(1.0, abs=RADIUS_TOLERANCE)


def test_radius_is_far_below_that_of_random_picks() -> None:
    features = clusters(5000, 24)
    picks = greedy_coreset(features, 150, generator=seeded())
    drawn = torch.randperm(5000, generator=seeded())[:150]
    assert coverage_radius(features, picks) < 0.7 * coverage_radius(features, drawn)


def test_radius_equals_the_largest_nearest_distance() -> None:
    features = clusters(800, 12)
    picks = torch.tensor([3, 99, 500])
    nearest = torch.cdist(features.double(), features[picks].double()).amin(dim=1)
    assert coverage_radius(features, picks) == pytest.approx(float(nearest.max()))


def test_same_seed_gives_the_same_picks() -> None:
    features = clusters(4000, 16)
    first, second = (
        greedy_coreset(features, 100, generator=seeded(5)) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_shorter_coreset_is_the_beginning_of_a_longer_one() -> None:
    features = clusters(4000, 16)
    long = greedy_coreset(features, 300, generator=seeded())
    short = greedy_coreset(features, 40, generator=seeded())
    assert torch.equal(short, long[:40])


def test_every_distinct_feature_is_picked_before_any_duplicate() -> None:
    distinct = torch.randn(30, 8, generator=seeded())
    features = distinct.repeat(40, 1)
    picks = greedy_coreset(features, 30, generator=seeded())
    assert sorted((picks % 30).tolist()) == list(range(30))


def test_picks_are_different_rows_even_when_all_features_are_equal() -> None:
    picks = greedy_coreset(torch.ones(5000, 4), 60, generator=seeded())
    assert len(set(picks.tolist())) == 60


@pytest.mark.parametrize("n_picks", [50, 51, 10_000])
def test_asking_for_all_or_more_returns_every_feature(n_picks: int) -> None:
    features = torch.randn(50, 4, generator=seeded())
    picks = greedy_coreset(features, n_picks, generator=seeded())
    assert sorted(picks.tolist()) == list(range(50))


def test_one_pick_is_enough_to_ask_for() -> None:
    features = torch.randn(50, 4, generator=seeded())
    assert greedy_coreset(features, 1, generator=seeded()).shape == (1,)


def test_progress_rises_and_ends_at_the_number_of_picks() -> None:
    seen: list[int] = []
    features = clusters(4000, 16)
    greedy_coreset(features, 100, generator=seeded(), progress=seen.append)
    assert seen[-1] == 100
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))


def test_features_are_left_as_they_were() -> None:
    features = clusters(4000, 16)
    before = features.clone()
    greedy_coreset(features, 50, generator=seeded())
    assert torch.equal(features, before)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(3, 4, 5), "shape"),
        (torch.zeros(0, 4), "not empty"),
        (torch.zeros(3, 4, dtype=torch.float64), "float32"),
        (torch.full((3, 4), torch.nan), "finite"),
    ],
)
def test_bad_features_are_refused(features: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        greedy_coreset(features, 2, generator=seeded())


def test_fewer_than_one_pick_is_refused() -> None:
    with pytest.raises(ValueError, match="n_picks: found 0"):
        greedy_coreset(torch.zeros(3, 4), 0, generator=seeded())


@pytest.mark.bench
def test_the_greedy_takes_a_quarter_of_one_pass_over_everything_a_pick() -> None:
    features = clusters(50_000, 152)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.process_time()
        picks = greedy_coreset(features, 400, generator=seeded())
        ours = time.process_time() - start
        start = time.process_time()
        pass_a_pick(features, 400, int(picks[0]))
        theirs = time.process_time() - start
    finally:
        torch.set_num_threads(threads)
    assert ours < theirs / 4


def pass_a_pick(features: Tensor, n_picks: int, first: int) -> None:
    """Algorithm 1 as it is usually written, in float32."""
    nearest = torch.full((len(features),), torch.inf)
    pick = first
    for _ in range(n_picks - 1):
        distance = torch.linalg.norm(features - features[pick], dim=1)
        nearest = torch.minimum(nearest, distance)
        pick = int(nearest.argmax())
