"""Augmented copies of train pictures: turned, mirrored, shifted, brighter or darker.

    copies = Augmentation.of(options, n_normals=len(rows))
    for number in range(1, copies.n_copies + 1):
        more = copies.copy(image_u8, number, seed=0, name="images/007.png")

Nothing is turned or mirrored unless asked for: a part that lies the wrong way may be
the defect that is looked for. The frame keeps its size: what leaves it is cut off, and
what enters it repeats the border. The same seed, picture name and number always give
the same copy.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..option_fields import option
from .images import Image, Mask

TURNS: Final = ("none", "quarter", "any")
FLIPS: Final = ("none", "horizontal", "vertical", "both")
MAX_COPIES: Final = 100
LEAST_AUTOMATIC: Final = 4  # copies, where something is drawn at random

_Matrix = npt.NDArray[np.float64]  # (2, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationConfig:
    """How train pictures are varied; each copy takes part beside the picture."""

    rotate: str = option(
        "none",
        '"quarter": turned by 90, 180 and 270 degrees; "any": by any angle; only for '
        "parts that may lie so",
        choices=TURNS,
    )
    flip: str = option(
        "none",
        "mirrored left to right, top to bottom, or both; only for parts that may look "
        "so",
        choices=FLIPS,
    )
    shift: float = option(
        0.0, "moved by up to this share of each side, both ways", low=0.0, high=0.5
    )
    brightness: float = option(
        0.0, "grey levels times 1 - this .. 1 + this", low=0.0, high=0.9
    )
    copies: int | None = option(
        None,
        "augmented copies per train normal; null: none where nothing is asked for, "
        "else one per turned and mirrored view, at least 4 where something is drawn",
        low=0,
        high=MAX_COPIES,
    )

    @property
    def varies(self) -> bool:
        """Whether a copy can differ from its picture."""
        moved = self.shift > 0 or self.brightness > 0
        return moved or self.rotate != "none" or self.flip != "none"


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The copies that a run really makes."""

    config: AugmentationConfig
    n_copies: int  # per picture

    @classmethod
    def of(cls, config: AugmentationConfig) -> Augmentation:
        """Give the copies that a config asks for."""
        if not config.varies:
            return cls(config, 0)
        if config.copies is not None:
            return cls(config, config.copies)
        n_views = len(_views(config))
        drawn = config.shift > 0 or config.brightness > 0 or config.rotate == "any"
        return cls(config, max(n_views - 1, LEAST_AUTOMATIC if drawn else 0))

    def to_json(self) -> dict[str, Any]:
        """Give the settings, with the number of copies that were made."""
        return asdict(replace(self.config, copies=self.n_copies))

    def __str__(self) -> str:
        shown = {
            "rotate": self.config.rotate,
            "flip": self.config.flip,
            "shift": self.config.shift,
            "brightness": self.config.brightness,
        }
        done = [f"{key} {value}" for key, value in shown.items() if value]
        return ", ".join(text for text in done if not text.endswith(" none"))

    def copy(
        self,
        image_u8: Image,
        number: int,
        *,
        seed: int,
        name: str,
        mask: Mask | None = None,
    ) -> tuple[Image, Mask | None]:
        """Give one augmented copy of a picture, and of its mask.

        Args:
            image_u8: (H, W, 3) uint8 RGB; not written to.
            number: of the copy, from 1; the n-th takes the n-th view in turn.
            seed: of the run.
            name: the picture's stable name.
            mask: (H, W), moved as the picture is.
        """
        config = self.config
        # hash() of a text differs from process to process.
        text = f"{seed}\0{number}\0{name}".encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(text).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        views = _views(config)
        view = views[number % len(views)]
        if config.rotate == "any":
            angle = generator.uniform(0, 2 * np.pi)
            cos, sin = np.cos(angle), np.sin(angle)
            view = np.array([[cos, sin], [-sin, cos]]) @ view
        share = generator.uniform(-1, 1, 2) * config.shift  # of width and height
        gain = 1 + generator.uniform(-1, 1) * config.brightness
        height, width = image_u8.shape[:2]
        # Whole pixels: a part of one would blur, which no camera did.
        shift = (round(share[0] * width), round(share[1] * height))
        image = _moved(image_u8, view, shift, smooth=True)
        if gain != 1:
            levels = np.clip(np.rint(np.arange(256) * gain), 0, 255).astype(np.uint8)
            image = np.asarray(levels[image], np.uint8)
        if mask is None:
            return image, None
        moved = _moved(mask.astype(np.uint8), view, shift, smooth=False)
        return image, np.asarray(moved > 0)


def _views(config: AugmentationConfig) -> list[_Matrix]:
    """Give what the turns and mirrorings make of (x, y), the picture's own first."""
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    turns = [np.eye(2)]
    if config.rotate == "quarter":
        turns = [np.linalg.matrix_power(quarter, n) for n in range(4)]
    mirrors = [np.eye(2)]
    if config.flip in ("horizontal", "both"):
        mirrors.append(np.diag([-1.0, 1.0]))
    if config.flip in ("vertical", "both"):
        mirrors.append(np.diag([1.0, -1.0]))
    if config.flip == "both":
        mirrors.append(np.diag([-1.0, -1.0]))
    views: list[_Matrix] = []
    for mirror in mirrors:
        for turn in turns:  # a half turn is both mirrorings: each view once
            view = turn @ mirror
            if not any(np.array_equal(view, known) for known in views):
                views.append(view)
    return views


def _moved(
    pixels: npt.NDArray[np.uint8],
    view: _Matrix,
    shift: tuple[int, int],
    *,
    smooth: bool,
) -> npt.NDArray[np.uint8]:
    """Turn about the centre, then shift by whole (x, y) pixels."""
    import cv2

    if shift == (0, 0) and np.array_equal(view, np.eye(2)):
        return pixels
    height, width = pixels.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])  # x, y
    offset = centre - view @ centre
    if not np.any(view % 1):  # a quarter turn: pixels onto pixels, nothing is blurred
        offset = np.floor(offset)
    moved = cv2.warpAffine(
        np.ascontiguousarray(pixels),
        np.column_stack([view, offset + shift]),
        (width, height),
        # Cubic: linear would blur, which is another change.
        flags=cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.uint8)
