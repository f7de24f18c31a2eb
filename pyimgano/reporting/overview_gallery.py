"""Which test pictures a person sees, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pyimgano_runtime.decode import read_image
from pyimgano_runtime.infer_config import InputRules

from ..datasets.images import Image, read_mask, shrunk
from .heat_scale import HeatScale
from .overview_facts import CategoryResult, InspectedPart
from .picture_drawing import ringed

MAX_SIDE: Final = 384  # pixels of an inlined picture


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that are shown together."""

    title: str
    order: str  # of the pictures, in words
    parts: tuple[InspectedPart, ...]
    n_all: int  # of which these are shown


def gallery(
    category: CategoryResult, *, n_mistakes: int = 6, n_found: int = 6
) -> list[Group]:
    """Which pictures of a category are shown."""
    return choose(
        category.parts, category.threshold, n_mistakes=n_mistakes, n_found=n_found
    )


def choose(
    parts: Sequence[InspectedPart],
    threshold: float,
    *,
    n_mistakes: int,
    n_found: int,
    n_accepted: int = 3,
) -> list[Group]:
    """Which pictures are shown: the worst mistakes, then what went well.

    Mistakes by their distance from the threshold, false alarms among them if there
    are any; the highest score of each kind of defect, then the next; of the accepted
    good ones the highest, middle and lowest, or the highest and lowest.
    """

    def highest_first(verdict: str) -> list[InspectedPart]:
        chosen = [part for part in parts if part.verdict == verdict]
        return sorted(chosen, key=lambda part: -part.score)

    alarms, missed = highest_first("false alarm"), highest_first("missed")[::-1]
    shown = alarms[: max(n_mistakes // 2, n_mistakes - len(missed))]
    shown += missed[: n_mistakes - len(shown)]
    mistakes = sorted(shown, key=lambda part: -abs(part.score - threshold))
    found = highest_first("found")
    clearest = _each_kind_first(found)[:n_found]
    clearest.sort(key=lambda part: -part.score)
    accepted = highest_first("accepted")
    groups = [
        Group("Mistakes", "worst first", tuple(mistakes), len(alarms) + len(missed)),
        Group("Found", "clearest first", tuple(clearest), len(found)),
        Group(
            "Accepted",
            "highest, middle and lowest score"
            if n_accepted > 2
            else "highest and lowest score",
            _ends_and_middle(accepted, n_accepted),
            len(accepted),
        ),
    ]
    return [group for group in groups if group.parts]


def _each_kind_first(found: Sequence[InspectedPart]) -> list[InspectedPart]:
    seen: set[str] = set()
    first: list[InspectedPart] = []
    rest: list[InspectedPart] = []
    for part in found:
        kind = part.kind.rsplit(" ", 1)[-1]  # "faint scratch" is a scratch
        (rest if kind in seen else first).append(part)
        seen.add(kind)
    return first + rest


def _ends_and_middle(
    ordered: Sequence[InspectedPart], at_most: int
) -> tuple[InspectedPart, ...]:
    last = len(ordered) - 1
    places = {0, last} if at_most == 2 else {0, len(ordered) // 2, last}
    kept = sorted(place for place in places if 0 <= place <= last)
    return tuple(ordered[place] for place in kept[:at_most])


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pixels shown of one test picture."""

    photo: Image  # the true defect ringed where a mask is known
    heat: Image | None
    has_truth: bool


def pictures(
    part: InspectedPart, category: CategoryResult, rules: InputRules
) -> Pictures:
    """Read one test picture, its mask and its map, and draw what is shown."""
    image = read_image(part.image_path, rules)
    size = (image.shape[0], image.shape[1])
    heat = None
    if part.map_path is not None:
        geometry = category.settings.map_geometry
        assert geometry is not None  # a map was saved
        anomaly_map = np.load(part.map_path, allow_pickle=False)
        scale = HeatScale.of(category.settings)
        heat = shrunk(scale.over(image, anomaly_map, mode=geometry.mode), MAX_SIDE)
    mask = read_mask(part.mask_path, size, rules)
    if mask is None:
        return Pictures(shrunk(image, MAX_SIDE), heat, False)
    return Pictures(shrunk(ringed(image, mask), MAX_SIDE), heat, True)
