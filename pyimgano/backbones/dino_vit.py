"""A plain vision transformer with the key names of DINOv2's published weights.

Source: Dosovitskiy et al., "An image is worth 16x16 words: transformers for image
recognition at scale", ICLR 2021, section 3.1, with the layer scale of Touvron et al.,
"Going deeper with image transformers", ICCV 2021, equation 4; sizes and position
embedding of Oquab et al., "DINOv2: learning robust visual features without
supervision", TMLR 2024; register tokens of Darcet et al., "Vision transformers need
registers", ICLR 2024.

No package holds these weights: `dinov2_*` read a local file. `dino_vit_tiny` has random
weights that are the same everywhere. It runs the mechanism in tests and knows nothing
about pictures.

Attention is written as two matrix products and a softmax. The position embedding is
resampled by two constant matrices that follow from the picture's size, so the graph
holds ordinary operators only and torch and onnxruntime multiply the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
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

PATCH_PX: Final = 14
# ImageNet's mean and deviation, which DINOv2 was trained with, on the 0..255 scale.
PIXEL_MEAN: Final = (123.675, 116.28, 103.53)
PIXEL_STD: Final = (58.395, 57.12, 57.375)
LAYER_NORM_EPS: Final = 1e-6
MLP_RATIO: Final = 4

TINY: Final = "dino_vit_tiny"
TINY_SEED: Final = 14


@dataclass(frozen=True, slots=True)
class ViTVariant:
    """What tells the networks apart."""

    width: int  # channels of a token
    depth: int  # blocks
    heads: int
    grid: int  # side of the position embedding, in patches
    registers: int = 0
    timm_name: str | None = None  # the same network in timm


VARIANTS: Final = {
    TINY: ViTVariant(width=64, depth=3, heads=4, grid=16),
    "dinov2_vits14": ViTVariant(
        width=384, depth=12, heads=6, grid=37, timm_name="vit_small_patch14_dinov2"
    ),
    "dinov2_vitb14": ViTVariant(
        width=768, depth=12, heads=12, grid=37, timm_name="vit_base_patch14_dinov2"
    ),
    "dinov2_vits14_reg": ViTVariant(
        width=384,
        depth=12,
        heads=6,
        grid=37,
        registers=4,
        timm_name="vit_small_patch14_reg4_dinov2",
    ),
    "dinov2_vitb14_reg": ViTVariant(
        width=768,
        depth=12,
        heads=12,
        grid=37,
        registers=4,
        timm_name="vit_base_patch14_reg4_dinov2",
    ),
}


class DinoViT(Backbone):
    """A vision transformer up to its deepest tap: "blocks.0" and on, or "norm".

    forward: (N, 3, H, W) float32, H and W multiples of 14 -> one
    (N, width, H / 14, W / 14) per tap: the patch tokens behind a block, or behind the
    final layer norm.

    Args:
        name: a key of `VARIANTS`.
        taps: the taps to return, in this order.

    Weights are random until `load_file`, `draw_weights` or `load_state_dict`.
    """

    def __init__(self, name: str, *, taps: tuple[FeatureTap, ...]) -> None:
        super().__init__(
            name=name, taps=taps, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD
        )
        variant = VARIANTS[name]
        width = variant.width
        self.variant = variant
        names = [tap.name for tap in self.available_taps(name)]
        deepest = max(names.index(tap.name) for tap in taps)

        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + variant.grid**2, width))
        if variant.registers:
            registers = torch.zeros(1, variant.registers, width)
            self.register_tokens = nn.Parameter(registers)
        self.patch_embed = PatchEmbedding(width)
        depth = min(deepest + 1, variant.depth)
        self.blocks = nn.ModuleList(Block(width, variant.heads) for _ in range(depth))
        if deepest == variant.depth:
            self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.eval().requires_grad_(False)

    @classmethod
    def available_taps(cls, name: str) -> tuple[FeatureTap, ...]:
        """ "blocks.0" to the last block, then "norm"; all at stride 14."""
        variant = VARIANTS[name]
        names = [*(f"blocks.{index}" for index in range(variant.depth)), "norm"]
        return tuple(FeatureTap(tap, PATCH_PX, variant.width) for tap in names)

    @classmethod
    def create(
        cls,
        name: str,
        *,
        taps: Sequence[str],
        weights_file: Path | None,
        pretrained: bool,
    ) -> Self:
        """Build the network; see `pyimgano.backbones.create_backbone`.

        Args:
            name: a key of `VARIANTS`.
            taps: names, or "stride14": the final layer norm.
            weights_file: DINOv2's published .pth, or safetensors with the same keys.
            pretrained: False leaves random weights, for `load_state_dict`.

        Raises:
            ConfigError: an unknown tap, no weights file, or weights of another model.
        """
        backbone = cls(name, taps=select_taps(name, cls.available_taps(name), taps))
        if not pretrained:
            return backbone
        if weights_file is not None:
            backbone.load_file(weights_file)
        elif name == TINY:
            backbone.draw_weights()
        else:
            raise ConfigError(
                f'backbone "{name}": no package holds its weights, and weights_file is '
                f"not set; give the path of DINOv2's published {name} weights (.pth or "
                ".safetensors) as weights_file, or take "
                f'"timm:{VARIANTS[name].timm_name}" (pip install "pyimgano[timm]")'
            )
        return backbone

    def load_file(self, path: Path) -> None:
        """Take the weights of a file with DINOv2's key names.

        Raises:
            ConfigError: the file is unreadable, or of another model.
        """
        content, sha256 = read_weights(path)
        state = parse_state_dict(content, path)
        own = self.state_dict()
        wrong = [
            f"{key} is {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
            if key in state
            else f"{key} is missing"
            for key, tensor in own.items()
            if key not in state or state[key].shape != tensor.shape
        ]
        wrong += [f"{key} is unknown" for key in state if not self._may_hold(key)]
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ConfigError(
                f"{path}: does not hold the weights of {self.name}: "
                f"{'; '.join(wrong[:3])}{more}; expected DINOv2's published state dict "
                "of this model"
            )
        self.load_state_dict({key: state[key].float() for key in own})
        self.weights = WeightsInfo(f"file {path.name}", "unknown", sha256)

    def _may_hold(self, key: str) -> bool:
        """Whether a weights file may have this key: ours, or one that is not used.

        DINOv2's mask token serves its training only; what lies behind the deepest tap
        is not computed.
        """
        if key in self.state_dict() or key == "mask_token":
            return True
        part, _, rest = key.partition(".")
        if part == "blocks":
            index = rest.partition(".")[0]
            return index.isdecimal() and int(index) < self.variant.depth
        return part == "norm"

    def draw_weights(self) -> None:
        """Draw all weights from one seed: the same network on every machine."""
        generator = torch.Generator().manual_seed(TINY_SEED)
        for name, parameter in self.named_parameters():
            if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")):
                parameter.data.fill_(1.0)
            elif name.endswith("bias"):
                parameter.data.zero_()
            else:
                fan_in = parameter[0].numel() if name.endswith("weight") else 1e3
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(noise / fan_in**0.5)
        digest = hashlib.sha256()
        for tensor in self.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        self.weights = WeightsInfo(
            source=f"none: random numbers of seed {TINY_SEED}, for tests of the "
            "mechanism only",
            licence="CC0-1.0",
            sha256=digest.hexdigest(),
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        count, _, height, width = pixels.shape
        if height % PATCH_PX or width % PATCH_PX:
            raise ConfigError(
                f'backbone "{self.name}": the model size is {height} x {width} pixels, '
                f"expected multiples of {PATCH_PX}, the side of its patches; set "
                f"image_size to [{_multiple(height)}, {_multiple(width)}]"
            )
        grid = (height // PATCH_PX, width // PATCH_PX)
        place = self._position_embedding(grid)  # (1, h*w, D)
        # DINOv2's order: class token, registers (they have no place), patches.
        first = self.cls_token + self.pos_embed[:, :1]  # (1, 1, D)
        leading = [first.expand(count, -1, -1)]
        if self.variant.registers:
            leading.append(self.register_tokens.expand(count, -1, -1))
        x = torch.cat([*leading, self.patch_embed(pixels) + place], dim=1)  # (N, T, D)

        seen: dict[str, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            seen[f"blocks.{index}"] = x
        wanted = [tap.name for tap in self.taps]
        if "norm" in wanted:
            seen["norm"] = self.norm(x)
        skip = 1 + self.variant.registers
        size = (count, self.variant.width, *grid)
        return [seen[tap][:, skip:].transpose(1, 2).reshape(size) for tap in wanted]

    def _position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """(1, h*w, D) places of the patches, resampled from the square of training."""
        side, width = self.variant.grid, self.variant.width
        patches = self.pos_embed[:, 1:]  # (1, side*side, D)
        if grid == (side, side):
            return patches
        # DINOv2 made its two families with different settings of the resampling: with
        # registers antialiased to the size asked, without them by the factor
        # (side + 0.1) / side of an old rounding problem.
        smooth = self.variant.registers > 0
        down, across = (
            torch.tensor(
                cubic_matrix(
                    side,
                    cells,
                    ratio=side / (cells if smooth else cells + 0.1),
                    antialias=smooth,
                ),
                device=patches.device,
            )
            for cells in grid
        )  # (h, side), (w, side)
        rows = down @ patches.reshape(side, side * width)  # (h, side*D)
        places = torch.matmul(across, rows.reshape(grid[0], side, width))  # (h, w, D)
        return places.reshape(1, grid[0] * grid[1], width)


class PatchEmbedding(nn.Module):
    """Each 14 x 14 patch to a token: (N, 3, H, W) -> (N, h*w, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH_PX, stride=PATCH_PX)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.proj(pixels)  # (N, D, h, w)
        return tokens.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each normalized before and scaled after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Perceptron(width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        x = x + self.ls2(self.mlp(self.norm2(x)))
        return x


class Attention(nn.Module):
    """Multi-head self-attention: (N, T, D) -> (N, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        each = width // self.heads
        qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, each)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (N, heads, T, each)
        weights = ((query * each**-0.5) @ key.transpose(-2, -1)).softmax(dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(count, tokens, width)
        projected: Tensor = self.proj(mixed)
        return projected


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Perceptron(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return projected


def cubic_matrix(
    n_in: int, n_out: int, *, ratio: float, antialias: bool
) -> list[list[float]]:
    """Weights (n_out, n_in) of torch's bicubic resampling along one axis.

    Args:
        ratio: input cells per output cell.
        antialias: the kernel is as wide as an output cell where that is larger, and
            has Keys' parameter -0.5 instead of -0.75, as in torch.
    """
    a = -0.5 if antialias else -0.75
    stretch = max(ratio, 1.0) if antialias else 1.0
    reach = int(2 * stretch) + 1
    rows = []
    for index in range(n_out):
        centre = (index + 0.5) * ratio - 0.5  # in input cells
        row = [0.0] * n_in
        for source in range(floor(centre) - reach, floor(centre) + reach + 2):
            weight = _keys_kernel((source - centre) / stretch, a)
            if antialias and not 0 <= source < n_in:
                continue  # outside counts nothing; without antialias the edge repeats
            row[min(max(source, 0), n_in - 1)] += weight
        total = sum(row)
        rows.append([weight / total for weight in row])
    return rows


def _keys_kernel(x: float, a: float) -> float:
    """Keys, "Cubic convolution interpolation", 1981, equation 4."""
    x = abs(x)
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    if x < 2:
        return a * (((x - 5) * x + 8) * x - 4)
    return 0.0


def _multiple(pixels: int) -> int:
    """The nearest multiple of the patch side, at least one patch."""
    return max(round(pixels / PATCH_PX), 1) * PATCH_PX
