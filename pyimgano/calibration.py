"""What training adds to `pyimgano_runtime.calibration`: folds, pixels, labels, checks.

The rules that make thresholds of scores are the runtime's, for devices calibrate too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from pyimgano_runtime.binomial_bounds import count_bounds
from pyimgano_runtime.calibration import (
    JUDGED_MAXIMUM,
    MAP_MAXIMUM,
    SCORE_TOLERANCE_REL,
    HeldOutScores,
    Origin,
    Scores,
    score_summary,
    stored_scores,
)
from pyimgano_runtime.calibration import (
    TopPixels as TopPixels,  # `workbench.runner` takes it from here
)
from pyimgano_runtime.infer_config import (
    Calibration,
    RateBounds,
    ThresholdProvenance,
    Thresholds,
)
from pyimgano_runtime.reference import Reference

from .detectors.feature_detector import FeatureDetector
from .detectors.feature_set import FeatureSet
from .detectors.interface import FitContext

ABOVE_PROMISE: Final = "FALSE_ALARMS_ABOVE_PROMISE"


AnomalyMap = npt.NDArray[np.float32]  # (h, w)
Scored = tuple[float, AnomalyMap | None]
# merge(picture, score and map of each of its parts) -> score and map of the picture
Merge = Callable[[int, Sequence[Scored]], Scored]
# judged(picture, its map) -> the values (n,) of it that the pixel threshold is set on
Judged = Callable[[int, AnomalyMap], AnomalyMap]


def only_part(picture: int, parts: Sequence[Scored]) -> Scored:
    """Give the score and map of a picture that is its own single sample."""
    del picture
    (single,) = parts
    return single


@dataclass(frozen=True, slots=True)
class PictureSamples:
    """Which samples of a feature set show which picture."""

    pictures: npt.NDArray[np.int64]  # (s,) the picture of each sample, rising
    # (s,) whether it is the picture or a tile of it; an augmented copy is fitted on,
    # and never scored: no camera took it.
    genuine: npt.NDArray[np.bool_]
    merge: Merge = only_part

    @classmethod
    def one_each(cls, n_pictures: int) -> PictureSamples:
        """Give those of pictures that are one sample each."""
        genuine = np.ones(n_pictures, dtype=np.bool_)
        return cls(np.arange(n_pictures, dtype=np.int64), genuine)


@torch.no_grad()
def out_of_fold_scores(
    detector: FeatureDetector,
    features: FeatureSet,
    folds: Sequence[Sequence[int]],
    groups: Sequence[str],
    *,
    context: FitContext,
    pixel_quantile: float | None = None,
    samples: PictureSamples | None = None,
    scored: FeatureSet | None = None,
    judged: Judged | None = None,
) -> HeldOutScores:
    """Score every normal by a model fitted on the folds that do not hold it.

    The final model is fitted on all normals and is a little better than these, so the
    promise is approximate; `tests/test_calibration_false_alarm_rate.py` simulates it.

    Args:
        folds: positions of pictures; every picture is in one.
        groups: of each picture.
        pixel_quantile: also give this quantile of the pixels of all maps.
        samples: where a picture is several samples of `features`.
        scored: the same samples by another feature extractor, such as one in 8 bits;
            these are scored in place of `features`, which the folds are fitted on.
        judged: where not every value of a map counts for the pixel threshold.
    """
    n = len(groups)
    samples = samples or PictureSamples.one_each(n)
    image = np.empty(n, dtype=np.float32)
    map_max = np.empty(n, dtype=np.float32) if detector.has_map else None
    pixels = None
    if pixel_quantile is not None and detector.has_map:
        pixels = TopPixels(pixel_quantile, n)
    for number, fold in enumerate(folds):
        context.progress("calibration folds", number, len(folds))
        held_out = np.isin(samples.pictures, np.asarray(fold, dtype=np.int64))
        twin = detector.blank().to(context.device).eval()
        twin.fit_features(features.subset(np.flatnonzero(~held_out)), context=context)
        chosen = np.flatnonzero(held_out & samples.genuine)
        left_out = (features if scored is None else scored).subset(chosen)
        parts = _scored(twin, left_out, context.device)
        by_picture = groupby(
            zip(samples.pictures[chosen].tolist(), parts, strict=True),
            key=lambda part: part[0],
        )
        for picture, own in by_picture:
            score, anomaly_map = samples.merge(picture, [part for _, part in own])
            image[picture] = score
            if map_max is not None and anomaly_map is not None:
                values = anomaly_map
                if judged is not None:
                    values = judged(picture, anomaly_map)
                map_max[picture] = values.max()
                if pixels is not None:
                    pixels.add(values)
        context.progress("calibration folds", number + 1, len(folds))
    return HeldOutScores(
        image,
        map_max,
        tuple(groups),
        "kfold_pooled",
        pixels=pixels.result() if pixels is not None else None,
        map_statistic=MAP_MAXIMUM if judged is None else JUDGED_MAXIMUM,
    )


def _scored(
    detector: FeatureDetector, features: FeatureSet, device: torch.device
) -> Iterator[Scored]:
    for batch in features.batches(8):
        scores, maps = detector.score_features(batch.to(device))
        on_cpu = None if maps is None else maps.cpu().numpy()
        for index, score in enumerate(scores.cpu().tolist()):
            yield score, None if on_cpu is None else on_cpu[index]


@dataclass(frozen=True, slots=True)
class LabelledScores:
    """Scores of labelled pictures that neither trained nor test."""

    scores: Scores  # (n,)
    anomalous: npt.NDArray[np.bool_]  # (n,) both occur
    groups: tuple[str, ...]  # (n,) which part each picture shows

    @property
    def normals(self) -> Scores:
        """Scores of the normals, (m,)."""
        return self.scores[~self.anomalous]


def best_f1_threshold(
    scores: Scores, anomalous: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """Give the threshold of the largest F1, and that F1.

    It stands halfway between two neighbouring scores; of equal F1, fewer false alarms
    win. Where all pictures must be called anomalous, it stands below the lowest score.

    Args:
        scores: (n,) finite.
        anomalous: (n,) both kinds occur.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float32)  # falling
    caught = np.cumsum(anomalous[order])  # defects among the k + 1 highest
    flagged = np.arange(1, len(ranked) + 1)
    f1 = 2 * caught / (flagged + int(anomalous.sum()))
    # A threshold parts distinct scores only; the last one flags all.
    parts = np.append(ranked[:-1] > ranked[1:], True)
    best = int(np.argmax(np.where(parts, f1, -1.0)))  # the first: fewest false alarms
    above = ranked[best]
    if best == len(ranked) - 1:
        lowered = np.float32(above - abs(above) * SCORE_TOLERANCE_REL)
        return float(np.nextafter(lowered, np.float32(-np.inf))), float(f1[best])
    below = ranked[best + 1]
    middle = np.float32((float(above) + float(below)) / 2)
    return float(max(middle, np.nextafter(below, above))), float(f1[best])


