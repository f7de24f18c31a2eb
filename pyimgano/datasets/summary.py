"""Counts a data set: rows, splits, labels, masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from .rows import ManifestRow
from .splits import CategorySplit

SPLITS: Final = ("train", "val", "test")


def summarise(splits: Sequence[CategorySplit]) -> dict[str, Any]:
    """Give `counts` and `mask_coverage`, in all and by category, as JSON."""
    categories = {split.category: _category(split) for split in splits}
    return {
        "counts": _added([c["counts"] for c in categories.values()]),
        "mask_coverage": _coverage_of_all(splits),
        "categories": categories,
    }


def _category(split: CategorySplit) -> dict[str, Any]:
    rows = [*split.train, *split.val, *split.test]
    written = Counter(row.split or "auto" for row in rows)
    explicit_test = [row for row in rows if row.split == "test"]
    return {
        "counts": {
            "total": len(rows),
            # As the manifest says it; "auto" rows have no split there.
            "explicit": {name: written[name] for name in (*SPLITS, "auto")},
            # As it will really be used.
            "assigned": {name: len(getattr(split, name)) for name in SPLITS},
            "assigned_labels": {name: _labels(getattr(split, name)) for name in SPLITS},
            "explicit_test_labels": _labels(explicit_test),
            # A picture without a group is one of its own.
            "groups": len({row.group_id for row in rows if row.group_id})
            + sum(not row.group_id for row in rows),
        },
        "mask_coverage": {
            "explicit_test": _coverage(explicit_test),
            "assigned_test": _coverage(split.test),
        },
    }


def _coverage_of_all(splits: Sequence[CategorySplit]) -> dict[str, Any]:
    tests = [row for split in splits for row in split.test]
    rows = [r for split in splits for r in (*split.train, *split.val, *split.test)]
    return {
        "explicit_test": _coverage(row for row in rows if row.split == "test"),
        "assigned_test": _coverage(tests),
    }


def _labels(rows: Iterable[ManifestRow]) -> dict[str, int]:
    labels = Counter(row.label for row in rows)
    return {"normal": labels[0], "anomaly": labels[1]}


def _coverage(rows: Iterable[ManifestRow]) -> dict[str, Any]:
    """How many anomalies have a mask; the share is null where there are none."""
    anomalies = [row for row in rows if row.label == 1]
    with_mask = sum(row.mask is not None for row in anomalies)
    share = with_mask / len(anomalies) if anomalies else None
    return {"anomalies": len(anomalies), "with_mask": with_mask, "share": share}


def _added(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add numbers of equal names, in nested objects too."""
    total: dict[str, Any] = {}
    for one in counts:
        for key, value in one.items():
            if isinstance(value, dict):
                total[key] = _added([total.get(key, {}), value])
            else:
                total[key] = total.get(key, 0) + value
    return total


def dataset_summary(
    *,
    train: int,
    calibration: int,
    test_normals: int,
    test_anomalies: int,
    pixel_metrics: dict[str, Any],
) -> dict[str, Any]:
    """Give the block that reports carry for each category.

    Args:
        train: normals that the detector was fitted on.
        calibration: held-out normals that set the threshold.
        pixel_metrics: enabled, reason, and how many anomalies count and do not.
    """
    tested = test_normals + test_anomalies
    return {
        "train": train,
        "calibration": calibration,
        "test": tested,
        "test_normals": test_normals,
        "test_anomalies": test_anomalies,
        "test_anomaly_ratio": test_anomalies / tested if tested else None,
        "pixel_metrics": pixel_metrics,
    }
