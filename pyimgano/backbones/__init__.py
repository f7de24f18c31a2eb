"""Pretrained feature extractors by name.

backbone = create_backbone("efficientnet_lite0", taps=["stride8", "stride16"])
maps = backbone(pixels)  # one (N, channels, H/stride, W/stride) per tap
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pyimgano.backbones.dino_vit import VARIANTS as DINO_VITS
from pyimgano.backbones.dino_vit import DinoViT
from pyimgano.backbones.efficientnet_lite import EfficientNetLite
from pyimgano.backbones.interface import (
    Backbone,
    FeatureTap,
    WeightsInfo,
    did_you_mean,
)
from pyimgano.backbones.timm_backbone import TimmBackbone
from pyimgano_runtime.errors import ConfigError

__all__ = [
    "Backbone",
    "FeatureTap",
    "WeightsInfo",
    "available_taps",
    "backbone_names",
    "create_backbone",
]

_BACKBONES: Final[dict[str, type[Backbone]]] = {
    "efficientnet_lite0": EfficientNetLite,
    "efficientnet_lite1": EfficientNetLite,
    "efficientnet_lite2": EfficientNetLite,
    **dict.fromkeys(DINO_VITS, DinoViT),
}
_TIMM_PREFIX: Final = "timm:"


def backbone_names() -> tuple[str, ...]:
    """The names that need no further package than their weights."""
    return tuple(_BACKBONES)


def available_taps(name: str) -> tuple[FeatureTap, ...]:
    """All taps of a backbone, from the input on; no weights are read.

    Raises:
        ConfigError: an unknown name, or timm is needed and not installed.
    """
    return _backbone_class(name).available_taps(name)


def create_backbone(
    name: str,
    *,
    taps: Sequence[str],
    weights_file: Path | None = None,
    pretrained: bool = True,
) -> Backbone:
    """A frozen backbone, in evaluation mode, that computes no further than its taps.

    Args:
        name: a name of `backbone_names()`, or "timm:<model>".
        taps: where to read features, by name ("stage3") or stride ("stride8", the
            last tap at that stride).
        weights_file: read the weights from this file; None reads them from their
            package or, for timm, from the hub or its cache.
        pretrained: False builds it with random weights, for `load_state_dict`.

    Raises:
        ConfigError: an unknown name or tap, or weights that are absent or altered.
    """
    if weights_file is not None and not pretrained:
        raise ConfigError(
            f'backbone "{name}": weights_file is {weights_file} but pretrained is '
            "false; leave one of the two out"
        )
    backbone_class = _backbone_class(name)
    return backbone_class.create(
        name, taps=taps, weights_file=weights_file, pretrained=pretrained
    )


def _backbone_class(name: str) -> type[Backbone]:
    if name.startswith(_TIMM_PREFIX):
        return TimmBackbone
    if name not in _BACKBONES:
        raise ConfigError(
            f'backbone "{name}": unknown name; known: {", ".join(_BACKBONES)}, and '
            f"{_TIMM_PREFIX}<model> for any timm model"
            f"{did_you_mean(name, _BACKBONES)}"
        )
    return _BACKBONES[name]
