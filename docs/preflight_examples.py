"""For each preflight code the smallest data set that raises it.

docs/preflight.md shows them, and a test runs them: what the page says is what happens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from pyimgano.datasets.catalog import DataSource
from pyimgano.workbench.config import CalibrationConfig
from pyimgano.workbench.preflight import PreflightPlan, PreflightReport, examine

Rows = list[dict[str, Any] | str]
SIZE: Final = (48, 64)  # height, width


@dataclass(frozen=True)
class Example:
    """A folder that `make` fills; gives the rows of m.jsonl, or None for none."""

    make: Callable[[Path], Rows | None]
    dataset: str = "manifest"
    manifest: str | None = "m.jsonl"
    root: str | None = None
    categories: tuple[str, ...] = ()
    rate: float = 0.01
    layout: str = ""  # the folders, where there is no manifest to show

    def run(self, folder: Path) -> tuple[PreflightReport, str]:
        """Fill the folder, examine it, give the report and the manifest's text."""
        rows = self.make(folder)
        text = ""
        if rows is not None:
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            text = "".join(f"{line}\n" for line in lines)
            (folder / "m.jsonl").write_text(text, encoding="utf-8")
        source = DataSource(
            self.dataset,
            None if self.manifest is None else folder / self.manifest,
            None if self.root is None else folder / self.root,
        )
        plan = PreflightPlan(
            source=source,
            categories=self.categories,
            calibration=CalibrationConfig(target_false_alarm_rate=self.rate),
        )
        return examine(plan).report, text

    def command(self) -> str:
        """Give the command that shows it."""
        words = ["pyimgano preflight"]
        if self.dataset == "manifest":
            words += (
                ["--manifest-path m.jsonl"] if self.manifest else ["--config c.json"]
            )
        else:
            words += [f"--dataset {self.dataset} --root {self.root}"]
        words += [f"--category {name}" for name in self.categories]
        return " ".join(words)


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    """A picture (H, W, 3) unlike those of other seeds: stains and grain."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=size).astype(np.float32)
    stains, grain = (cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (2.0, 0.7))
    grey = 128 + 35 * stains / stains.std() + 15 * grain / grain.std()
    return np.repeat(np.clip(grey, 1, 254).astype(np.uint8)[..., None], 3, axis=2)


def save(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """Write a picture; the suffix names the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def row(image: str = "a.png", **fields: Any) -> dict[str, Any]:
    """A row of a manifest: a train normal."""
    return {"image_path": image, "category": "part", "label": 0} | fields


def pictures(folder: Path, *names: str) -> None:
    """Write a picture of its own under each name."""
    for seed, name in enumerate(names):
        save(folder / name, photo(seed))


def rows_of(names: tuple[str, ...], **fields: Any) -> Callable[[Path], Rows]:
    """Pictures of these names, and a row for each."""

    def make(folder: Path) -> Rows:
        pictures(folder, *names)
        return [row(name, **fields) for name in names]

    return make


def literal(*lines: Any) -> Callable[[Path], Rows]:
    """The picture a.png, and these rows."""

    def make(folder: Path) -> Rows:
        pictures(folder, "a.png", "b.png")
        return list(lines)

    return make


def series(
    change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], n: int = 12
) -> Callable[[Path], Rows]:
    """Twelve good pictures, the last one changed."""

    def make(folder: Path) -> Rows:
        names = [f"{number:02}.png" for number in range(n)]
        pictures(folder, *names)
        save(folder / names[-1], change(photo(n - 1)))
        return [row(name) for name in names]

    return make


def masked(mask: np.ndarray[Any, Any], label: int = 1) -> Callable[[Path], Rows]:
    """A test picture with this mask."""

    def make(folder: Path) -> Rows:
        pictures(folder, "a.png", "b.png")
        save(folder / "mask.png", mask)
        return [
            row("a.png"),
            row("b.png", split="test", label=label, mask_path="mask.png"),
        ]

    return make


def damaged(name: str, data: Callable[[bytes], bytes]) -> Callable[[Path], Rows]:
    """A picture whose bytes were changed."""

    def make(folder: Path) -> Rows:
        pictures(folder, name)
        path = folder / name
        path.write_bytes(data(path.read_bytes()))
        return [row(name)]

    return make


