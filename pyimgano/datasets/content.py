"""Decodes every picture and mask of a data set once and keeps its facts.

Facts stand in one table of arrays, about 200 bytes a picture; what cannot be decoded
is logged on the way. Decoding runs on all cores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.decode import decode_bytes, inspect_bytes, read_file
from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.ordered_threads import in_order

from .images import mask_files, mask_problem, row_prefix, shrunk, size_problem
from .issues import IssueLog, IssueSeverity
from .near_duplicates import DESCRIPTOR_SIZE, descriptor
from .rows import MASK_ABOVE, ManifestRow

Grey = npt.NDArray[np.uint8]

MEASURED_SIDE: Final = 512  # px; larger pictures are measured at this longer side


@dataclass(frozen=True, slots=True)
class PictureTable:
    """Facts of n pictures, one entry a row of the data set.

    Attributes:
        decoded: (n,) whether the picture could be decoded; else its facts are 0.
        digest: (n, 32) sha256 of the file.
        size: (n, 2) height and width in pixels, upright.
        channels, bit_depth: (n,) as stored.
        mean: (n,) mean grey level, 0..255.
        bright: (n,) grey level below which 99 % of the pixels are.
        white: (n,) share of pixels at 255.
        deviation: (n,) standard deviation of the grey levels.
        sharpness: (n,) mean |Laplacian| over the deviation: falls with blur, but not
            with contrast.
        descriptor: (n, D) int8, see `near_duplicates.descriptor`.
    """

    decoded: npt.NDArray[np.bool_]
    digest: npt.NDArray[np.uint8]
    size: npt.NDArray[np.int32]
    channels: npt.NDArray[np.uint8]
    bit_depth: npt.NDArray[np.uint8]
    mean: npt.NDArray[np.float32]
    bright: npt.NDArray[np.uint8]
    white: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]
    sharpness: npt.NDArray[np.float32]
    descriptor: npt.NDArray[np.int8]

    @classmethod
    def empty(cls, n: int) -> PictureTable:
        """Give a table of n entries that nothing is known of."""
        return cls(
            decoded=np.zeros(n, np.bool_),
            digest=np.zeros((n, 32), np.uint8),
            size=np.zeros((n, 2), np.int32),
            channels=np.zeros(n, np.uint8),
            bit_depth=np.zeros(n, np.uint8),
            mean=np.zeros(n, np.float32),
            bright=np.zeros(n, np.uint8),
            white=np.zeros(n, np.float32),
            deviation=np.zeros(n, np.float32),
            sharpness=np.zeros(n, np.float32),
            descriptor=np.zeros((n, DESCRIPTOR_SIZE), np.int8),
        )


@dataclass(frozen=True, slots=True)
class _Finding:
    """An issue that one row gave, before it is logged."""

    code: str
    message: str
    severity: IssueSeverity | None
    facts: dict[str, Any]


def measure_pictures(
    rows: Sequence[ManifestRow],
    rules: InputRules,
    log: IssueLog,
    *,
    threads: int,
    progress: Callable[[int, int], None],
) -> PictureTable:
    """Decode every picture and mask of the rows and give the facts, in their order.

    Unreadable pictures and masks, and masks that do not fit, are logged.
    """
    table = PictureTable.empty(len(rows))

    def one(index: int) -> list[_Finding]:
        return _measure(rows[index], table, index, rules)

    for done, (row, findings) in enumerate(
        zip(rows, in_order(one, len(rows), threads=threads), strict=True), start=1
    ):
        for found in findings:
            log.add(
                found.code,
                found.message,
                severity=found.severity,
                category=row.category,
                line=row.line,
                image=row.image,
                **found.facts,
            )
        progress(done, len(rows))
    return table


def _measure(
    row: ManifestRow, table: PictureTable, index: int, rules: InputRules
) -> list[_Finding]:
    """Fill one entry of the table and give what is wrong with the row."""
    name = row.image_file
    try:
        data = read_file(name, rules)
        table.digest[index] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        header = inspect_bytes(data, rules, name)
        pixels = decode_bytes(data, rules, name=name)
    except ImageError as error:
        message = f"{row_prefix(row)}{error}; replace the picture or remove the row"
        return [_Finding(error.code, message, None, {}), *_check_mask(row, None, rules)]
    table.size[index] = pixels.shape[:2]
    table.channels[index] = header.channels
    table.bit_depth[index] = header.bit_depth
    _measure_grey(grey_of(pixels), table, index)
    table.decoded[index] = True
    return _check_mask(row, (pixels.shape[0], pixels.shape[1]), rules)


def grey_of(pixels: npt.NDArray[np.uint8]) -> Grey:
    """Give (H, W) uint8 grey of (H, W, 3) RGB."""
    import cv2

    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _measure_grey(grey: Grey, table: PictureTable, index: int) -> None:
    import cv2

    counts = cv2.calcHist([grey], [0], None, [256], [0, 256])
    shares = np.asarray(counts, np.float64).reshape(256) / grey.size
    levels = np.arange(256)
    mean = float(shares @ levels)
    deviation = float(np.sqrt(shares @ (levels - mean) ** 2))
    table.mean[index] = mean
    table.deviation[index] = deviation
    table.bright[index] = int(np.searchsorted(np.cumsum(shares), 0.99))
    table.white[index] = shares[255]
    grey = shrunk(grey, MEASURED_SIDE)
    edges = cv2.norm(cv2.Laplacian(grey, cv2.CV_16S), cv2.NORM_L1) / grey.size
    table.sharpness[index] = edges / max(deviation, 1.0)
    table.descriptor[index] = descriptor(grey)


def _check_mask(
    row: ManifestRow, size: tuple[int, int] | None, rules: InputRules
) -> list[_Finding]:
    """Give what is wrong with a row's mask; `size` is None for a broken picture."""
    findings: list[_Finding] = []
    highest, n_marked, levels = 0, 0, 0
    files = mask_files(row.mask_path)
    for path in files:
        facts: dict[str, Any] = {"mask": str(path)}
        try:
            data = read_file(path, rules)
            # Its header first: another size is found without decoding.
            found = inspect_bytes(data, rules, str(path)).size
            if size is not None and found != size:
                message = f"{row_prefix(row)}{size_problem(path, found, size)}"
                facts |= {"mask_size": list(found), "image_size": list(size)}
                # Nothing is read from the mask of a normal.
                severity: IssueSeverity | None = None if row.label == 1 else "warning"
                findings.append(
                    _Finding("MASK_SIZE_MISMATCH", message, severity, facts)
                )
            pixels = decode_bytes(data, rules, name=str(path)).max(axis=2)
        except ImageError as error:
            message = f"{row_prefix(row)}{mask_problem(error)}"
            facts["reason"] = error.code
            findings.append(_Finding("MASK_UNREADABLE", message, None, facts))
            continue
        counts = np.bincount(pixels.ravel(), minlength=256)
        highest = max(highest, int(np.flatnonzero(counts)[-1]))
        n_marked += int(counts[row.mask_above + 1 :].sum())
        levels = max(levels, int(np.count_nonzero(counts)))
    if row.mask is not None and not files and row.label == 1:
        message = (
            f"{row_prefix(row)}{row.mask_path}: the mask is a folder without pictures; "
            "put the mask there, or give the row no mask"
        )
        return [_Finding("MASK_EMPTY", message, None, {"mask": str(row.mask_path)})]
    if findings or not files:
        return findings
    return _check_marks(row, highest, n_marked, levels)


