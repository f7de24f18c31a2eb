"""Seeded pictures of factory parts, with defects and exact masks.

For the demo, the tests and the documentation: no download, no licence, no photograph
of anybody's product. A part is drawn as a relief with paint and gloss, lit from the
upper left and photographed. A defect changes the part before the camera sees it, so
its mask is a measurement: the pixels that differ from the same photograph without the
defect. Severity is drawn evenly from faint to obvious.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyimgano.datasets.part_surfaces import (
    PART_NAMES,
    PARTS,
    SUB_PIXEL_BITS,
    FloatArray,
    Order,
    Surface,
    clouds,
    opencv,
)

ByteArray = NDArray[np.uint8]

__all__ = ["DEFECT_NAMES", "PART_NAMES", "GeneratedPart", "draw_part", "write_parts"]

DEFECT_NAMES: tuple[str, ...] = ("scratch", "dent", "stain", "missing")
MASK_GREY_LEVELS = 4  # a masked pixel differs by more than this in some channel
MIN_MASK_FRACTION = 0.0004  # of the image: 26 pixels at 256 x 256
MIN_SIDE = 32  # pixels; below this a scratch is thinner than the camera's blur


@dataclass(frozen=True, slots=True)
class GeneratedPart:
    """One photograph. Mask empty and severity 0 where `defect` is None."""

    name: str
    image_u8: ByteArray  # (H, W, 3) RGB
    mask: NDArray[np.bool_]  # (H, W)
    defect: str | None
    severity: float  # 0 faint .. 1 obvious


def draw_part(
    name: str,
    rng: np.random.Generator,
    *,
    size: tuple[int, int] = (256, 256),
    defect: str | None = None,
    severity: float | None = None,
) -> GeneratedPart:
    """Photograph of one part; the same generator state gives the same pixels.

    That holds for one version of NumPy and OpenCV; others may round differently.

    Pose, light, surface and camera noise do not depend on the defect: two generators
    with equal seeds draw the same part with and without it.

    Args:
        name: One of PART_NAMES.
        rng: Source of all randomness; advanced by the same amount in every call.
        size: (height, width) in pixels.
        defect: One of DEFECT_NAMES, or None for a good part.
        severity: 0 faint .. 1 obvious; drawn evenly from that range if not given.
            Raised where the mask would be smaller than MIN_MASK_FRACTION.

    Raises:
        ValueError: Unknown name or defect, a side below MIN_SIDE, severity not 0..1.
    """
    _check(name, size, defect, severity)
    part_seed, camera_seed, flaw_seed = (
        int(seed) for seed in rng.integers(0, 2**63, size=3)
    )

    noise = np.random.default_rng([camera_seed, 1]).standard_normal(
        (*size, 3), dtype=np.float32
    )

    def photograph(kind: str | None, strength: float, place: int) -> ByteArray:
        flaw_rng = np.random.default_rng([flaw_seed, place])
        missing = max(strength, 0.01) if kind == "missing" else 0.0
        order = Order(np.random.default_rng(part_seed), size, missing, flaw_rng)
        surface = PARTS[name](order)
        if kind in _SURFACE_DEFECTS:
            _SURFACE_DEFECTS[kind](surface, flaw_rng, strength)
        return _expose(surface, np.random.default_rng([camera_seed, 0]), noise)

    good_u8 = photograph(None, 0.0, 1)
    if defect is None:
        return GeneratedPart(name, good_u8, np.zeros(size, np.bool_), None, 0.0)

    if severity is None:
        severity = float(np.random.default_rng([flaw_seed, 0]).random())
    place = 1
    while True:  # until it can be seen: first more severe, then elsewhere
        image_u8 = photograph(defect, severity, place)
        mask = _changed(good_u8, image_u8)
        if mask.mean() >= MIN_MASK_FRACTION:
            return GeneratedPart(name, image_u8, mask, defect, severity)
        place += severity >= 1.0
        severity = min(1.0, severity + 0.1)


def write_parts(
    folder: Path,
    *,
    parts: Sequence[str] = ("bracket",),
    n_train: int = 60,
    n_test_normal: int = 30,
    n_test_defect: int = 30,
    size: tuple[int, int] = (256, 256),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Path of the manifest of a new data set of PNG files in `folder`.

    Counts are per part; the defects take turns. Each image has its own seed, kept in
    the manifest (`meta.generator_seed`), so a larger set contains the smaller one.

    Args:
        progress: Called with (images written, images in all) after each image.
    """
    plan: list[tuple[str, str, str | None, int]] = []
    for part in parts:
        _check(part, size, None, None)
        plan += [(part, "train", None, index) for index in range(n_train)]
        plan += [(part, "test", None, index) for index in range(n_test_normal)]
        for index in range(n_test_defect):
            turn, kind = divmod(index, len(DEFECT_NAMES))
            plan.append((part, "test", DEFECT_NAMES[kind], turn))

    lines = []
    for done, (part, split, defect, index) in enumerate(plan, start=1):
        stem = f"{part}/{split}/{defect or 'good'}/{index:03d}"
        image_seed = _image_seed(seed, stem)
        drawn = draw_part(
            part, np.random.default_rng(image_seed), size=size, defect=defect
        )
        image_path, mask_path = f"images/{stem}.png", f"masks/{stem}.png"
        _write_png(folder / image_path, drawn.image_u8)
        if defect:
            _write_png(folder / mask_path, drawn.mask.astype(np.uint8) * 255)
        row = {
            "image_path": image_path,
            "category": part,
            "split": split,
            "label": int(defect is not None),
            "mask_path": mask_path if defect else None,
            "group_id": stem.replace("/", "-"),
            "meta": {
                "defect": defect,
                "severity": round(drawn.severity, 3),
                "generator_seed": image_seed,
            },
        }
        lines.append(json.dumps(row) + "\n")
        if progress:
            progress(done, len(plan))

    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / ".manifest.jsonl.new"
    unfinished.write_text("".join(lines), encoding="utf-8", newline="\n")
    return unfinished.replace(folder / "manifest.jsonl")


