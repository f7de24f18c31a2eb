"""What the exporter needs of a detector, and nothing more."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class ExportableDetector(Protocol):
    """A fitted module whose `forward` is the graph that ships.

    forward: images (N, H, W, 3) uint8 RGB -> score (N,) float32, anomaly_map
    (N, h, w) float32 or None.
    """

    name: str
    has_map: bool

    def __call__(self, images_u8: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score a batch."""

    def eval(self) -> Any:
        """Switch to evaluation mode."""

    @property
    def map_mode(self) -> str:
        """How the map lies on the picture: "stretch" or "letterbox"."""

    def map_size(self) -> tuple[int, int] | None:
        """(height, width) of the map, None where there is none."""

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """Describe what the graph does to the pixels."""

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """Describe what the graph does after scoring."""

    def hyper_parameters(self) -> dict[str, Any]:
        """Hyper-parameters as JSON values."""
