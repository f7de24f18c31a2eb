"""Draws the surfaces of the generated parts: paint, gloss and relief, before the light.

A part is drawn with polygons on a board, in units that do not depend on the size of
the picture, and then gets the marks of its tool or its loom.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float32]
Material = tuple[int, int, int, int]  # red, green, blue, gloss; 0..255 each

SUB_PIXEL_BITS = 4  # cv2 takes corners in 1/16 pixel


def opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "drawing parts needs OpenCV: pip install opencv-python-headless"
        ) from error
    return cv2


# --- drawing board and surface ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """What a part is drawn from; `missing` 0 complete .. 1 a piece is wholly absent."""

    rng: np.random.Generator
    size: tuple[int, int]
    missing: float
    flaw_rng: np.random.Generator


@dataclass(slots=True)
class Surface:
    """What the camera sees, one value a pixel of the photograph."""

    paint: FloatArray  # (4, H, W) red, green, blue, gloss; 0..255
    ground: FloatArray  # (H, W) coarse height 0..255, throws shadows
    body: FloatArray  # (H, W) 1 where a defect may lie
    x: FloatArray  # (1, W) units right of the part's middle
    y: FloatArray  # (H, 1) units below it
    unit: float  # pixels
    relief: FloatArray  # (H, W) height in pixels, for the slopes
    gain: FloatArray  # (H, W) brightness of the paint
    sheen: FloatArray  # (H, W) share of the gloss that shines
    boldness: float  # of defects: more in a busy texture, so that they can be found


class _Board:
    """Polygons at twice the photograph's size, in units of its shorter side.

    The origin is the middle of the part in its pose; x points right, y down.
    """

    def __init__(
        self, order: Order, base: Material, *, wander: float, angle: float = 0.0
    ) -> None:
        self.size = order.size
        height, width = 2 * self.size[0], 2 * self.size[1]
        self.unit = float(min(height, width))
        self.paint = np.zeros((height, width, 4), np.uint8)
        opencv().rectangle(self.paint, (0, 0), (width, height), base, -1)
        self.height = np.zeros((height, width), np.uint8)
        self.body = np.zeros((height, width), np.uint8)
        self.turn = np.array(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        )
        shift = np.clip(order.rng.normal(0.0, wander, size=2), -2 * wander, 2 * wander)
        self.origin = np.array([width, height]) / 2 + shift * self.unit

    def fill(
        self,
        corners: ArrayLike,
        material: Material,
        height: int,
        body: bool | None = None,
    ) -> None:
        """Paint a polygon, set its height (0..255), join it to the body or cut it."""
        cv2 = opencv()
        pixels = np.asarray(corners) @ self.turn * self.unit + self.origin
        points = [np.rint(pixels * 2**SUB_PIXEL_BITS).astype(np.int32)]
        cv2.fillPoly(self.paint, points, material, cv2.LINE_AA, SUB_PIXEL_BITS)
        cv2.fillPoly(self.height, points, height, cv2.LINE_AA, SUB_PIXEL_BITS)
        if body is not None:
            cv2.fillPoly(self.body, points, 255 * body, cv2.LINE_AA, SUB_PIXEL_BITS)

    def surface(self, boldness: float) -> Surface:
        """What was drawn, at the photograph's size, edges bevelled."""
        cv2 = opencv()
        rows, columns = self.size
        unit, scale = self.unit / 2, self.unit / 512  # scale: 1 at 256 pixels
        paint, ground, body = (
            cv2.resize(canvas, (columns, rows), interpolation=cv2.INTER_AREA)
            for canvas in (self.paint, self.height, self.body)
        )
        ground = ground.astype(np.float32)
        bevelled = cv2.GaussianBlur(ground, (0, 0), 0.9 * scale)
        x = ((np.arange(columns) + 0.5 - self.origin[0] / 2) / unit).astype(np.float32)
        y = ((np.arange(rows) + 0.5 - self.origin[1] / 2) / unit).astype(np.float32)
        return Surface(
            paint=np.stack(cv2.split(paint)).astype(np.float32),
            ground=ground,
            body=body.astype(np.float32) * np.float32(1 / 255),
            x=x[None, :],
            y=y[:, None],
            unit=unit,
            relief=bevelled * np.float32(7 / 255 * scale),
            gain=np.ones(self.size, np.float32),
            sheen=np.ones(self.size, np.float32),
            boldness=boldness,
        )


