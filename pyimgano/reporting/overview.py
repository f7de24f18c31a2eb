"""One page and one picture that tell a person what a bundle did on test pictures.

`overview.html` is a single file: pictures inlined, no script, nothing from a network.
Labels, scores and maps are the device's; nothing is judged again here.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.atomic import write_bytes, write_text
from pyimgano_runtime.decode import read_image
from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.infer_config import CategoryConfig, InputRules
from pyimgano_runtime.pictures import heat_overlay, overlay_range

from ..datasets.images import Image, Mask, read_mask
from ..metrics.bootstrap import Interval, wilson_interval

N_MISTAKES: Final = 6  # in a category's gallery; rows of three
N_FOUND: Final = 6
N_ACCEPTED: Final = 3
MAX_SIDE: Final = 384  # pixels of an inlined picture
JPEG_QUALITY: Final = 90

TRUTH_RGB: Final = (255, 212, 0)
EDGE_RGB: Final = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class TestPart:
    """A test picture, what is really on it, and what the device said."""

    name: str
    image_path: Path
    mask_path: Path | None  # the true defect
    map_path: Path | None  # the device's anomaly map, .npy
    label_true: int  # 0 good, 1 defective
    kind: str  # in words: "good", "scratch", "faint scratch", ...
    score: float
    p_value: float | None
    label: str  # "normal" or "anomaly"
    ms: float  # decoding to verdict

    @property
    def defective(self) -> bool:
        """Whether it really is."""
        return self.label_true == 1

    @property
    def flagged(self) -> bool:
        """Whether the device called it anomalous."""
        return self.label == "anomaly"

    @property
    def verdict(self) -> str:
        """One of "found", "missed", "false alarm", "accepted"."""
        if self.defective:
            return "found" if self.flagged else "missed"
        return "false alarm" if self.flagged else "accepted"

    @property
    def wrong(self) -> bool:
        """Whether the device erred."""
        return self.defective != self.flagged


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the device's scores compare with those measured after training."""

    n_images: int
    max_rel_score_diff: float
    label_flips: int


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done on the way."""

    title: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class CategoryResult:
    """All test pictures of a category."""

    name: str
    parts: tuple[TestPart, ...]
    settings: CategoryConfig  # from the bundle: thresholds and calibration scores
    report: Mapping[str, Any]  # of the training run: AUROC with intervals, counts
    agreement: Agreement

    @cached_property
    def good(self) -> list[TestPart]:
        """The good ones."""
        return [part for part in self.parts if not part.defective]

    @cached_property
    def defective(self) -> list[TestPart]:
        """The defective ones."""
        return [part for part in self.parts if part.defective]

    @property
    def n_found(self) -> int:
        """Defective ones that were flagged."""
        return sum(part.flagged for part in self.defective)

    @property
    def n_false_alarms(self) -> int:
        """Good ones that were flagged."""
        return sum(part.flagged for part in self.good)

    @property
    def threshold(self) -> float:
        """The image threshold."""
        return self.settings.thresholds.image

    @property
    def promised(self) -> float | None:
        """The false-alarm rate that the threshold promises, None for a fixed one."""
        return self.settings.thresholds.provenance["image"].used_false_alarm_rate

    @property
    def map_threshold(self) -> float:
        """Where the heat map's contour is drawn."""
        pixel = self.settings.thresholds.pixel
        return self.threshold if pixel is None else pixel

    @property
    def colour_range(self) -> tuple[float, float]:
        """The same for all its pictures, as in the runtime's overlays."""
        normal = self.settings.calibration.image_scores
        return overlay_range(self.map_threshold, normal)

    @property
    def ms(self) -> float:
        """Median time of a picture on the device, decoding to verdict."""
        return float(np.median([part.ms for part in self.parts]))


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that the page says."""

    detector: str
    noun: tuple[str, str]  # "part", "parts"
    data: str  # what the pictures are, one sentence
    notice: str | None  # their licence, if it asks for a mention
    machine: str
    steps: tuple[Step, ...]
    goldens: str  # what `check` said on the device
    categories: tuple[CategoryResult, ...]
    rules: InputRules

    @property
    def n_parts(self) -> int:
        """Test pictures in all categories."""
        return sum(len(category.parts) for category in self.categories)

    @property
    def label_flips(self) -> int:
        """Verdicts that differ between training and device."""
        return sum(category.agreement.label_flips for category in self.categories)

    @property
    def max_rel_score_diff(self) -> float:
        """The largest of all categories."""
        return max(c.agreement.max_rel_score_diff for c in self.categories)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        found = sum(category.n_found for category in self.categories)
        defective = sum(len(category.defective) for category in self.categories)
        alarms = sum(category.n_false_alarms for category in self.categories)
        good = sum(len(category.good) for category in self.categories)
        one, many = self.noun
        return (
            f"{found} of {defective} defective {many if defective != 1 else one} "
            f"found, {alarms} false alarm{'' if alarms == 1 else 's'} in {good} good "
            f"{many if good != 1 else one}"
        )


def write_overview(folder: Path, overview: Overview) -> None:
    """Write overview.png and overview.html into an existing folder."""
    from .overview_figure import figure_png
    from .overview_page import page_html

    write_bytes(folder / "overview.png", figure_png(overview))
    write_text(folder / "overview.html", page_html(overview))


def gallery(category: CategoryResult) -> list[tuple[str, list[TestPart]]]:
    """Which pictures are shown, worst first, in groups with a title.

    Mistakes by their distance from the threshold; the highest score of each kind of
    defect, then the next; of the accepted good ones the highest, middle and lowest.
    """
    distance = {part.name: abs(part.score - category.threshold) for part in category.parts}
    mistakes = sorted(
        (part for part in category.parts if part.wrong),
        key=lambda part: -distance[part.name],
    )
    found = sorted(
        (part for part in category.defective if part.flagged),
        key=lambda part: -part.score,
    )
    accepted = sorted(
        (part for part in category.good if not part.flagged),
        key=lambda part: -part.score,
    )
    groups = [
        ("Mistakes, worst first", mistakes[:N_MISTAKES]),
        ("Found, most anomalous first", _each_kind_first(found)[:N_FOUND]),
        ("Accepted: highest, middle and lowest score", _ends_and_middle(accepted)),
    ]
    return [(title, parts) for title, parts in groups if parts]


def _each_kind_first(found: Sequence[TestPart]) -> list[TestPart]:
    seen: set[str] = set()
    first, rest = [], []
    for part in found:
        kind = part.kind.rsplit(" ", 1)[-1]
        (rest if kind in seen else first).append(part)
        seen.add(kind)
    return first + rest


def _ends_and_middle(accepted: Sequence[TestPart]) -> list[TestPart]:
    places = sorted({0, len(accepted) // 2, len(accepted) - 1})
    return [accepted[place] for place in places if 0 <= place < len(accepted)]


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pixels shown of one test picture."""

    photo: Image  # the true defect ringed where a mask is known
    heat: Image | None
    has_truth: bool