def _check(
    name: str, size: tuple[int, int], defect: str | None, severity: float | None
) -> None:
    if name not in PART_NAMES:
        raise ValueError(f"unknown part {name!r}; known: {', '.join(PART_NAMES)}")
    if defect is not None and defect not in DEFECT_NAMES:
        raise ValueError(f"unknown defect {defect!r}; known: {', '.join(DEFECT_NAMES)}")
    if min(size) < MIN_SIDE:
        raise ValueError(f"size {size}: each side must be at least {MIN_SIDE} pixels")
    if severity is not None and not 0.0 <= severity <= 1.0:
        raise ValueError(f"severity {severity}: must lie between 0 and 1")


def _changed(good_u8: ByteArray, image_u8: ByteArray) -> NDArray[np.bool_]:
    red, green, blue = np.moveaxis(opencv().absdiff(good_u8, image_u8), 2, 0)
    largest = np.maximum(np.maximum(red, green), blue)  # .max(axis=2) is 10x slower
    mask: NDArray[np.bool_] = largest > MASK_GREY_LEVELS
    return mask


def _image_seed(seed: int, stem: str) -> int:
    """53 bits, so that a JSON reader in JavaScript keeps every digit."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(stem.encode())])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 11


def _write_png(path: Path, pixels: ByteArray) -> None:
    cv2 = opencv()
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    # Camera noise holds no repeats worth a search: smaller and quicker than level 1.
    huffman = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    encoded = cv2.imencode(".png", pixels, huffman)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())


# --- defects ------------------------------------------------------------------------


def _scratch(part: Surface, rng: np.random.Generator, severity: float) -> None:
    """A curved groove, brighter or darker than the surface."""
    cv2 = opencv()
    middle, _ = _place(part, rng)
    heading = rng.uniform(0.0, 2 * np.pi)
    length = part.unit * part.boldness * rng.uniform(0.08, 0.16 + 0.16 * severity)
    along = np.array([np.cos(heading), np.sin(heading)])
    aside = np.array([-along[1], along[0]]) * rng.normal(0.0, 0.12)
    t = np.linspace(-0.5, 0.5, 24)[:, None]
    path = middle + length * (t * along + (4 * t * t - 1) * aside)

    rows, columns = part.gain.shape
    line = np.zeros((2 * rows, 2 * columns), np.uint8)
    points = [np.rint(2 * path * 2**SUB_PIXEL_BITS).astype(np.int32)]
    width = max(
        1, round(part.unit / 256 * part.boldness * (1.5 + 1.5 * severity))
    )  # half pixels
    cv2.polylines(line, points, False, 255, width, cv2.LINE_AA, SUB_PIXEL_BITS)
    line = cv2.resize(line, (columns, rows), interpolation=cv2.INTER_AREA)
    depth = line * part.body * np.float32(1 / 255)
    strength = part.boldness * (0.12 + 0.5 * severity)
    brightness = strength if rng.random() < 0.6 else -min(0.55, 0.8 * strength)
    part.gain += np.float32(brightness) * depth
    part.relief -= np.float32((0.2 + 0.8 * severity) * part.unit / 256) * depth


def _dent(part: Surface, rng: np.random.Generator, severity: float) -> None:
    """A smooth oval hollow: the paint stays, only the light tells."""
    middle, free = _place(part, rng)
    wanted = part.unit * part.boldness * rng.uniform(0.022, 0.045)
    radius = max(1.2, min(wanted, 0.6 * free))  # pixels
    bowl = np.exp(-_squared_distance(part, rng, middle, radius))
    part.relief -= np.float32((0.08 + 0.4 * severity) * part.boldness * radius) * bowl


def _stain(part: Surface, rng: np.random.Generator, severity: float) -> None:
    """A translucent blot with a darker rim that takes away the gloss."""
    middle, _ = _place(part, rng)
    radius = part.unit * part.boldness * rng.uniform(0.025, 0.05 + 0.02 * severity)
    edge = np.sqrt(_squared_distance(part, rng, middle, radius))
    edge += np.float32(0.3) * clouds(rng, part.gain.shape, 20, 20)
    edge += np.float32(0.1) * clouds(rng, part.gain.shape, 70, 70)
    blot = np.clip((1.2 - edge) * 2.5, 0, 1) * part.body
    rim = np.exp(-(((edge - 0.9) * 6) ** 2)) * blot
    cover = np.float32(part.boldness * (0.10 + 0.45 * severity)) * (
        0.8 * blot + 0.2 * rim
    )
    tints = ((0.62, 0.45, 0.22), (0.20, 0.21, 0.25), (0.62, 0.36, 0.22))
    for plane, share in zip(
        part.paint, tints[int(rng.integers(len(tints)))], strict=False
    ):
        plane *= 1 - cover * np.float32(1 - share)
    part.sheen *= 1 - cover


_SURFACE_DEFECTS = {"scratch": _scratch, "dent": _dent, "stain": _stain}


def _place(
    part: Surface, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """A pixel (x, y) of the body and its distance from the body's edge, in pixels."""
    cv2 = opencv()
    solid = (part.body > 0.99).astype(np.uint8)
    free = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
    rows, columns = np.nonzero(free > 0.022 * part.unit)
    chosen = int(rng.integers(len(rows)))
    row, column = int(rows[chosen]), int(columns[chosen])
    return np.array([column, row], np.float64), float(free[row, column])


