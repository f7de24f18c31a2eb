"""Greedy k-center coresets: a few vectors that stand for a large cloud of them.

`greedy_coreset` is algorithm 1 of PatchCore (Roth et al. 2022, section 3.2), the
farthest-point greedy for minimax facility location of Sener & Savarese 2018
(section 4.2), whose radius is at most twice the best possible one.

We leave the paper in one place: the features are not projected to fewer dimensions
first (PatchCore, section 3.2, "random linear projection"). The paper projects because
every pick costs one pass over all features. Here a pick costs a pass over the few
thousand farthest ones, and the rest catch up by one matrix product for many picks, so
the exact greedy is faster than the projected one, and its radius needs no excuse.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FRONT_SIZE = 2048  # farthest features, updated at every pick; 1 MB at 128 dims: cache
CHUNK_ROWS = 8192  # rows of one distance block; bounds memory, not the result
NO_DISTANCE = -1.0  # squared distance of a picked feature: it is never picked again


@dataclass(frozen=True, slots=True)
class FarthestFirst:
    """Rows of features in the order in which the greedy picked them."""

    picks: Tensor  # (K,) int64
    # (K,) float32, falling: squared distance of each pick to the nearest one before it,
    # which is the squared radius that the ones before it leave; the first has infinity.
    squared: Tensor


def greedy_coreset(
    features: Tensor,
    n_picks: int,
    *,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Indices of `n_picks` different features that cover all of them, in pick order.

    See `farthest_first`; with `n_picks >= P` all P rows are returned, in their order.
    """
    _check_features(features)
    n_features = features.shape[0]
    if n_picks >= n_features:
        if progress is not None:
            progress(n_features)
        return torch.arange(n_features, device=features.device)
    return farthest_first(
        features, n_picks, generator=generator, progress=progress
    ).picks