def _check_marks(
    row: ManifestRow, highest: int, n_marked: int, levels: int
) -> list[_Finding]:
    path, where = row.mask_path, row_prefix(row)
    facts = {"mask": str(path), "marked_pixels": n_marked}
    if row.label == 0:
        what = f"marks {n_marked} pixels" if n_marked else "is blank"
        message = (
            f"{where}{path}: the mask {what}, but its picture is labelled normal; "
            "correct the label, or set mask_path to null"
        )
        severity: IssueSeverity = "warning" if n_marked else "info"
        return [_Finding("MASK_ON_NORMAL", message, severity, facts)]
    if not n_marked:
        advice = (
            "set mask_above to 0 in its row, or make the defect 255"
            if highest
            else "make the defect 255 (white), or give the row no mask"
        )
        message = (
            f"{where}{path}: the mask marks nothing: its values reach {highest}, a "
            f"defect is expected above {row.mask_above}; {advice}"
        )
        return [
            _Finding("MASK_EMPTY", message, None, facts | {"highest_value": highest})
        ]
    if levels > 2 and row.mask_above == MASK_ABOVE:
        message = (
            f"{where}{path}: the mask has {levels} different values, expected 2; "
            f"values above {row.mask_above} are taken as defect. Save it as PNG with "
            "0 and 255, or state mask_above in its row"
        )
        return [_Finding("MASK_NOT_BINARY", message, None, facts | {"levels": levels})]
    return []
