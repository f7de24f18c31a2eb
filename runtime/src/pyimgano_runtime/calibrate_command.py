"""`pyimgano-runtime calibrate`: thresholds from this device's own normals.

The same rule as in training (`calibration.py`), on pictures of this camera; they are
written beside the bundle, which stays as it was released.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np

from .atomic import refuse_existing_file, write_text
from .binomial_bounds import count_bounds
from .bundle import Bundle
from .calibration import (
    GROUPED,
    PIXEL_STATISTIC,
    HeldOutScores,
    Origin,
    Rule,
    TopPixels,
    calibrate,
    small_n_message,
)
from .decode import read_file
from .errors import BundleError, ConfigError, ImageError
from .fingerprint import fingerprint
from .infer_config import (
    FILE_NAME,
    Calibration,
    RateBounds,
    ThresholdProvenance,
    Thresholds,
)
from .predictor import Predictor
from .sources import list_inputs
from .thresholds_file import (
    SCHEMA,
    CalibratedBundle,
    CategoryThresholds,
    ThresholdsFile,
    model_sha256,
)

SET_BY: Final = "pyimgano-runtime calibrate"
DEFAULT_RATE: Final = 0.01
SHOWN_DUPLICATES: Final = 3
DUPLICATES: Final = "CALIBRATION_DUPLICATES"


@dataclass(frozen=True, slots=True)
class Refused:
    """Pictures that cannot be scored; nothing was calibrated."""

    problems: tuple[str, ...]  # one a picture


@dataclass(frozen=True, slots=True)
class Calibrated:
    """New thresholds of one category, and how these normals meet the old ones."""

    bundle: Bundle
    category: str
    old: Thresholds
    new: Thresholds
    calibration: Calibration
    above_old: Mapping[str, RateBounds]  # "image", "pixel": of these normals
    warnings: tuple[str, ...]

    def file(self, name: str) -> ThresholdsFile:
        """Give the document to write under a file's name."""
        about = self.bundle.config.bundle
        own = CategoryThresholds(
            model_sha256(self.bundle, self.category), self.new, self.calibration
        )
        return ThresholdsFile(
            name,
            CalibratedBundle(about.name, about.version, self.bundle.sha256),
            {self.category: own},
        )

    def to_json(self, output: str) -> dict[str, Any]:
        """Give what --json prints."""
        return {
            "output": output,
            "bundle_sha256": self.bundle.sha256,
            "category": self.category,
            "old": {"image": self.old.image, "pixel": self.old.pixel},
            "new": asdict(self.new),
            "above_old": {kind: asdict(b) for kind, b in self.above_old.items()},
            "warnings": list(self.warnings),
        }

    def table(self, output: str) -> list[str]:
        """Give the lines that a person reads."""
        image = self.new.provenance["image"]
        about = "about" if image.approximate else "at most"
        lines = [
            f"bundle    {self.bundle.config.bundle.name} "
            f"{self.bundle.config.bundle.version}, category {self.category}",
            f"normals   {image.n_images} pictures in {image.n_groups} groups",
            f"promised  {about} {image.used_false_alarm_rate:.2%} false alarms on "
            "pictures like these",
            f"{'':<9} {'old threshold':>14} {'new threshold':>14}  "
            "of these normals at or above the old one",
        ]
        for kind in self.new.provenance:
            old, new = getattr(self.old, kind), getattr(self.new, kind)
            bounds = self.above_old.get(kind)
            lines.append(
                f"{kind:<9} {'none' if old is None else f'{old:.6g}':>14} {new:>14.6g}"
                + (f"  {_counted(bounds)}" if bounds else "")
            )
        lines.append(
            f"written   {output}; use it by: pyimgano-runtime infer --thresholds "
            f"{output} --bundle {self.bundle.root.name} ..."
        )
        return lines


def refuse_output(output: Path, bundle: Bundle, *, force: bool) -> None:
    """Refuse a place that may not be written, before anything is scored.

    Raises:
        ConfigError: it exists and `force` is not set, is no thresholds file, or lies in
            the bundle.
    """
    refuse_existing_file(output, force=force, is_ours=lambda h: SCHEMA.encode() in h)
    if output.resolve().is_relative_to(bundle.root.resolve()):
        raise ConfigError(
            f"--output {output}: lies in the bundle, which stays as it was released; "
            "name a file beside it"
        )


