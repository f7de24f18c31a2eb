"""Measures what worse pictures do to false alarms, recall and AUROC of a bundle.

Every picture is decoded once and changed in memory, so that only scores are kept. The
pictures are the same for every change: differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.errors import DatasetError, ImageError
from pyimgano_runtime.predictor import Predictor

from ..datasets.corruptions import CORRUPTIONS, LEVELS, corrupt
from ..datasets.images import Image, read_ahead, row_prefix
from ..datasets.rows import ManifestRow
from ..detectors.interface import Progress
from ..metrics import (
    auroc,
    bootstrap_difference,
    bootstrap_interval,
    image_metrics,
    wilson_interval,
)

RESAMPLES: Final = 1000  # of the bootstrap

Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# One column of scores each: the picture as it is, then every change.
_CHANGES: Final = tuple((name, level) for name in CORRUPTIONS for level in LEVELS)
_MEASURED: Final = ("image_auroc", "recall", "false_alarm_rate")


def measure_robustness(
    predictor: Predictor,
    rows: Sequence[ManifestRow],
    *,
    max_images: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Give the `robustness` block of a benchmark's category.

    Args:
        predictor: of the category that the rows belong to.
        rows: test rows; normals, anomalies, or both.
        max_images: of each class, spread evenly over the rows' order.
        seed: of the bootstrap; the changes do not depend on it.
        progress: called once a picture.

    Raises:
        DatasetError: a picture cannot be read, changed or scored.
        ValueError: `max_images` is below 1.
    """
    if max_images < 1:
        raise ValueError(f"max_images: found {max_images}, expected at least 1")
    kept = _spread(rows, max_images)
    labels = np.array([row.label for row in kept], dtype=np.int64)
    scores = _scores(predictor, kept, progress)

    judge = _Judge(labels, scores[:, 0], predictor.threshold, seed)
    clean = judge.clean()
    corruptions = [
        judge.corruption(name, level, scores[:, column])
        for column, (name, level) in enumerate(_CHANGES, start=1)
    ]
    mild = [change for change in corruptions if change["level"] == LEVELS[0]]
    return {
        "images": {
            "normals": int((labels == 0).sum()),
            "anomalies": int((labels == 1).sum()),
            "of_normals": sum(row.label == 0 for row in rows),
            "of_anomalies": sum(row.label == 1 for row in rows),
        },
        "threshold": predictor.threshold,
        "clean": clean,
        "corruptions": corruptions,
        "worst": _worst(clean, mild),
        "worst_recall": _worst_recall(clean, mild),
        "reasons": judge.reasons(),
    }


def _spread(rows: Sequence[ManifestRow], max_images: int) -> list[ManifestRow]:
    """At most so many rows of each class, in their order.

    Manifests list one kind of defect after the other: rows from the first to the last
    hold every kind, the first N would not.
    """
    kept: set[int] = set()
    for label in (0, 1):
        places = [place for place, row in enumerate(rows) if row.label == label]
        count = min(len(places), max_images)
        chosen = np.linspace(0, len(places) - 1, count).round().astype(int)
        kept |= {places[index] for index in chosen}
    return [rows[place] for place in sorted(kept)]


def _scores(
    predictor: Predictor, rows: Sequence[ManifestRow], progress: Progress
) -> Scores:
    """Scores (pictures, 1 + changes): as it is, then every change."""
    scores = np.empty((len(rows), 1 + len(_CHANGES)), dtype=np.float32)
    pictures = zip(rows, read_ahead(rows, predictor.rules), strict=True)
    for index, (row, image) in enumerate(pictures):
        for column, (what, changed) in enumerate(_variants(row, image)):
            try:
                prediction = predictor.predict(changed, with_map=False)
            except ImageError as cause:
                raise DatasetError(
                    f"{row_prefix(row)}{row.image} ({what}): {cause}"
                ) from cause
            scores[index, column] = prediction.score
        progress(f"{predictor.category}: robustness", index + 1, len(rows))
    return scores


def _variants(row: ManifestRow, image: Image) -> Iterator[tuple[str, Image]]:
    """The picture in the order of the columns, one at a time."""
    yield "as it is", image
    for name, level in _CHANGES:
        yield f"{name} {level}", corrupt(image, name, level, seed_name=row.image)


