"""A bank that covers every patch of a set, though only a sample is held in memory.

A greedy coreset of a sample leaves the rare patches that were not drawn far away: on
100 pictures of screws, 1,000 picks out of 60,000 of the 102,400 patches had 1.08 times
the covering radius of picks out of all. So the last picks are made again, out of all:

1. Pick K patches out of the sample; the last lies at distance r from the others.
2. Keep the first picks, and look at every patch once: those within r of a kept pick are
   covered well enough, the others are held (1.5 % in the example above).
3. Go on with the greedy among these.

Every pick was then at least the final radius away from the picks before it, which is
all that the proof of the greedy's quality needs (Gonzalez 1985, theorem 2.2): the
radius over all patches is at most twice the best possible one, as if all had been in
memory. Of the exact greedy's it was 0.99 to 1.01 (docs/performance.md).

The look at every patch costs little, since most lie close to a few kept picks: these
are compared first, and what they cover is done with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from .coreset import continue_greedy, farthest_first, lower_to_nearest
from .feature_set import FeatureSet

KEPT_SHARE: Final = 0.75  # of the sample's picks; the others are made again
COMMON_PICKS: Final = 64  # compared first
PROBE_ROWS: Final = 4096  # patches that tell which picks are common
# Rounding must not lose the sample's own last picks, which lie at the distance itself.
DISTANCE_TOLERANCE: Final = 1e-4


def covering_bank(
    features: FeatureSet,
    sample: Tensor,
    n_picks: int,
    *,
    place: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Give `n_picks` patches (K, D) that cover all patches of a feature set.

    Where the sample is all there is, this is its greedy coreset.

    Args:
        sample: (S, D) patches of `features`, at least `n_picks`, where distances are
            taken. At most twice so many others are held besides.
        place: puts patches (P, C) of `features` there: (P, D).
        generator: draws the first pick.
        progress: called with the number of picks so far.
    """
    first = farthest_first(sample, n_picks, generator=generator, progress=progress)
    n_kept = round(KEPT_SHARE * n_picks)
    height, width = features.shape[1:]
    if len(sample) == len(features) * height * width or n_kept == n_picks:
        return sample[first.picks]

    kept = sample[first.picks[:n_kept]]  # (M, D)
    search = FarFrom.picks(kept, sample, squared=float(first.squared[-1]))
    placed = (place(patches.to(sample.device)) for patches in patches_of(features))
    points, bounds = search.farthest(placed, limit=len(sample))
    further = continue_greedy(points, bounds, n_picks - n_kept)
    return torch.cat([kept, points[further.picks] + search.mean])


def patches_of(features: FeatureSet) -> Iterator[Tensor]:
    """Give all patches as (P, C), the pictures in order, some pictures at a time."""
    channels = features.shape[0]
    for batch in features.batches():
        yield batch.permute(0, 2, 3, 1).reshape(-1, channels)


@dataclass(frozen=True, slots=True)
class FarFrom:
    """Finds the patches that lie at a distance or farther from every pick."""

    common: Tensor  # (M1, D) picks that many patches lie close to, centred
    others: Tensor  # (M2, D)
    mean: Tensor  # (D,) what everything is centred by: it keeps digits
    squared: float  # distance

    @classmethod
    def picks(cls, kept: Tensor, sample: Tensor, *, squared: float) -> FarFrom:
        """Order picks (M, D) by what they cover of a sample (S, D)."""
        mean = sample.mean(dim=0)
        squared *= 1 - DISTANCE_TOLERANCE
        step = max(len(sample) // PROBE_ROWS, 1)
        probe = sample[::step][:PROBE_ROWS]  # (R, D)
        covered = torch.cdist(probe, kept).square() < squared  # (R, M)
        common: list[int] = []
        for _ in range(min(COMMON_PICKS, len(kept))):
            pick = int(covered.sum(dim=0).argmax())
            common.append(pick)
            covered = covered[~covered[:, pick]]
        is_common = torch.zeros(len(kept), dtype=torch.bool, device=kept.device)
        is_common[common] = True
        centred = kept - mean
        return cls(centred[is_common], centred[~is_common], mean, squared)

    def farthest(
        self, patches: Iterator[Tensor], *, limit: int
    ) -> tuple[Tensor, Tensor]:
        """Give what is far of patches (P, D), centred, and its squared distances.

        Of more than `limit`, the farthest, in the order in which they came.
        """
        found: list[tuple[Tensor, Tensor]] = []
        n_found = 0
        for chunk in patches:
            found.append(self._far(chunk - self.mean))
            n_found += len(found[-1][1])
            if n_found > 2 * limit:
                found = [_farthest(found, limit)]
                n_found = limit
        return _farthest(found, limit)

    def _far(self, points: Tensor) -> tuple[Tensor, Tensor]:
        norms = points.square().sum(dim=1)
        bounds = torch.full_like(norms, torch.inf)
        for picks in (self.common, self.others):
            if len(picks):
                lower_to_nearest(bounds, points, norms, picks)
                # Rounding: a pick's distance to itself may come out below zero.
                far = bounds.clamp_min(0.0) >= self.squared
                points, norms, bounds = points[far], norms[far], bounds[far]
        return points, bounds


def _farthest(found: list[tuple[Tensor, Tensor]], limit: int) -> tuple[Tensor, Tensor]:
    points = torch.cat([points for points, _ in found])  # (F, D)
    bounds = torch.cat([bounds for _, bounds in found])  # (F,)
    if len(bounds) <= limit:
        return points, bounds
    held = bounds.topk(limit).indices.sort().values
    return points[held], bounds[held]