def _squared_distance(
    part: Surface, rng: np.random.Generator, middle: NDArray[np.float64], radius: float
) -> FloatArray:
    """Squared distance of each pixel from the middle of an oval; 1 on its edge."""
    rows, columns = part.gain.shape
    x = ((np.arange(columns) - middle[0]) / radius).astype(np.float32)[None, :]
    y = ((np.arange(rows) - middle[1]) / radius).astype(np.float32)[:, None]
    angle, stretch = rng.uniform(0.0, np.pi), np.float32(rng.uniform(0.6, 1.0))
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    squared: FloatArray = (x * cos + y * sin) ** 2 + (
        (y * cos - x * sin) / stretch
    ) ** 2
    return squared


# --- light and camera ---------------------------------------------------------------


def _expose(part: Surface, rng: np.random.Generator, noise: FloatArray) -> ByteArray:
    """Light the part from the upper left and take the picture (H, W, 3)."""
    cv2 = opencv()
    rows, columns = part.gain.shape
    azimuth, height = rng.normal(-2.25, 0.05), rng.normal(1.35, 0.05)
    lamp = np.array([np.cos(azimuth), np.sin(azimuth), height])
    lamp /= np.linalg.norm(lamp)
    halfway = lamp + np.array([0.0, 0.0, 1.0])
    halfway /= np.linalg.norm(halfway)

    slope_x = cv2.Sobel(part.relief, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    slope_y = cv2.Sobel(part.relief, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    steepness = cv2.sqrt(1 + slope_x * slope_x + slope_y * slope_y)

    def facing(direction: NDArray[np.float64]) -> FloatArray:
        x, y, z = direction.astype(np.float32)
        toward: FloatArray = np.maximum((z - slope_x * x - slope_y * y) / steepness, 0)
        return toward

    # What stands higher on the lamp's side throws a soft shadow.
    throw = -0.022 * part.unit * lamp[:2]
    move = np.array([[1, 0, throw[0]], [0, 1, throw[1]]], np.float32)
    raised = cv2.GaussianBlur(part.ground, (0, 0), 0.0125 * part.unit)
    raised = cv2.warpAffine(
        raised, move, (columns, rows), borderMode=cv2.BORDER_REPLICATE
    )
    shadow = np.clip((raised - part.ground) * np.float32(1 / 110), 0, 0.62)

    # Fall-off towards the corners, and a lamp that is brighter along one band.
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    tilt = rng.normal(-0.06, 0.025, size=2).astype(np.float32)
    field = (1.04 - 0.08 * (x * x + y * y) + tilt[0] * x + tilt[1] * y) * (1 - shadow)
    centre = np.float32(rng.normal(-0.35, 0.06))
    band = 0.4 + 0.75 * np.exp(-((0.8 * x + y - centre) ** 2) / 0.5)
    diffuse = (0.42 + np.float32(0.58 / lamp[2]) * facing(lamp)) * part.gain
    glint = cv2.pow(facing(halfway), 24.0) * part.sheen * part.paint[3] * band

    light, shine = diffuse * field, glint * field
    colour_cast = rng.normal(1.0, 0.025) * rng.normal(1.0, 0.006, size=3)
    planes = [
        (part.paint[channel] * light + shine) * np.float32(colour_cast[channel])
        for channel in range(3)
    ]
    picture = cv2.GaussianBlur(cv2.merge(planes), (3, 3), 0.5)
    spread = cv2.sqrt(np.float32(1.0) + np.float32(0.012) * np.abs(picture))
    exposed: ByteArray = cv2.add(picture, noise * spread, dtype=cv2.CV_8U)  # rounds
    return exposed
