"""Compares an exported graph with the trained detector, picture by picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from pyimgano_runtime.check import difference_of_range, relative_difference
from pyimgano_runtime.engine import Engine
from pyimgano_runtime.errors import ParityError
from pyimgano_runtime.infer_config import CategoryParity
from pyimgano_runtime.thresholds import is_anomaly
from pyimgano_runtime.tiling import Tiling, score_picture

from .detector_protocol import ExportableDetector

SCORE_REL: Final = 1e-5  # reached: 4.5e-7 (DESIGN, measured facts)
MAP_OF_RANGE: Final = 1e-4  # reached: 2.3e-6
SCORE_REL_OTHER_KERNELS: Final = 1e-3  # GPUs and accelerators round otherwise

# A graph in 8 bits has other scores and thresholds; so many labels may differ.
INT8_FLIP_SHARE: Final = 0.02

TOLERANCES: Final = {
    "score_rel": SCORE_REL,
    "map_of_range": MAP_OF_RANGE,
    "score_rel_other_kernels": SCORE_REL_OTHER_KERNELS,
}


@dataclass(slots=True)
class ParityMeter:
    """Collects the largest differences over many pictures."""

    threshold: float  # of the reference
    images: str  # which rows: "test+val" or "train"
    n_images: int = 0
    max_abs_score_diff: float = 0.0
    max_rel_score_diff: float = 0.0
    max_abs_map_diff: float | None = None
    max_map_diff_of_range: float | None = None
    min_threshold_distance: float = float("inf")
    flipped: list[str] = field(default_factory=list)
    ties: list[str] = field(default_factory=list)  # those of them that rounding decides
    candidate_threshold: float | None = None  # None: that of the reference

    def add(
        self,
        name: str,
        reference: tuple[float, npt.NDArray[np.float32] | None],
        candidate: tuple[float, npt.NDArray[np.float32] | None],
    ) -> None:
        """Count one picture's (score, map) from both engines."""
        (score, anomaly_map), (other, other_map) = reference, candidate
        self.n_images += 1
        self.max_abs_score_diff = _larger(self.max_abs_score_diff, abs(score - other))
        self.max_rel_score_diff = _larger(
            self.max_rel_score_diff, relative_difference(other, score)
        )
        self.min_threshold_distance = min(
            self.min_threshold_distance, abs(score - self.threshold)
        )
        own = self.candidate_threshold
        own = self.threshold if own is None else own
        if is_anomaly(other, own) != is_anomaly(score, self.threshold):
            self.flipped.append(name)
            if own == self.threshold and relative_difference(other, score) <= SCORE_REL:
                self.ties.append(name)
        if anomaly_map is not None and other_map is not None:
            absolute = float(np.max(np.abs(anomaly_map - other_map)))
            share = difference_of_range(other_map, anomaly_map)
            self.max_abs_map_diff = _larger(self.max_abs_map_diff or 0.0, absolute)
            self.max_map_diff_of_range = _larger(
                self.max_map_diff_of_range or 0.0, share
            )

    def result(self) -> CategoryParity:
        """Give what infer_config.json records."""
        return CategoryParity(
            n_images=self.n_images,
            images=self.images,
            max_abs_score_diff=self.max_abs_score_diff,
            max_rel_score_diff=self.max_rel_score_diff,
            max_abs_map_diff=self.max_abs_map_diff,
            max_map_diff_of_range=self.max_map_diff_of_range,
            label_flips=len(self.flipped),
            min_threshold_distance=self.min_threshold_distance,
        )

    def problems(self) -> list[str]:
        """Give each tolerance that is broken, with the numbers."""
        found = []
        if not self.max_rel_score_diff <= SCORE_REL:
            found.append(
                f"scores differ by {self.max_rel_score_diff:.2e} relative "
                f"(tolerance {SCORE_REL:.0e})"
            )
        share = self.max_map_diff_of_range
        if share is not None and not share <= MAP_OF_RANGE:
            found.append(
                f"maps differ by {share:.2e} of their range "
                f"(tolerance {MAP_OF_RANGE:.0e})"
            )
        flips = [name for name in self.flipped if name not in self.ties]
        if flips:
            found.append(f"{len(flips)} labels flip: {', '.join(flips[:5])}")
        return found

    def warnings(self) -> list[str]:
        """Say which labels rounding decides.

        Such a picture's scores agree within the tolerance and lie on both sides of the
        threshold. No threshold and no tolerance rules that out for every picture (ADR
        9), so it is told, not refused.
        """
        if not self.ties:
            return []
        n = len(self.ties)
        pictures, them = (
            ("picture scores", "it") if n == 1 else ("pictures score", "them")
        )
        return [
            f"SCORE_AT_THRESHOLD: {n} {pictures} the threshold but for rounding "
            f"({self.min_threshold_distance:.1e} away at the closest), so torch and "
            f"onnxruntime label {them} differently: {', '.join(self.ties[:5])}"
            f"{' ...' if n > 5 else ''}"
        ]

    @property
    def allowed_int8_flips(self) -> int:
        """How many labels a graph in 8 bits may change on these pictures."""
        return allowed_int8_flips(self.n_images)

    def require(self, where: str) -> None:
        """Refuse the export if a tolerance is broken.

        Raises:
            ParityError: with the numbers.
        """
        found = self.problems()
        if found:
            raise ParityError(
                f"{where}: the exported graph does not score like the trained "
                f"detector on {self.n_images} {self.images} images: "
                f"{'; '.join(found)}; no bundle was written"
            )