def _disc(x: float, y: float, radius: float) -> NDArray[np.float64]:
    angle = np.linspace(0.0, 2.0 * np.pi, 64, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def _plate(
    x: float, y: float, width: float, height: float, corner: float = 0.0
) -> NDArray[np.float64]:
    """Rectangle around (x, y), its corners cut by `corner` (eight points)."""
    half_x, half_y = width / 2, height / 2
    cut_x, cut_y = half_x - corner, half_y - corner
    right = [(cut_x, -half_y), (half_x, -cut_y), (half_x, cut_y), (cut_x, half_y)]
    left = [(-across, -down) for across, down in right]
    corners = np.array(right + left)
    corners += (x, y)
    return corners


def _round_about(tooth: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Corners (x, y) of (steps of 30 degrees, radius), turned by a share of a turn."""
    angle = 2 * np.pi * (tooth[:, 0] / 12 + share)
    radius = tooth[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _between(start: Material, end: Material, share: float) -> Material:
    r, g, b, gloss = (
        round(a + (z - a) * share) for a, z in zip(start, end, strict=True)
    )
    return r, g, b, gloss


def clouds(
    rng: np.random.Generator, size: tuple[int, ...], down: int, across: int
) -> FloatArray:
    """Smooth noise of about -1..1 in (down, across) cells."""
    cv2 = opencv()
    cells = rng.random((down, across), np.float32) * 2 - 1
    smooth: FloatArray = cv2.resize(
        cells, (size[1], size[0]), interpolation=cv2.INTER_CUBIC
    )
    return smooth


# --- parts --------------------------------------------------------------------------

_HOLE: Material = (20, 21, 24, 6)
_ALUMINIUM: Material = (150, 153, 157, 90)
_STEEL: Material = (122, 124, 128, 120)
_ANODISED: Material = (44, 48, 55, 30)
_LASER_MARK: Material = (88, 90, 94, 30)
_BELT: Material = (52, 84, 90, 8)
_IVORY: Material = (205, 194, 166, 40)
_CAVITY: Material = (150, 140, 116, 15)
_BOARD_GREEN: Material = (24, 84, 54, 50)
_TRACE: Material = (38, 108, 68, 60)
_INK: Material = (205, 210, 203, 10)
_TIN: Material = (140, 142, 146, 130)
_GOLD: Material = (196, 152, 66, 190)


def _bracket(order: Order) -> Surface:
    """Milled aluminium plate in a fixture: nothing moves but the light."""
    board = _Board(order, _ANODISED, wander=0.001)
    for y in (-0.41, 0.41):  # T-slots of the fixture
        board.fill(_plate(0, y, 6.0, 0.05), _HOLE, 0)
    for x, y in ((-0.415, -0.1), (-0.415, 0.17), (-0.12, 0.345), (0.2, 0.345)):
        board.fill(_disc(x, y, 0.036), _STEEL, 88)  # locating pins
        board.fill(_disc(x, y, 0.022), _STEEL, 98)
    plate = [(-0.38, -0.31), (0.22, -0.31), (0.38, -0.15), (0.38, 0.31), (-0.38, 0.31)]
    board.fill(plate, _ALUMINIUM, 120, body=True)

    for slot in (
        _plate(0, 0.225, 0.26, 0.08),
        _disc(-0.13, 0.225, 0.04),
        _disc(0.13, 0.225, 0.04),
    ):
        board.fill(slot, _HOLE, 0, body=False)
    board.fill(_disc(-0.05, -0.04, 0.135), _ALUMINIUM, 85, body=False)
    board.fill(_disc(-0.05, -0.04, 0.105), _HOLE, 0)
    holes = [(-0.30, -0.23), (0.16, -0.23), (0.30, -0.09), (-0.30, 0.23), (0.30, 0.23)]
    absent = int(order.flaw_rng.integers(len(holes)))
    for number, (x, y) in enumerate(holes):
        filled = 0.25 + 0.75 * order.missing if order.missing else 0.0
        filled = filled if number == absent else 0.0
        board.fill(_disc(x, y, 0.052), _ALUMINIUM, int(90 + 30 * filled), body=False)
        bottom = _between(_HOLE, _ALUMINIUM, filled)
        board.fill(_disc(x, y, 0.036), bottom, int(120 * filled))
    dots = np.random.default_rng(7).random((10, 10)) < 0.5  # the same on every part
    dots[:, 0] = dots[-1, :] = dots[0, ::2] = True
    for row, column in np.argwhere(dots):
        x, y = 0.225 + 0.0125 * (column - 4.5), 0.06 + 0.0125 * (row - 4.5)
        board.fill(_plate(x, y, 0.0125, 0.0125), _LASER_MARK, 119)

    # Face mill: arcs that advance along x, in three passes; then fine streaks.
    part = board.surface(boldness=0.85)
    pitch, phase = 0.026, order.rng.random()
    lane = (part.y + 0.31) % 0.207 - 0.1035
    bow = 2 * np.pi * (np.sqrt(0.14**2 - lane**2) / pitch + phase)
    wave = 2 * np.pi * part.x / pitch
    arcs = np.sin(wave) * np.cos(bow) - np.cos(wave) * np.sin(bow)
    streaks = clouds(order.rng, order.size, order.size[0] // 2, 10)
    metal = np.clip(part.ground - 100, 0, 1)
    part.gain += metal * (0.022 * arcs + 0.04 * streaks).astype(np.float32)
    part.sheen += metal * (0.30 * arcs + 0.25 * streaks).astype(np.float32)
    return part


def _washer(order: Order) -> Surface:
    """Turned tooth washer on a belt, at any angle."""
    rng, teeth = order.rng, 12
    board = _Board(order, _BELT, wander=0.02, angle=rng.uniform(0.0, 2 * np.pi))
    tooth = np.array([(-0.34, 0.35), (-0.2, 0.415), (0.2, 0.415), (0.34, 0.35)])
    outline = [_round_about(tooth, number / teeth) for number in range(teeth)]
    board.fill(np.concatenate(outline), _STEEL, 70, body=True)
    board.fill(_disc(0, 0, 0.322), _STEEL, 95)
    board.fill(_disc(0, 0, 0.205), _STEEL, 70)
    board.fill(_disc(0, 0, 0.19), _BELT, 0, body=False)
    for y in (-0.034, 0.0, 0.034):  # stamped size mark
        board.fill(_plate(0.262, y, 0.05, 0.011, 0.004), _STEEL, 55)
    if order.missing:  # a tooth has broken off, with a rough edge, and ever more of it
        steps = np.array([0.6, 0.36, 0.2, 0.08, -0.05, -0.2, -0.36, -0.6])
        left = 0.40 - order.missing * order.flaw_rng.uniform(0.06, 0.12, size=8)
        left[[0, -1]] = 0.47  # beyond the tip
        bite = _round_about(
            np.stack([steps, left], axis=1), order.flaw_rng.integers(teeth) / teeth
        )
        board.fill(bite, _BELT, 0, body=False)

    # The turning tool leaves fine rings. They mirror the lamp in two opposite fans,
    # which stay where they are while the washer turns.
    part = board.surface(boldness=1.4)
    squares = part.x * part.x + part.y * part.y
    rings = clouds(rng, (1, 2048), 1, 220)[0]
    groove = rings[np.minimum(np.sqrt(squares) * 2000, 2047).astype(np.intp)]
    fan = (part.x * np.float32(0.77) + part.y * np.float32(0.64)) ** 2
    fan /= squares + np.float32(1e-6)
    metal = np.clip(part.ground / 50, 0, 1)
    belt = clouds(rng, order.size, order.size[0], order.size[1] // 2)
    part.gain += metal * (0.035 * groove + 0.40 * fan * fan - 0.16)
    part.gain += (1 - metal) * np.float32(0.10) * belt
    part.sheen += metal * (0.25 * groove + 1.3 * fan**4 - 0.5)
    return part


def _fabric(order: Order) -> Surface:
    """Twill of blue warp and light weft, running past the camera."""
    cv2, rng, size = opencv(), order.rng, order.size
    part = _Board(order, (0, 0, 0, 12), wander=0.0).surface(boldness=1.7)
    part.body[:] = 1.0
    threads, angle = np.float32(36.0), rng.normal(0.0, 0.012)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    start = rng.uniform(60.0, 63.0, size=2).astype(np.float32)
    u = (
        threads * (part.x * cos + part.y * sin) + start[0]
    )  # warp threads, left to right
    v = (
        threads * (part.y * cos - part.x * sin) + start[1]
    )  # weft threads, top to bottom
    u += np.float32(0.15) * clouds(rng, size, 5, 9)
    v += np.float32(0.15) * clouds(rng, size, 9, 5)

    cell = max(3, round(1.5 * part.unit / float(threads)))  # tile pixels a thread
    woven = cv2.remap(
        _twill_tile(cell),
        np.mod(u * cell, np.float32(3 * cell)) + np.float32(cell - 0.5),
        np.mod(v * cell, np.float32(3 * cell)) + np.float32(cell - 0.5),
        cv2.INTER_LINEAR,
    )
    height, on_top = woven[..., 0], woven[..., 1]  # on_top: share of warp
    if order.missing:  # a warp thread ends: the weft lies bare, in a hollow
        lost_u, lost_v = order.flaw_rng.uniform(52, 72, size=2)
        half = 1.5 + 7.0 * order.missing
        bare = np.clip(half - np.abs(v - np.float32(lost_v)), 0, 1)
        bare *= np.clip(3 - 6 * np.abs(u - np.float32(int(lost_u) + 0.5)), 0, 1)
        bare *= np.float32(0.3 + 0.7 * order.missing)
        weft = np.float32(0.75) - (2 * (v % 1) - 1) ** 2
        height = height + bare * (weft - height)
        on_top = on_top * (1 - bare)

    indigo, cotton = (58.0, 82.0, 130.0), (148.0, 154.0, 160.0)
    for channel in range(3):
        step = np.float32(indigo[channel] - cotton[channel])
        part.paint[channel] = np.float32(cotton[channel]) + step * on_top
    warp_gain = rng.normal(1.0, 0.05, 128).astype(np.float32)[u.astype(np.intp) % 128]
    weft_gain = rng.normal(1.0, 0.03, 128).astype(np.float32)[v.astype(np.intp) % 128]
    thread = weft_gain + on_top * (warp_gain - weft_gain)
    part.gain = thread * (np.float32(0.6) + np.float32(0.4) * height)
    part.gain += np.float32(0.05) * clouds(rng, size, size[0], size[1])
    part.relief = height * (np.float32(0.2 * part.unit) / threads)
    return part


def _twill_tile(cell: int) -> FloatArray:
    """Height and share of warp of a 2/1 twill, 5 x 5 threads (repeats after 3)."""
    cv2, fine = opencv(), 24  # samples a thread before averaging
    axis = (np.arange(5 * fine, dtype=np.float32) + 0.5) / fine - 1
    u, v = np.meshgrid(axis, axis)
    diagonal = np.floor(u) + np.floor(v)
    over = diagonal % 3 != 0  # the warp lies on top for two threads out of three
    # Along its float a thread is highest in the middle and dives at both ends.
    warp_along = np.where(diagonal % 3 == 1, v % 1, 1 - v % 1)
    warp = np.sqrt(1 - (2 * (u % 1) - 1) ** 2) * (0.45 + 0.55 * warp_along**0.6)
    weft = np.sqrt(1 - (2 * (v % 1) - 1) ** 2) * np.sin(np.pi * (u % 1)) ** 0.5
    tile = np.stack([np.where(over, warp, weft), over], axis=2).astype(np.float32)
    small: FloatArray = cv2.resize(
        tile, (5 * cell, 5 * cell), interpolation=cv2.INTER_AREA
    )
    return small


def _connector(order: Order) -> Surface:
    """Ivory pin header on a circuit board that lies a little differently each time."""
    turn = float(np.clip(order.rng.normal(0.0, 0.012), -0.03, 0.03))
    board = _Board(order, _BOARD_GREEN, wander=0.008, angle=turn)
    columns = [0.088 * (number - 3.5) for number in range(8)]
    for x in columns:  # traces and soldered tails
        board.fill(_plate(x, 0.62, 0.022, 0.8), _TRACE, 4)
        board.fill(_plate(x, 0.225, 0.05, 0.085, 0.012), _TIN, 14)
        board.fill(_plate(x, 0.20, 0.026, 0.07, 0.006), _TIN, 40)
    for x, y in ((-0.33, -0.33), (-0.12, -0.33), (0.14, -0.35)):  # resistors
        board.fill(_plate(x, y, 0.12, 0.052, 0.004), _TIN, 18)
        board.fill(_plate(x, y, 0.07, 0.05), _HOLE, 34)
    board.fill(_disc(0.35, -0.35, 0.05), _TIN, 6)
    board.fill(_disc(0.35, -0.35, 0.03), _HOLE, 0)
    board.fill([(-0.44, 0.2), (-0.40, 0.225), (-0.44, 0.25)], _INK, 2)  # pin 1

    board.fill(_plate(0, 0, 0.80, 0.34, 0.008), _IVORY, 110, body=True)
    board.fill(_plate(0, -0.16, 0.22, 0.05), _BOARD_GREEN, 3, body=False)
    board.fill(_plate(0, 0.005, 0.71, 0.18, 0.006), _CAVITY, 45, body=False)
    absent = int(order.flaw_rng.integers(8))
    for number, x in enumerate(columns):
        board.fill(_plate(x, 0.005, 0.058, 0.085), _HOLE, 30)
        lost = 0.3 + 1.2 * order.missing if order.missing and number == absent else 0.0
        if lost < 1:  # a short pin ends deeper: smaller and darker
            gold, side = _between(_GOLD, _HOLE, lost), 0.036 * (1 - 0.5 * lost)
            board.fill(_plate(x, 0.005, side, side, 0.004), gold, 70)
            board.fill(_plate(x, 0.005, side / 2, side / 2, 0.003), gold, 95)

    part = board.surface(boldness=1.05)
    part.gain += np.float32(0.03) * clouds(order.rng, order.size, *order.size)
    return part


PARTS: dict[str, Callable[[Order], Surface]] = {
    "bracket": _bracket,
    "washer": _washer,
    "fabric": _fabric,
    "connector": _connector,
}
PART_NAMES: tuple[str, ...] = tuple(PARTS)