def pictures(part: TestPart, category: CategoryResult, rules: InputRules) -> Pictures:
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
    if part.mask_path is None:
        return Pictures(_shrunk(image), heat, False)
    mask = read_mask(part.mask_path, size, rules)
    return Pictures(_shrunk(_ringed(image, mask)), heat, True)


def _ringed(image: Image, mask: Mask) -> Image:
    """The image with a line around the mask, some pixels away: it hides nothing."""
    import cv2

    side = min(mask.shape)
    reach = max(2, side // 50)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    around = cv2.dilate(mask.astype(np.uint8), kernel)
    lines, _ = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(side / 256))
    ringed: Image = np.ascontiguousarray(image)
    ringed = ringed.copy()
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
    smaller: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return smaller


def data_uri(image: Image) -> str:
    """The picture as a JPEG that a page holds itself."""
    import cv2

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def png_bytes(figure: Any) -> bytes:
    """A matplotlib figure as a PNG file without time or version inside."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


# --- numbers in words ---------------------------------------------------------------


def percent(share: float, digits: int = 1) -> str:
    """`1.2 %`; whole numbers without decimals."""
    text = f"{100 * share:.{digits}f}"
    return f"{text.removesuffix('.' + '0' * digits)} %"


def share_of(count: int, total: int) -> str:
    """`34 of 40 (85 %; 95 % interval 71 to 93 %)`."""
    if total == 0:
        return "none tested"
    low, high = rate_interval(count, total)
    return (
        f"{count} of {total} ({percent(count / total)}; 95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f} %)"
    )


def rate_interval(count: int, total: int) -> Interval:
    """Wilson's 95 % interval."""
    return wilson_interval(count, total)


def relative(value: float) -> str:
    """A relative difference: `0.00006 %`, `identical`."""
    return "identical" if value == 0 else f"{100 * value:.5f} %"


def scores_of(parts: Sequence[TestPart]) -> npt.NDArray[np.float64]:
    """(n,) scores."""
    return np.asarray([part.score for part in parts], dtype=np.float64)