def copies(*pairs: tuple[dict[str, Any], dict[str, Any]]) -> Callable[[Path], Rows]:
    """Two rows, a.png and copy.png, with the same bytes."""

    def make(folder: Path) -> Rows:
        pictures(folder, "a.png")
        (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
        return [row("a.png", **pairs[0][0]), row("copy.png", **pairs[0][1])]

    return make


def _folder_as_manifest(folder: Path) -> None:
    (folder / "m.jsonl").mkdir()


def _nothing(folder: Path) -> None:
    """Leave the folder empty."""


def _deep(folder: Path) -> Rows:
    save(folder / "a.png", photo(0).astype(np.uint16) * 257)
    return [row()]


def _large(folder: Path) -> Rows:
    # A header that promises 50,000 x 50,000 pixels; nothing is decoded.
    (folder / "a.pgm").write_bytes(b"P5 50000 50000 255\n" + bytes(100))
    return [row("a.pgm")]


def _array(values: np.ndarray[Any, Any]) -> Callable[[Path], Rows]:
    def make(folder: Path) -> Rows:
        np.save(folder / "a.npy", values)
        return [row("a.npy")]

    return make


def _animated(folder: Path) -> Rows:
    frames = [photo(0), photo(1)]
    assert cv2.imwritemulti(str(folder / "a.tiff"), frames)
    return [row("a.tiff")]


def _cmyk(folder: Path) -> Rows:
    # The start of a JPEG whose frame header names four colour components.
    head = bytes.fromhex("ffd8ffc0001408003000400401110002110103110104110000")
    (folder / "a.jpg").write_bytes(head[:-1] + bytes.fromhex("ffd9"))
    return [row("a.jpg")]


def _near(folder: Path) -> Rows:
    names = [f"{number:02}.png" for number in range(30)]
    for seed, name in enumerate(names):
        save(folder / name, photo(seed, (144, 192)))
    again = cv2.convertScaleAbs(photo(0, (144, 192)), alpha=0.9, beta=8)
    save(folder / "again.jpg", again)
    return [row(name, split="train") for name in names] + [
        row("again.jpg", split="test")
    ]


def _linked(folder: Path) -> Rows:
    outside = folder.parent / f"{folder.name}_elsewhere.png"
    save(outside, photo(0))
    (folder / "a.png").symlink_to(os.path.relpath(outside, folder))
    return [row()]


def _colliding(folder: Path) -> Rows:
    pictures(folder, "a.png", "A.png")
    return [row("a.png"), row("A.png")]


def _sizes(folder: Path) -> Rows:
    names = [f"{number:02}.png" for number in range(12)]
    for number, name in enumerate(names):
        save(folder / name, cv2.resize(photo(number), (64 + 2 * number, 48 + number)))
    return [row(name) for name in names]


def _one_bit(folder: Path) -> Rows:
    rows = series(lambda pixels: pixels[:, :, 0])(folder)
    for number in range(12):
        save(folder / f"{number:02}.png", photo(number)[:, :, 0])
    black_white = (photo(11)[:, :, 0] > 128).astype(np.uint8) * 255
    options = [cv2.IMWRITE_PNG_BILEVEL, 1]
    assert cv2.imwrite(str(folder / "11.png"), black_white, options)
    return rows


def _mask_of_noise(folder: Path) -> Rows:
    made = masked(np.zeros(SIZE, np.uint8))(folder)
    (folder / "mask.png").write_bytes(b"no picture")
    return made


def _no_normals(folder: Path) -> Rows:
    pictures(folder, "a.png")
    return [row(split="test")]


def _mvtec_without_pictures(folder: Path) -> None:
    (folder / "screw" / "train" / "good").mkdir(parents=True)


def _custom_without_label(folder: Path) -> None:
    save(folder / "photos" / "train" / "good" / "1.png", photo(0))
    save(folder / "photos" / "test" / "2.png", photo(1))


WHITE: Final = np.full(SIZE, 255, np.uint8)
GREYS: Final = np.tile(np.arange(SIZE[1], dtype=np.uint8) * 4, (SIZE[0], 1))

# What is special about the files of an example.
NOTES: Final = {
    "MANIFEST_PATH_MISSING": "a config without dataset.manifest_path",
    "MANIFEST_NOT_FOUND": "no m.jsonl",
    "MANIFEST_NOT_READABLE": "m.jsonl is a folder",
    "MANIFEST_MISSING_IMAGE": "the file is called a.png",
    "IMAGE_TRUNCATED": "a.png has half of its bytes",
    "IMAGE_EMPTY": "a.png has 0 bytes",
    "IMAGE_UNREADABLE": 'a.png holds the text "no picture"',
    "IMAGE_BIT_DEPTH": "a.png has 16 bits per channel",
    "IMAGE_COLOR_SPACE": "a.jpg has four colours",
    "IMAGE_FRAMES": "a.tiff holds two pictures",
    "IMAGE_TOO_LARGE": "a.pgm: its header says 50000 x 50000",
    "IMAGE_DTYPE": "a.npy: float32",
    "IMAGE_SHAPE": "a.npy: channels first",
    "IMAGE_SIZE_UNUSUAL": "11.png is narrower than the others",
    "IMAGE_SIZES_VARY": "each has a size of its own",
    "IMAGE_CHANNELS_UNUSUAL": "11.png is grey, the others are RGB",
    "IMAGE_BIT_DEPTH_UNUSUAL": "11.png has 1 bit per pixel",
    "IMAGE_TOO_DARK": "11.png: a sixteenth of the light",
    "IMAGE_SATURATED": "11.png: twice the light",
    "IMAGE_BLURRED": "11.png is out of focus",
    "IMAGE_CONSTANT": "11.png: grey level 90 everywhere",
    "MASK_UNREADABLE": 'mask.png holds the text "no picture"',
    "MASK_SIZE_MISMATCH": "mask.png is half as wide as b.png",
    "MASK_EMPTY": "mask.png holds the value 1 only",
    "MASK_NOT_BINARY": "mask.png is a ramp of grey levels",
    "MASK_ON_NORMAL": "mask.png is white",
    "DUPLICATE_IN_TRAIN_AND_TEST": "copy.png has the bytes of a.png",
    "DUPLICATE_IN_TRAIN_AND_VAL": "copy.png has the bytes of a.png",
    "DUPLICATE_IN_SPLIT": "copy.png has the bytes of a.png",
    "DUPLICATE_IN_CATEGORIES": "copy.png has the bytes of a.png",
    "DUPLICATE_WITH_OTHER_LABEL": "copy.png has the bytes of a.png",
    "NEAR_DUPLICATE_IN_TRAIN_AND_TEST": "again.jpg is 00.png, exposed differently",
    "PATH_LINK": "a.png is a link to ../data_elsewhere.png",
    "PATH_COLLISION": "both files are there",
}

EXAMPLES: Final[dict[str, Example]] = {
    "MANIFEST_PATH_MISSING": Example(_nothing, manifest=None),
    "MANIFEST_NOT_FOUND": Example(_nothing),
    "MANIFEST_NOT_READABLE": Example(_folder_as_manifest),
    "MANIFEST_EMPTY": Example(literal("# no rows yet")),
    "MANIFEST_INVALID_JSON": Example(literal('{"image_path": "a.png", "label": 0 0}')),
    "MANIFEST_INVALID_RECORD": Example(literal(row(lable=1))),
    "MANIFEST_PATH_ESCAPE": Example(literal(row("../a.png"))),
    "MANIFEST_MISSING_IMAGE": Example(literal(row("a.jpg"))),
    "MANIFEST_MISSING_MASK": Example(
        literal(row(split="test", label=1, mask_path="mask.png"))
    ),
    "MANIFEST_DUPLICATE_IMAGE": Example(literal(row("a.png"), row("./a.png"))),
    "MANIFEST_CATEGORY_EMPTY": Example(literal(row()), categories=("prat",)),
    "MANIFEST_GROUP_SPLIT_CONFLICT": Example(
        literal(
            row("a.png", group_id="lot-7", split="train"),
            row("b.png", group_id="lot-7", split="test"),
        )
    ),
    "MANIFEST_GROUP_ANOMALY_IN_TRAIN": Example(
        literal(
            row("a.png", group_id="lot-7", split="train"),
            row("b.png", group_id="lot-7", label=1),
        )
    ),
    "MANIFEST_ANOMALY_IN_TRAIN": Example(
        literal(row("a.png"), row("b.png", label=1, split="train"))
    ),
    "DATASET_UNKNOWN": Example(
        _nothing, dataset="mvtek", manifest=None, root=".", layout="any"
    ),
    "DATASET_ROOT_MISSING": Example(
        _nothing, dataset="mvtec", manifest=None, root="gone", layout="gone: no folder"
    ),
    "DATASET_CATEGORY_EMPTY": Example(
        _mvtec_without_pictures,
        dataset="mvtec",
        manifest=None,
        root=".",
        layout="screw/train/good/   (empty)",
    ),
    "DATASET_INVALID_STRUCTURE": Example(
        _custom_without_label,
        dataset="custom",
        manifest=None,
        root="photos",
        layout="photos/train/good/1.png\nphotos/test/2.png",
    ),
    "NO_NORMALS_TO_TRAIN": Example(_no_normals),
    "TOO_FEW_NORMALS_TO_TRAIN": Example(rows_of(("a.png", "b.png"))),
    "CALIBRATION_IMPOSSIBLE": Example(literal(row())),
    "TOO_FEW_NORMALS_TO_CALIBRATE": Example(rows_of(("a.png", "b.png"), split="train")),
    "TEST_WITHOUT_NORMALS": Example(rows_of(("a.png", "b.png"), split="train")),
    "TEST_WITHOUT_ANOMALIES": Example(rows_of(("a.png", "b.png"), split="train")),
    "TEST_ANOMALIES_WITHOUT_MASK": Example(
        literal(row("a.png"), row("b.png", label=1, split="test"))
    ),
    "IMAGE_TRUNCATED": Example(damaged("a.png", lambda data: data[: len(data) // 2])),
    "IMAGE_EMPTY": Example(damaged("a.png", lambda data: b"")),
    "IMAGE_UNREADABLE": Example(damaged("a.png", lambda data: b"no picture")),
    "IMAGE_BIT_DEPTH": Example(_deep),
    "IMAGE_COLOR_SPACE": Example(_cmyk),
    "IMAGE_FRAMES": Example(_animated),
    "IMAGE_TOO_LARGE": Example(_large),
    "IMAGE_DTYPE": Example(_array(np.zeros(SIZE, np.float32))),
    "IMAGE_SHAPE": Example(_array(np.zeros((3, *SIZE), np.uint8))),
    "IMAGE_SIZE_UNUSUAL": Example(series(lambda pixels: pixels[:, :40])),
    "IMAGE_SIZES_VARY": Example(_sizes),
    "IMAGE_CHANNELS_UNUSUAL": Example(series(lambda pixels: pixels[:, :, 0])),
    "IMAGE_BIT_DEPTH_UNUSUAL": Example(_one_bit),
    "IMAGE_TOO_DARK": Example(series(lambda pixels: pixels // 16)),
    "IMAGE_SATURATED": Example(
        series(lambda pixels: cv2.convertScaleAbs(pixels, alpha=2.0))
    ),
    "IMAGE_BLURRED": Example(
        series(lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 6.0))
    ),
    "IMAGE_CONSTANT": Example(series(lambda pixels: np.full_like(pixels, 90))),
    "MASK_UNREADABLE": Example(_mask_of_noise),
    "MASK_SIZE_MISMATCH": Example(masked(WHITE[:, :32])),
    "MASK_EMPTY": Example(masked(WHITE // 255)),
    "MASK_NOT_BINARY": Example(masked(GREYS)),
    "MASK_ON_NORMAL": Example(masked(WHITE, label=0)),
    "DUPLICATE_IN_TRAIN_AND_TEST": Example(
        copies(({"split": "train"}, {"split": "test"}))
    ),
    "DUPLICATE_IN_TRAIN_AND_VAL": Example(
        copies(({"split": "train"}, {"split": "val"}))
    ),
    "DUPLICATE_IN_SPLIT": Example(copies(({"split": "train"}, {"split": "train"}))),
    "DUPLICATE_IN_CATEGORIES": Example(
        copies(({"category": "left"}, {"category": "right"}))
    ),
    "DUPLICATE_WITH_OTHER_LABEL": Example(
        copies(({"split": "test"}, {"split": "test", "label": 1}))
    ),
    "NEAR_DUPLICATE_IN_TRAIN_AND_TEST": Example(_near),
    "PATH_LINK": Example(_linked),
    "PATH_COLLISION": Example(_colliding),
    "PATH_NOT_PORTABLE": Example(rows_of(("aux.png",))),
}

# Codes that a page cannot show as a manifest, and why.
NOT_SHOWN: Final = {
    "IMAGE_MISSING": "a file that vanishes while preflight runs",
    "IMAGE_NOT_A_FILE": "a file replaced by a folder or device while preflight runs",
    "IMAGE_TOO_SMALL": "the input rules of new detectors allow every size",
    "IMAGE_SIZE": "the input rules of new detectors allow every size",
    "DECODER_MISSING": "an installation without OpenCV",
    "IMAGE_READ_FAILED": "a file without the permission to read it",
}