class _Judge:
    """Turns columns of scores of the same pictures into report keys."""

    def __init__(
        self, labels: Labels, clean: Scores, threshold: float, seed: int
    ) -> None:
        self._labels = labels
        self._clean = clean
        self._threshold = threshold
        self._seed = seed
        self._normal = labels == 0
        self._both = len(set(labels.tolist())) == 2

    def clean(self) -> dict[str, Any]:
        """Give the metrics of the pictures as they are."""
        report = self._metrics(self._clean)
        report["image_auroc_ci95"] = None
        if self._both:
            interval = bootstrap_interval(
                auroc,
                self._clean,
                self._labels,
                generator=np.random.default_rng(self._seed),
                n_resamples=RESAMPLES,
            )
            report["image_auroc_ci95"] = list(interval)
        return report

    def corruption(self, name: str, level: int, scores: Scores) -> dict[str, Any]:
        """Give the metrics of one change, and its differences from clean."""
        difference = shift = None
        if self._both:
            # The same resamples for every change.
            interval = bootstrap_difference(
                auroc,
                self._clean,
                scores,
                self._labels,
                generator=np.random.default_rng(self._seed),
                n_resamples=RESAMPLES,
            )
            difference = list(interval)
        if self._normal.any():
            moved = scores[self._normal].astype(np.float64) - self._clean[self._normal]
            shift = float(np.median(moved))
        known = CORRUPTIONS[name]
        return {
            "name": name,
            "level": level,
            "strength": known.strengths[level - 1],
            "unit": known.unit,
            **self._metrics(scores),
            "image_auroc_difference_ci95": difference,
            "score_shift": shift,  # of normals, in units of the score
        }

    def reasons(self) -> dict[str, str]:
        """Say why a value is None, under its key."""
        found = image_metrics(
            self._clean, self._labels, threshold=self._threshold
        ).reasons
        reasons = {key: found[key] for key in _MEASURED if key in found}
        for key, cause in (
            ("image_auroc_difference_ci95", "image_auroc"),
            ("score_shift", "false_alarm_rate"),
            ("worst", "false_alarm_rate"),
            ("worst_recall", "recall"),
        ):
            if cause in reasons:
                reasons[key] = reasons[cause]
        return reasons

    def _metrics(self, scores: Scores) -> dict[str, Any]:
        values = image_metrics(
            scores, self._labels, threshold=self._threshold
        ).to_json()
        report: dict[str, Any] = {key: values[key] for key in _MEASURED}
        for key, which in (
            ("recall", ~self._normal),
            ("false_alarm_rate", self._normal),
        ):
            n = int(which.sum())
            flagged = int((scores[which] >= np.float32(self._threshold)).sum())
            report[f"{key}_ci95"] = list(wilson_interval(flagged, n)) if n else None
        return report


def _worst(
    clean: dict[str, Any], mild: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """The mild change with the most false alarms; None without normals.

    Where two have as many, the one that moves the normals' scores further up.
    """
    before = clean["false_alarm_rate"]
    if before is None:
        return None
    worst = max(mild, key=lambda each: (each["false_alarm_rate"], each["score_shift"]))
    after = worst["false_alarm_rate"]
    return _which(worst) | {
        "false_alarm_rate": after,
        "false_alarm_rate_ci95": worst["false_alarm_rate_ci95"],
        "false_alarm_rate_increase": after - before,
    }


def _worst_recall(
    clean: dict[str, Any], mild: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """The mild change with the lowest recall; None without anomalies.

    Blur may lower every score: no false alarm, and no defect found either.
    """
    before = clean["recall"]
    if before is None:
        return None
    worst = min(mild, key=lambda each: each["recall"])
    return _which(worst) | {
        "recall": worst["recall"],
        "recall_ci95": worst["recall_ci95"],
        "recall_decrease": before - worst["recall"],
    }


def _which(change: dict[str, Any]) -> dict[str, Any]:
    return {key: change[key] for key in ("name", "level", "strength", "unit")}
