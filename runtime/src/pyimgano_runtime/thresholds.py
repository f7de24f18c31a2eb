"""The one threshold rule, in float32, and the conformal p-value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .infer_config import FLOAT32_MAX as FLOAT32_MAX  # the range of the rule below


def is_anomaly(score: float, threshold: float) -> bool:
    """Whether float32(score) >= float32(threshold), the rule in every language."""
    return bool(np.float32(score) >= np.float32(threshold))


def p_value(
    score: float, calibration_scores: Sequence[float] | npt.NDArray[np.float32]
) -> float | None:
    """Share of normals that look at least as anomalous as this score.

    p = (1 + #{calibration scores >= score}) / (n + 1), in (0, 1]; for exchangeable
    normals P(p <= a) <= a (Vovk, Gammerman, Shafer: Algorithmic Learning in a Random
    World, 2005, section 2.2). None where there are no calibration scores.

    Args:
        score: raw score of the picture.
        calibration_scores: held-out normal scores, ascending.
    """
    n = len(calibration_scores)
    if n == 0:
        return None
    scores = np.asarray(calibration_scores, dtype=np.float32)
    at_least = n - int(np.searchsorted(scores, np.float32(score), side="left"))
    return (1 + at_least) / (n + 1)
