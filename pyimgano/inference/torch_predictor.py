"""The trained detector behind the runtime's own Predictor.

Only the engine differs: decoding, thresholds, labels and rows are the runtime's, so
that torch and onnxruntime cannot drift apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.infer_config import CategorySettings, InputRules
from pyimgano_runtime.predictor import Predictor

from ..detectors.plugins import plugin_call


class TorchEngine:
    """Runs a detector's `forward`, the same graph that is exported."""

    def __init__(self, detector: Any, *, device: torch.device | str = "cpu") -> None:
        self.detector = detector.to(device).eval()
        self.device = torch.device(device)
        self.has_map: bool = detector.has_map
        self.name = f"torch {torch.__version__}"

    @torch.inference_mode()
    def run(
        self, images_u8: npt.NDArray[np.uint8], *, with_map: bool
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Score a batch; see `pyimgano_runtime.engine.Engine`."""
        images = torch.from_numpy(np.ascontiguousarray(images_u8)).to(self.device)
        with plugin_call(self.detector, "forward"):
            scores, maps = self.detector(images)
        keep_map = with_map and maps is not None
        return scores.cpu().numpy(), maps.cpu().numpy() if keep_map else None


def torch_predictor(
    detector: Any,
    category: str,
    settings: CategorySettings,
    rules: InputRules,
    *,
    device: torch.device | str = "cpu",
    threshold: float | None = None,
    bundle: Bundle | None = None,
    origin: str = "bundle",
) -> Predictor:
    """Give a predictor that runs a fitted detector in torch.

    It has every method of one that was opened on a bundle, but cannot be pickled.

    Args:
        bundle: the one whose thresholds these are, for the rows.
        origin: where the thresholds of `settings` come from: "bundle" or "run".
    """
    engine = TorchEngine(detector, device=device)
    return Predictor(
        category,
        settings,
        rules,
        engine,
        threshold=threshold,
        bundle=bundle,
        origin=origin,
    )
