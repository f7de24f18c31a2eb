"""Thresholds of one category, out of the scores of pictures that set them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pyimgano_runtime.calibration import (
    HeldOutScores,
    Origin,
    calibrate,
    fixed_thresholds,
    pixel_threshold,
)
from pyimgano_runtime.infer_config import Calibration, Thresholds

from .. import calibration as calibrating
from ..datasets.fingerprints import fingerprint, picture_digests
from ..datasets.rows import ManifestRow
from .config import CalibrationConfig


def set_thresholds(
    chosen: CalibrationConfig,
    held_out: HeldOutScores | None,
    calibrated_on: Sequence[ManifestRow],
    labelled: Sequence[ManifestRow],
    score_labelled: Callable[[], HeldOutScores],
    *,
    by: str,
    at: str,
) -> tuple[Thresholds, Calibration]:
    """Set the thresholds of a category by its config's method.

    Args:
        held_out: scores of normals that the model was not fitted on; None where the
            method asks for none.
        calibrated_on: those normals.
        labelled: the pictures for method "best_f1".
        score_labelled: scores them.
        by: who sets the thresholds, for their provenance.
        at: when, ISO 8601.
    """
    if chosen.method == "fixed":
        assert chosen.threshold is not None
        return fixed_thresholds(
            chosen.threshold, chosen.pixel_threshold, set_by=by, set_at=at
        )
    origin = Origin(fingerprint(picture_digests(calibrated_on)), by, at)
    if chosen.method != "best_f1":
        assert held_out is not None
        return calibrate(held_out, rule=chosen.rule, origin=origin)
    scored = score_labelled()
    image, provenance, calibration = calibrating.best_f1(
        calibrating.LabelledScores(
            scores=scored.image,
            anomalous=np.asarray([row.label == 1 for row in labelled]),
            groups=scored.groups,
        ),
        origin=replace(origin, fingerprint=fingerprint(picture_digests(labelled))),
    )
    by_kind = {"image": provenance}
    pixel = None
    if held_out is not None:
        pixel = pixel_threshold(held_out, rule=chosen.rule, origin=origin)
    if pixel is not None:
        by_kind["pixel"] = pixel[1]
    threshold = None if pixel is None else pixel[0]
    return Thresholds(image, threshold, ">=", by_kind), calibration
