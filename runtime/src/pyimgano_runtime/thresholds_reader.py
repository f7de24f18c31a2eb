"""Reads `thresholds` and `calibration` blocks, wherever they stand.

In `infer_config.json` of both kinds, in a run's calibration.json, in a device's
thresholds.json.
"""

from __future__ import annotations

import re
from typing import Any

from ._reader import Fields, closest, nearest
from .infer_config import (
    FLOAT32_MAX,
    THRESHOLD_KINDS,
    THRESHOLD_METHODS,
    Calibration,
    RateBounds,
    ThresholdProvenance,
    Thresholds,
)


def read_thresholds(fields: Fields) -> Thresholds:
    """Read a `thresholds` block, here or in a run's calibration.json."""
    provenance = {}
    for name, member in fields.each("provenance"):
        if name not in THRESHOLD_KINDS:
            fields.problem(
                f"provenance.{name}",
                f"unknown key ({closest(name, THRESHOLD_KINDS)})",
                suggestion=nearest(name, THRESHOLD_KINDS),
            )
        provenance[name] = _read_provenance(member)
    thresholds = Thresholds(
        image=read_score(fields, "image"),
        pixel=fields.maybe("pixel", lambda key: read_score(fields, key)),
        compare=fields.text("compare", choices=(">=",)),
        provenance=provenance,
    )
    fields.finish()
    return thresholds


def read_calibration(fields: Fields) -> Calibration:
    """Read a `calibration` block, here or in a run's calibration.json."""
    calibration = Calibration(
        image_scores=fields.numbers("image_scores"),
        n_images=fields.integer("n_images", low=0),
    )
    scores = calibration.image_scores
    if list(scores) != sorted(scores):
        fields.problem("image_scores", "expected ascending numbers")
    elif scores and max(-scores[0], scores[-1]) > FLOAT32_MAX:
        fields.problem("image_scores", "expected numbers that float32 can hold")
    if len(scores) > calibration.n_images:
        fields.problem(
            "n_images",
            f"found {calibration.n_images}, expected at least the {len(scores)} "
            "of image_scores",
        )
    fields.finish()
    return calibration


def _read_provenance(fields: Fields) -> ThresholdProvenance:
    summary = read_object(fields, "score_summary")
    statistics = Fields(
        summary, fields.where, fields.problems, at=f"{fields.at}score_summary."
    )
    for name in summary:
        statistics.number(name)
    provenance = ThresholdProvenance(
        method=fields.text("method", choices=THRESHOLD_METHODS),
        source=fields.text("source"),
        approximate=fields.flag("approximate"),
        parameters=read_object(fields, "parameters"),
        requested_false_alarm_rate=_read_rate(fields, "requested_false_alarm_rate"),
        used_false_alarm_rate=_read_rate(fields, "used_false_alarm_rate"),
        n_images=fields.integer("n_images", low=0),
        n_groups=fields.integer("n_groups", low=0),
        fingerprint=_read_fingerprint(fields),
        score_summary=summary,
        warnings=fields.texts("warnings"),
        set_by=fields.text("set_by"),
        set_at=fields.text("set_at"),
        bounds=fields.maybe("bounds", lambda key: _read_bounds(fields.fields(key))),
    )
    fields.finish()
    return provenance


def _read_bounds(fields: Fields) -> RateBounds:
    bounds = RateBounds(
        confidence=fields.number("confidence", low=0.0, high=1.0),
        n_images=fields.integer("n_images", low=0),
        images_above=fields.integer("images_above", low=0),
        by_images=_read_interval(fields, "by_images"),
        n_groups=fields.integer("n_groups", low=0),
        groups_above=fields.integer("groups_above", low=0),
        by_groups=_read_interval(fields, "by_groups"),
    )
    fields.finish()
    return bounds


def _read_interval(fields: Fields, key: str) -> tuple[float, float]:
    ends = fields.numbers(key)
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
        if key in fields.payload:
            fields.problem(key, "expected [low, high], two rates from 0 to 1")
        return (0.0, 1.0)
    return (ends[0], ends[1])


def _read_fingerprint(fields: Fields) -> str:
    """Empty where no images were used: a threshold set by hand."""
    if fields.raw("fingerprint") == "":
        return ""
    return read_sha256(fields, "fingerprint")


def read_score(fields: Fields, key: str) -> float:
    """A number that float32 can hold, since scores are compared as float32."""
    return fields.number(key, low=-FLOAT32_MAX, high=FLOAT32_MAX)


def _read_rate(fields: Fields, key: str) -> float | None:
    rate: float | None = fields.maybe(
        key, lambda name: fields.number(name, low=0.0, high=1.0)
    )
    return rate


def read_object(fields: Fields, key: str) -> dict[str, Any]:
    """Give an object whose members are free."""
    value = fields.raw(key)
    if not isinstance(value, dict):
        if key in fields.payload:
            fields.problem(key, "expected an object {...}")
        return {}
    return value


def read_sha256(fields: Fields, key: str) -> str:
    """Give 64 lower-case hexadecimal digits."""
    digest = fields.text(key)
    if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
        fields.problem(
            key, f'found "{digest[:70]}", expected 64 lower-case hexadecimal digits'
        )
    return digest