def calibrate_folder(
    predictor: Predictor,
    folder: Path,
    *,
    rate: float | None,
    by_folder: bool,
    set_at: str,
) -> Calibrated | Refused:
    """Give thresholds from the normals in a folder, or what cannot be scored.

    Args:
        predictor: opened on a bundle, with the bundle's own thresholds.
        folder: pictures of good parts that this device's camera took.
        rate: target false-alarm rate; None takes the bundle's, else 1 %.
        by_folder: pictures of one sub-folder show one part.
        set_at: ISO 8601, UTC.

    Raises:
        ConfigError: no folder, no pictures in it, or a rate outside of (0, 1).
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: is no folder; name the folder that holds pictures of good parts"
        )
    bundle = predictor.bundle
    assert bundle is not None
    old = predictor.settings.thresholds
    if rate is None:
        rate = old.provenance["image"].requested_false_alarm_rate or DEFAULT_RATE
    quantile = _pixel_quantile(bundle, predictor.category, old)
    found = _digests(predictor, list_inputs([str(folder)]))
    if isinstance(found, Refused):
        return found
    digests = {p.relative_to(folder).as_posix(): d for p, d in found.items()}
    held_out = _scored(
        predictor,
        found,
        groups=picture_groups(digests, by_folder=by_folder),
        quantile=quantile,
    )
    if isinstance(held_out, Refused):
        return held_out
    used = {digests[name]: name for name in reversed(digests)}  # the first of copies
    origin = fingerprint({name: digest for digest, name in used.items()})
    new, calibration = calibrate(
        held_out,
        rule=Rule("conformal", rate),
        origin=Origin(origin, SET_BY, set_at),
    )
    groups = held_out.groups
    above_old = {"image": count_bounds(held_out.image, groups, old.image)}
    if held_out.map_max is not None and old.pixel is not None:
        above_old["pixel"] = count_bounds(held_out.map_max, groups, old.pixel)
    warnings = (
        *_duplicates(digests),
        _grouped(held_out),
        small_n_message(new),
        _broken_promise(old.provenance["image"], above_old["image"]),
    )
    return Calibrated(
        *(bundle, predictor.category, old, new, calibration, above_old),
        warnings=tuple(line for line in warnings if line),
    )


def _pixel_quantile(bundle: Bundle, category: str, old: Thresholds) -> float | None:
    """Give the quantile of all pixels that the bundle's pixel threshold is, if it is.

    Raises:
        BundleError: it is one, and the quantile is none.
    """
    provenance = old.provenance.get("pixel")
    if provenance is None or provenance.parameters.get("statistic") != PIXEL_STATISTIC:
        return None
    quantile = provenance.parameters.get("quantile")
    if isinstance(quantile, float) and 0 < quantile < 1:
        return quantile
    raise BundleError(
        f"{bundle.root / FILE_NAME}: categories.{category}.thresholds.provenance.pixel."
        f"parameters.quantile: found {json.dumps(quantile)[:60]}, expected a number "
        'between 0 and 1; export again with "pyimgano bundle export"'
    )


def _digests(predictor: Predictor, paths: Sequence[Path]) -> dict[Path, str] | Refused:
    """Give the sha256 of each picture file."""
    digests = {}
    problems = []
    for path in paths:
        try:
            data = read_file(path, predictor.rules)
        except ImageError as error:
            problems.append(str(error))
            continue
        digests[path] = hashlib.sha256(data).hexdigest()
    return Refused(tuple(problems)) if problems else digests


def _scored(
    predictor: Predictor,
    digests: Mapping[Path, str],
    *,
    groups: Sequence[str],
    quantile: float | None,
) -> HeldOutScores | Refused:
    """Score pictures, of those with equal bytes the first."""
    scores: dict[str, float] = {}  # by digest
    maxima: list[float] = []
    own_groups: list[str] = []
    problems: list[str] = []
    has_map = predictor.engine.has_map
    n_pictures = len(set(digests.values()))
    pixels = None
    if quantile is not None and has_map:
        pixels = TopPixels(quantile, n_pictures)
    for (path, digest), group in zip(digests.items(), groups, strict=True):
        if digest in scores:
            continue
        try:
            image = predictor.read(path)
            prediction = predictor.predict(image, with_map=has_map)
        except ImageError as error:
            problems.append(str(error))
            continue
        scores[digest] = prediction.score
        own_groups.append(group)
        if prediction.anomaly_map is not None:
            size = (image.shape[0], image.shape[1])
            values = predictor.judged_values(prediction.anomaly_map, size)
            maxima.append(float(values.max()))
            if pixels is not None:
                pixels.add(values)
    if problems:
        return Refused(tuple(problems))
    codes = {
        DUPLICATES: n_pictures < len(digests),
        GROUPED: len(set(own_groups)) < n_pictures,
    }
    return HeldOutScores(
        image=np.asarray(list(scores.values()), dtype=np.float32),
        map_max=np.asarray(maxima, dtype=np.float32) if maxima else None,
        groups=tuple(own_groups),
        source="device",
        pixels=None if pixels is None else pixels.result(),
        warnings=tuple(code for code, applies in codes.items() if applies),
        map_statistic=predictor.map_statistic,
    )


def _grouped(held_out: HeldOutScores) -> str | None:
    if GROUPED not in held_out.warnings:
        return None
    return (
        f"{GROUPED}: {len(held_out.image)} pictures show {held_out.n_groups} parts; "
        "the promise counts pictures as if each showed another part, so it is an "
        "about: take one picture of each part"
    )


def _broken_promise(old: ThresholdProvenance, found: RateBounds) -> str | None:
    """Say that these normals reach the bundle's threshold more often than promised."""
    promised = old.used_false_alarm_rate
    if promised is None or found.by_images[0] <= promised:
        return None
    return (
        f"FALSE_ALARMS_ABOVE_PROMISE: the bundle's own threshold promises "
        f"{'about' if old.approximate else 'at most'} {promised:.2%} false alarms, but "
        f"{found.images_above} of these {found.n_images} normals reach it (95 % bounds "
        f"{found.by_images[0]:.2%} to {found.by_images[1]:.2%}): pictures here are "
        "probably unlike those that calibrated it; with the new thresholds look at "
        "recall again"
    )