def farthest_first(
    features: Tensor,
    n_picks: int,
    *,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> FarthestFirst:
    """Pick different features that cover all of them.

    The first pick is drawn at random, each further one is the feature farthest from
    its nearest pick (the first such row on a tie). A prefix of the result is itself
    the greedy coreset of that size.

    Args:
        features: (P, D) float32, P >= 1.
        n_picks: how many to pick, 1 to P.
        generator: draws the first pick, on the CPU, so that every device agrees.
        progress: called with the number of picks so far, now and then and at the end.

    Raises:
        ValueError: wrong shape or dtype, no rows, not finite, or `n_picks` outside.
    """
    _check_features(features)
    n_features = features.shape[0]
    if not 1 <= n_picks <= n_features:
        raise ValueError(f"n_picks: found {n_picks}, expected 1 to {n_features}")

    # Centred, |x|^2 + |c|^2 - 2xc loses fewer digits: the common mean cancels first.
    points = features - features.mean(dim=0)  # (P, D)
    norms = points.square().sum(dim=1)  # (P,)
    first = torch.randint(n_features, (1,), generator=generator).to(points.device)
    bounds = torch.full_like(norms, torch.inf)  # (P,)
    lower_to_nearest(bounds, points, norms, points[first])
    bounds[first] = NO_DISTANCE
    further = continue_greedy(
        points,
        bounds,
        n_picks - 1,
        progress=None if progress is None else lambda done: progress(done + 1),
    )
    return FarthestFirst(
        torch.cat([first, further.picks]),
        torch.cat([bounds.new_tensor([torch.inf]), further.squared]),
    )


def continue_greedy(
    points: Tensor,
    bounds: Tensor,
    n_picks: int,
    *,
    progress: Callable[[int], None] | None = None,
) -> FarthestFirst:
    """Pick the farthest of `points` (P, D), again and again, beside picks made before.

    Distances only fall while picks are added, so an old distance is an upper bound.
    We keep exact distances for the *front*, the `FRONT_SIZE` features with the largest
    bounds, and pick from it for as long as its maximum is not below the largest bound
    outside; then the bounds outside are brought up to date and a new front is drawn.

    Args:
        points: centred.
        bounds: (P,) squared distance to the nearest pick made before; overwritten.
        n_picks: how many to pick, 0 to P.
    """
    norms = points.square().sum(dim=1)  # (P,)
    picks = torch.empty(n_picks, dtype=torch.int64, device=points.device)
    squared = torch.empty(n_picks, device=points.device)
    n_done = 0
    while n_done < n_picks:
        front, outside_bound = _front(bounds)  # (F,)
        n_before = n_done
        n_done = _pick_from_front(
            picks, squared, n_done, points, norms, bounds, front, outside_bound
        )
        if progress is not None:
            progress(n_done)
        if n_done < n_picks:
            new = picks[n_before:n_done]  # (K,)
            lower_to_nearest(bounds, points, norms, points[new])
            bounds[new] = NO_DISTANCE
    return FarthestFirst(picks, squared)


def coverage_radius(features: Tensor, picks: Tensor) -> float:
    """Largest distance from a feature to its nearest pick: what the greedy minimises.

    Accumulated in float64, so it can referee between float32 implementations.

    Args:
        features: (P, D) float32.
        picks: (K,) int64, rows of `features`, K >= 1.
    """
    _check_features(features)
    if picks.ndim != 1 or picks.numel() == 0:
        raise ValueError(f"picks: found shape {tuple(picks.shape)}, expected (K,)")
    points = features.double()
    points = points - points.mean(dim=0)  # (P, D)
    norms = points.square().sum(dim=1)  # (P,)
    nearest = torch.full_like(norms, torch.inf)  # (P,)
    lower_to_nearest(nearest, points, norms, points[picks])
    return float(nearest.max().clamp_min(0.0).sqrt())


def lower_to_nearest(
    bounds: Tensor, points: Tensor, norms: Tensor, picks: Tensor
) -> None:
    """Lower `bounds` (P,) in place to the squared distance to the nearest pick.

    Args:
        points: (P, D), centred as the picks are; `norms` (P,) are their squared norms.
        picks: (K, D).
    """
    pick_norms = picks.square().sum(dim=1)  # (K,)
    for start in range(0, points.shape[0], CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        cross = torch.addmm(pick_norms, points[rows], picks.T, alpha=-2.0)  # (R, K)
        squared = cross.amin(dim=1) + norms[rows]  # (R,)
        bounds[rows] = torch.minimum(bounds[rows], squared)


def _check_features(features: Tensor) -> None:
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(
            f"features: found shape {tuple(features.shape)}, expected (P, D), not empty"
        )
    if features.dtype != torch.float32:
        raise ValueError(f"features: found {features.dtype}, expected torch.float32")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features: found NaN or infinity, expected finite values")


def _front(bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with the largest bounds, ascending, and the largest bound outside them."""
    if bounds.numel() <= FRONT_SIZE:
        everything = torch.arange(bounds.numel(), device=bounds.device)
        return everything, bounds.new_tensor(-torch.inf)
    largest = torch.topk(bounds, FRONT_SIZE + 1)  # descending
    front = largest.indices[:FRONT_SIZE].sort().values  # ascending: ties stay in order
    return front, largest.values[FRONT_SIZE]


def _pick_from_front(
    picks: Tensor,
    squared: Tensor,
    n_done: int,
    points: Tensor,
    norms: Tensor,
    bounds: Tensor,
    front: Tensor,
    outside_bound: Tensor,
) -> int:
    """Write picks for as long as the front provably holds the farthest feature.

    Returns how many picks there are now, at least one more than before.
    """
    front_points, front_norms = points[front], norms[front]
    nearest = bounds[front]  # (F,) exact: `bounds` was brought up to date just before
    limit = float(outside_bound)
    while n_done < picks.numel():
        largest, row = nearest.max(dim=0)
        if float(largest) < limit:
            break
        picks[n_done], squared[n_done] = front[row], largest
        n_done += 1
        cross = torch.addmv(front_norms, front_points, front_points[row], alpha=-2.0)
        torch.minimum(nearest, cross + front_norms[row], out=nearest)  # (F,)
        nearest[row] = NO_DISTANCE
    return n_done