def may_be_ties(parity: CategoryParity, threshold: float) -> bool:
    """Give whether recorded flips can be pictures whose label rounding decides."""
    near = parity.min_threshold_distance <= SCORE_REL * abs(threshold)
    return near and parity.max_rel_score_diff <= SCORE_REL


def allowed_int8_flips(n_images: int) -> int:
    """Give how many labels of so many pictures a graph in 8 bits may change."""
    return math.ceil(INT8_FLIP_SHARE * n_images)


def _larger(so_far: float, difference: float) -> float:
    """Give the larger one; a difference that is not a number is infinitely large."""
    return math.inf if math.isnan(difference) else max(so_far, difference)


def measure_parity(
    detector: ExportableDetector,
    engine: Engine,
    images: Iterable[tuple[str, npt.NDArray[np.uint8]]],
    *,
    threshold: float,
    which: str,
    tiling: Tiling | None = None,
    candidate_threshold: float | None = None,
) -> ParityMeter:
    """Score every picture with torch and with the exported graph.

    Args:
        images: (name, (H, W, 3) uint8 RGB).
        threshold: the deployed image threshold, for label flips.
        which: what the images are: "test+val" or "train".
        tiling: how both take a picture; None: whole.
        candidate_threshold: that of the exported graph, where it has its own.
    """
    meter = ParityMeter(threshold, which, candidate_threshold=candidate_threshold)
    for name, image in images:
        reference = score_with_torch(detector, image, tiling)
        score, anomaly_map = score_picture(engine, image, tiling, with_map=True)
        meter.add(name, reference, (float(score), anomaly_map))
    return meter


def score_with_torch(
    detector: ExportableDetector,
    image_u8: npt.NDArray[np.uint8],
    tiling: Tiling | None = None,
) -> tuple[float, npt.NDArray[np.float32] | None]:
    """Give (score, map) of one picture by the trained detector on the CPU."""
    engine = TorchReference(detector)
    score, anomaly_map = score_picture(engine, image_u8, tiling, with_map=True)
    return float(score), anomaly_map


class TorchReference:
    """The trained detector as the runtime's `Engine`."""

    def __init__(self, detector: ExportableDetector) -> None:
        self._detector = detector
        self.name = f"torch {torch.__version__}"
        self.has_map = detector.has_map

    @torch.inference_mode()
    def run(
        self, images_u8: npt.NDArray[np.uint8], *, with_map: bool
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """See `Engine.run`."""
        # A copy: pictures may be read-only, which torch warns of.
        scores, maps = self._detector(torch.from_numpy(np.array(images_u8)))
        if maps is None or not with_map:
            return scores.numpy(), None
        return scores.numpy(), maps.numpy()