def best_f1(
    labelled: LabelledScores, *, origin: Origin
) -> tuple[float, ThresholdProvenance, Calibration]:
    """Give the threshold that parts labelled pictures best, and the normals' scores.

    It promises nothing: its bounds only say how many labelled normals it flags.
    """
    anomalous = labelled.anomalous
    threshold, f1 = best_f1_threshold(labelled.scores, anomalous)
    flagged = labelled.scores >= np.float32(threshold)
    normals = labelled.normals
    of_normals = [
        g for g, bad in zip(labelled.groups, anomalous, strict=True) if not bad
    ]
    provenance = ThresholdProvenance(
        method="best_f1",
        source="labelled_manifest",
        approximate=False,
        parameters={
            "f1": f1,
            "normals": len(normals),
            "defects": int(anomalous.sum()),
            "normals_above": int((flagged & ~anomalous).sum()),
            "defects_above": int((flagged & anomalous).sum()),
            "statistic": "image score",
            "p_values_from": "labelled normals",
        },
        requested_false_alarm_rate=None,
        used_false_alarm_rate=None,
        n_images=len(labelled.scores),
        n_groups=len(set(labelled.groups)),
        fingerprint=origin.fingerprint,
        score_summary=score_summary(normals),
        warnings=(),
        set_by=origin.set_by,
        set_at=origin.set_at,
        bounds=count_bounds(normals, of_normals, threshold),
    )
    return threshold, provenance, Calibration(stored_scores(normals), len(normals))


def promise_warning(
    provenance: ThresholdProvenance, achieved: RateBounds | None
) -> str | None:
    """One sentence where test normals reach the threshold more often than promised.

    By images: the promised rate lies below the bounds. By groups: a group of m pictures
    may be flagged at m times that rate, so that is what must lie below them.
    """
    promised = provenance.used_false_alarm_rate
    if promised is None or achieved is None or not achieved.n_images:
        return None
    of_group = min(1.0, promised * achieved.n_images / achieved.n_groups)
    by_images = promised < achieved.by_images[0]
    by_groups = of_group < achieved.by_groups[0]
    if not by_images and not by_groups:
        return None
    found = (
        f"{achieved.images_above} of {achieved.n_images} test normals reach the "
        f"threshold ({achieved.images_above / achieved.n_images:.2%}, 95 % bounds "
        f"{_range(achieved.by_images)})"
    )
    if achieved.n_groups < achieved.n_images:
        verdict = "also above the" if by_groups else "within the"
        found += (
            f", and by group {achieved.groups_above} of {achieved.n_groups} (bounds "
            f"{_range(achieved.by_groups)}, {verdict} {of_group:.2%} that groups of "
            "this size may reach)"
        )
    return (
        f"{ABOVE_PROMISE}: promised {'about' if provenance.approximate else 'at most'} "
        f"{promised:.2%} false alarms, but {found}; the test pictures are probably "
        "unlike those that calibrated (another lot, another light, or near-duplicate "
        'frames without group_id): run "pyimgano preflight", add group_id, or '
        'calibrate on the device by "pyimgano-runtime calibrate"'
    )


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.2%} to {bounds[1]:.2%}"


def as_json(
    thresholds: Thresholds,
    calibration: Calibration,
    reference: Reference | None = None,
) -> dict[str, Any]:
    """Give them as the JSON that a run keeps in calibration.json."""
    return {
        "schema_version": "1.0",
        "thresholds": asdict(thresholds),
        "calibration": asdict(calibration),
    } | ({} if reference is None else {"reference": asdict(reference)})
