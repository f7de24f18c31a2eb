"""Tiny data sets in the folders of each layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyimgano.datasets.catalog import (
    DataSource,
    scan_dataset,
)
from pyimgano.datasets.issues import IssueLog, PreflightIssue
from pyimgano.datasets.rows import ManifestRow


def draw(root: Path, *names: str, value: int = 90) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((6, 8), value, np.uint8))
    return root


def scan(
    dataset: str, root: Path, categories: Sequence[str] = ()
) -> tuple[list[ManifestRow], list[PreflightIssue]]:
    log = IssueLog()
    rows = scan_dataset(DataSource(dataset, root=root), log, categories=categories)
    return rows, log.issues


def rows_of(dataset: str, root: Path) -> list[ManifestRow]:
    rows, issues = scan(dataset, root)
    assert not issues
    return rows


def summary(rows: list[ManifestRow]) -> dict[str, tuple[str | None, int, str | None]]:
    return {row.image: (row.split, row.label, row.mask) for row in rows}


def codes(issues: list[PreflightIssue], severity: str = "error") -> list[str]:
    return [issue.code for issue in issues if issue.severity == severity]


def message(issues: list[PreflightIssue], code: str) -> str:
    return next(issue.message for issue in issues if issue.code == code)


def mvtec(root: Path) -> Path:
    return draw(
        root,
        "bottle/train/good/000.png",
        "bottle/train/good/001.png",
        "bottle/test/good/000.png",
        "bottle/test/big crack/000.png",
        "bottle/ground_truth/big crack/000_mask.png",
    )


def mvtec_loco(root: Path) -> Path:
    return draw(
        root,
        "bag/train/good/000.png",
        "bag/validation/good/000.png",
        "bag/test/good/000.png",
        "bag/test/logical_anomalies/000.png",
        "bag/test/structural_anomalies/000.png",
        "bag/ground_truth/logical_anomalies/000/000.png",
        "bag/ground_truth/logical_anomalies/000/001.png",
        "bag/ground_truth/structural_anomalies/000/000.png",
    )


def mvtec_ad2(root: Path) -> Path:
    return draw(
        root,
        "can/train/good/000_regular.png",
        "can/validation/good/000_regular.png",
        "can/test_public/good/000_regular.png",
        "can/test_public/bad/000_regular.png",
        "can/test_public/ground_truth/bad/000_regular_mask.png",
        "can/test_private/000_regular.png",
        "can/test_private_mixed/000_mixed.png",
    )


def btad(root: Path) -> Path:
    return draw(
        root,
        "01/train/ok/0000.bmp",
        "01/test/ok/0000.bmp",
        "01/test/ko/0000.bmp",
        "01/ground_truth/ko/0000.png",
        "03/train/ok/0000.bmp",
        "03/test/ko/0000.bmp",
        "03/ground_truth/ko/0000.bmp",
    )


TABLE = [
    "object,split,label,image,mask",
    "candle,train,normal,candle/Data/Images/Normal/0000.JPG,",
    "candle,test,normal,candle/Data/Images/Normal/0001.JPG,",
    "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,"
    "candle/Data/Masks/Anomaly/000.png",
]


def visa_folders(root: Path) -> Path:
    draw(
        root,
        "candle/Data/Images/Normal/0000.JPG",
        "candle/Data/Images/Normal/0001.JPG",
        "candle/Data/Images/Anomaly/000.JPG",
    )
    return draw(root, "candle/Data/Masks/Anomaly/000.png", value=2)


def visa(root: Path, lines: Sequence[str] = TABLE) -> Path:
    visa_folders(root)
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv/1cls.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def custom(root: Path) -> Path:
    return draw(
        root,
        "train/good/a.png",
        "val/good/b.png",
        "test/good/c.png",
        "test/dent/d.jpg",
        "masks/dent/d.png",
    )


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "custom": custom,
    "mvtec": mvtec,
    "mvtec_loco": mvtec_loco,
    "mvtec_ad2": mvtec_ad2,
    "visa": visa,
    "btad": btad,
}
every_layout = pytest.mark.parametrize("name", list(BUILDERS))
