"""Which test pictures a person sees, and how they are drawn."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pyimgano_runtime.decode import read_image
from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.pictures import heat_overlay

from ..datasets.images import Image, Mask, read_mask
from .overview_facts import CategoryResult, InspectedPart

MAX_SIDE: Final = 384  # pixels of an inlined picture
JPEG_QUALITY: Final = 90

TRUTH_RGB: Final = (255, 212, 0)
EDGE_RGB: Final = (0, 0, 0)


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
    """Which pictures are shown: the worst mistakes, then what went well.

    Mistakes by their distance from the threshold, false alarms among them if there
    are any; the highest score of each kind of defect, then the next; of the accepted
    good ones the highest, middle and lowest.
    """

    def highest_first(verdict: str) -> list[InspectedPart]:
        chosen = [part for part in category.parts if part.verdict == verdict]
        return sorted(chosen, key=lambda part: -part.score)

    alarms, missed = highest_first("false alarm"), highest_first("missed")[::-1]
    shown = alarms[: max(n_mistakes // 2, n_mistakes - len(missed))]
    shown += missed[: n_mistakes - len(shown)]
    mistakes = sorted(shown, key=lambda part: -abs(part.score - category.threshold))
    found = highest_first("found")
    clearest = _each_kind_first(found)[:n_found]
    clearest.sort(key=lambda part: -part.score)
    accepted = highest_first("accepted")
    groups = [
        Group("Mistakes", "worst first", tuple(mistakes), len(alarms) + len(missed)),
        Group("Found", "clearest first", tuple(clearest), len(found)),
        Group(
            "Accepted",
            "highest, middle and lowest score",
            _ends_and_middle(accepted),
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


def _ends_and_middle(ordered: Sequence[InspectedPart]) -> tuple[InspectedPart, ...]:
    places = sorted({0, len(ordered) // 2, len(ordered) - 1})
    return tuple(ordered[place] for place in places if 0 <= place < len(ordered))


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
        low, high = category.colour_range
        heat = heat_overlay(
            image,
            map_to_image(np.load(part.map_path, allow_pickle=False), size),
            low=low,
            high=high,
            threshold=category.map_threshold,
        )
        heat = _shrunk(heat)
    mask = read_mask(part.mask_path, size, rules)
    if mask is None:
        return Pictures(_shrunk(image), heat, False)
    return Pictures(_shrunk(_ringed(image, mask)), heat, True)


def _ringed(image: Image, mask: Mask) -> Image:
    """The image with a line around the mask, some pixels away: it hides nothing."""
    import cv2

    side = min(mask.shape)
    width = max(1, round(side / 128))
    reach = max(2, side // 50) + width
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    around = cv2.dilate(mask.astype(np.uint8), kernel)
    lines, _ = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    ringed = image.copy()
    for colour, thickness in ((EDGE_RGB, width + 2), (TRUTH_RGB, width)):
        cv2.drawContours(ringed, lines, -1, colour, thickness)
    return ringed


def _shrunk(image: Image) -> Image:
    import cv2

    height, width = image.shape[:2]
    share = MAX_SIDE / max(height, width)
    if share >= 1:
        return image
    size = (max(1, round(width * share)), max(1, round(height * share)))  # (w, h)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def data_uri(image: Image) -> str:
    """The picture as a JPEG that a page holds itself."""
    import cv2

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
