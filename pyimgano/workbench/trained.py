"""The detectors of a finished run: each checkpoint is the one that training wrote."""

from __future__ import annotations

from typing import Any

from pyimgano_runtime.errors import ConfigError

from ..detectors import checkpoint_sha256, load_detector
from .artifacts import Run


def trained_sha256(run: Run, category: str) -> str:
    """Give the digest of a category's checkpoint, as training recorded it.

    Raises:
        ConfigError: the checkpoint cannot be read, or is another one.
    """
    path = run.checkpoint(category)
    found = checkpoint_sha256(path)
    # Runs of before it was recorded are taken as they are.
    recorded = run.report["categories"][category].get("checkpoint_sha256", found)
    if found != recorded:
        raise ConfigError(
            f"{path}: sha256 is {found[:16]}..., training wrote {recorded[:16]}...; "
            "the checkpoint was changed or belongs to another run, so the run's "
            "thresholds and metrics are not its own: restore it, or train again"
        )
    return found


def load_trained(run: Run, category: str) -> Any:
    """Give a category's fitted detector; see `trained_sha256`."""
    digest = trained_sha256(run, category)
    return load_detector(run.checkpoint(category), sha256=digest)
