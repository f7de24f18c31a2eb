"""The detector interface: what training, calibration and export rely on.

`forward` is exported as it stands. Learned state is parameters and buffers, so a
`state_dict` is the whole checkpoint. The interface is the same for detectors that are
fitted by statistics, keep a bank, or train by gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from pyimgano.backbones import create_backbone
from pyimgano.backbones.interface import Backbone

Progress = Callable[[str, int, int], None]
"""progress(step, done, total): called often, must be cheap."""


class TrainingData(Protocol):
    """The pictures a detector may learn from. Every method may be called again."""

    @property
    def n_normals(self) -> int:
        """How many normal images `normals` gives in all."""

    def normals(self) -> Iterator[Tensor]:
        """Give uint8 RGB batches (B, H, W, 3); sizes may change between batches."""

    def tuning_normals(self) -> Iterator[Tensor]:
        """Normals for early stopping and map quantiles; may be empty.

        Disjoint from `normals` and from the images that calibrate thresholds.
        """

    def defects(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Give (image (H, W, 3) uint8, mask (H, W) bool or None); may be empty."""


@dataclass(frozen=True, slots=True)
class FitContext:
    """Everything a fit may use besides the pictures."""

    generator: torch.Generator  # on the CPU: the same picks on every device
    device: torch.device
    workspace: Path  # scratch folder, deleted after the run
    progress: Progress
    memory_budget: int = 4 * 1024**3  # bytes a fit may hold; above it goes to disk
    resume: bool = False


class Detector(nn.Module):
    """Scores images. `forward` is the graph that ships.

    forward: images (N, H, W, 3) uint8 RGB -> score (N,) float32, anomaly_map
    (N, h, w) float32 or None. Higher means more anomalous; scores are raw and have no
    upper bound.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]]  # frozen dataclass of keyword-only hyper-parameters
    uses_defects: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False
    has_map: ClassVar[bool] = True
    trains: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # name -> options

    def __init__(self, config: Any, *, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone

    def fit(self, data: TrainingData, *, context: FitContext) -> Self:
        """Learn from normals; twice is the same as once with the second data."""
        raise NotImplementedError

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score a batch; see the class docstring for shapes."""
        raise NotImplementedError

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """Describe, for infer_config.json, what the graph does to the pixels."""
        raise NotImplementedError

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """Describe, for infer_config.json, what the graph does after scoring."""
        return []

    @property
    def map_mode(self) -> str:
        """How the map lies on the picture: the config's `geometry`, else "stretch"."""
        return str(getattr(self.config, "geometry", "stretch"))

    def map_size(self) -> tuple[int, int] | None:
        """(height, width) of the map, None where there is no map."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Give an unfitted detector, its backbone with pretrained weights."""
        return cls.unfitted(config, pretrained=True, shared={})

    @classmethod
    def unfitted(
        cls, config: Any, *, pretrained: bool, shared: dict[Any, Backbone]
    ) -> Self:
        """Give an unfitted detector.

        Args:
            pretrained: False leaves the backbone's weights random, for a checkpoint.
            shared: backbones made so far, by what makes them equal; grows.
        """
        return cls(config, backbone=_backbone_of(cls, config, pretrained, shared))

    @classmethod
    def from_state(cls, config: Any, tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild a fitted detector; the shapes of its state come from `tensors`."""
        detector = cls.unfitted(config, pretrained=False, shared={})
        detector.take_state(tensors)
        return detector.eval()

    def take_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take every parameter and buffer; buffers get the shapes of `tensors`."""
        for key, tensor in tensors.items():
            *path, leaf = key.split(".")
            owner = self.get_submodule(".".join(path))
            if leaf in owner._buffers:
                owner._buffers[leaf] = torch.empty_like(tensor)
        self.load_state_dict(dict(tensors), strict=True)

    def blank(self) -> Self:
        """Give an unfitted twin that shares the backbone, for out-of-fold fits."""
        return type(self)(self.config, backbone=self.backbone)

    def used_backbones(self) -> list[Backbone]:
        """Give the backbones whose published weights are part of the detector."""
        return [] if self.backbone is None else [self.backbone]

    def hyper_parameters(self) -> dict[str, Any]:
        """Give the hyper-parameters as JSON values.

        Without `weights_file`: it names a place on one machine, and the weights
        themselves are part of the state.
        """
        values = dataclasses.asdict(self.config)
        values.pop("weights_file", None)
        return values


def _backbone_of(
    cls: type[Detector], config: Any, pretrained: bool, shared: dict[Any, Backbone]
) -> Backbone | None:
    if not cls.needs_weights:
        return None
    # A checkpoint holds the weights: the file is needed for a new detector only.
    file = Path(config.weights_file) if pretrained and config.weights_file else None
    equal = (config.backbone, tuple(config.taps), file)
    if equal not in shared:
        shared[equal] = create_backbone(
            config.backbone, taps=config.taps, weights_file=file, pretrained=pretrained
        )
    return shared[equal]