def picture_groups(digests: Mapping[str, str], *, by_folder: bool) -> tuple[str, ...]:
    """Give which part each picture shows, in their order.

    Pictures of equal bytes show one part; with `by_folder` those of one sub-folder do,
    and folders that share a picture are one.

    Args:
        digests: sha256 by path, relative to the folder that was named.
    """
    joined: dict[str, str] = {}  # group -> the one that it is part of
    first: dict[str, str] = {}  # digest -> group

    def whole(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    groups = []
    for name, digest in digests.items():
        parent = name.rpartition("/")[0]
        own = f"folder:{parent}" if by_folder and parent else f"image:{name}"
        groups.append(own)
        mine, other = whole(own), whole(first.setdefault(digest, own))
        if mine != other:
            joined[mine] = other
    return tuple(whole(group) for group in groups)


def _duplicates(digests: Mapping[str, str]) -> list[str]:
    same: dict[str, list[str]] = {}
    for name, digest in digests.items():
        same.setdefault(digest, []).append(name)
    copies = [names for names in same.values() if len(names) > 1]
    if not copies:
        return []
    shown = "; ".join(" = ".join(names[:3]) for names in copies[:SHOWN_DUPLICATES])
    more = "; ..." if len(copies) > SHOWN_DUPLICATES else ""
    return [
        f"{DUPLICATES}: {sum(len(names) - 1 for names in copies)} pictures are "
        f"byte-identical copies of others ({shown}{more}) and were left out: the "
        "promise needs pictures of different parts; remove the copies"
    ]


def timestamp(environment: Mapping[str, str]) -> str:
    """Give SOURCE_DATE_EPOCH, else now, as ISO 8601 in UTC.

    Raises:
        ConfigError: SOURCE_DATE_EPOCH is not a number of seconds.
    """
    epoch = environment.get("SOURCE_DATE_EPOCH")
    moment = datetime.now(timezone.utc)
    if epoch:
        if not (epoch.isascii() and epoch.isdecimal() and len(epoch) <= 11):
            raise ConfigError(
                f'SOURCE_DATE_EPOCH: found "{epoch}", expected seconds since 1970'
            )
        moment = datetime.fromtimestamp(int(epoch), timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def write_thresholds(made: Calibrated, output: Path) -> None:
    """Write the file, complete or absent."""
    try:
        write_text(output, made.file(output.name).to_json())
    except OSError as cause:
        raise ConfigError(
            f"--output {output}: cannot be written ({cause.strerror}); name a file in "
            "a folder that you may write to"
        ) from cause


def _counted(bounds: RateBounds) -> str:
    low, high = bounds.by_images
    text = (
        f"{bounds.images_above} of {bounds.n_images} "
        f"({bounds.images_above / bounds.n_images:.2%}; 95 % bounds {low:.2%} to "
        f"{high:.2%})"
    )
    if bounds.n_groups < bounds.n_images:
        text += f", {bounds.groups_above} of {bounds.n_groups} groups"
    return text
