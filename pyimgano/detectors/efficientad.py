"""EfficientAD: a small patch network, its student, and an autoencoder that disagrees.

Batzner, Heckler, König, "EfficientAD: accurate visual anomaly detection at
millisecond-level latencies", WACV 2024. A small teacher is distilled from a large
network (section 3.1); a student trained on normals with the hardest cells only answers
otherwise where the part is new (section 3.2); an autoencoder, through a code that holds
no detail, finds what is wrong as a whole (section 3.3); quantiles bring the two maps to
one scale (section 3.4). The backbone is needed for the fit alone: it is not in the
graph that ships.

We leave the paper in these places, because a fit is minutes on a CPU, without ImageNet:

- The teacher is distilled from random crops of the part's own normals, so it knows
  nothing else, and from the components of the backbone's features that vary most.
- The penalty on what the student answers to foreign pictures is left out: it needs
  them. So are the autoencoder's colour jitter and dropout: teacher's answers are
  computed once.
- The quantiles' distance scales a map; the low one is not taken off: a shift of all
  scores alike, which would bring them close to zero, where engines disagree most.
- The networks are padded and a quarter as wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option
from pyimgano_runtime.errors import ConfigError

from .feature_set import FeatureSet
from .interface import Detector, FitContext, TrainingData
from .layers import MapOutput, PixelInput
from .principal_components import Moments
from .training_loop import LoopPlan, draw_batch, initialize, train_by_gradient

LATENT = 64  # channels of the autoencoder's code (paper, table 6)
HARD_SHARE = 0.001  # of the student's errors that train it (paper, section 3.2)
LOW_QUANTILE, HIGH_QUANTILE = 0.9, 0.995  # of normal maps (paper, section 3.4)
HIGH_VALUE = 0.1  # what the distance between them becomes
CROP_SHARE = 0.5  # of a picture's side, at least, when the teacher is distilled


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientADConfig:
    """Hyper-parameters of EfficientAD."""

    backbone: str = option("efficientnet_lite0", "what the teacher is distilled from")
    taps: tuple[str, ...] = option(
        ("stage3", "stage5"),
        "where its features are read: stage names, or stride8 etc.",
    )
    image_size: tuple[int, int] = option(
        (256, 256), "model size [height, width] in pixels", low=32, high=4096
    )
    geometry: str = option(
        "letterbox",
        '"stretch": both axes scaled on their own; "letterbox": aspect ratio kept, the '
        "rest filled with the picture's border pixels",
        choices=("stretch", "letterbox"),
    )
    width: int = option(32, "channels of the first layer", low=8, high=512)
    channels: int = option(64, "features of the teacher", low=8, high=1024)
    teacher_steps: int = option(500, "steps of the distillation", low=1, high=1_000_000)
    steps: int = option(
        1200, "steps of student and autoencoder at most", low=1, high=1_000_000
    )
    batch_size: int = option(4, "pictures per step", low=1, high=1024)
    learning_rate: float = option(2e-3, "of the Adam optimizer", low=1e-7, high=1.0)
    sigma_px: float = option(
        4.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )


def patch_network(width: int, channels: int) -> nn.Sequential:
    """Give the paper's small patch description network, on a grid of stride 4."""
    even = (1, 2, 1, 2)  # keeps the size under a 4 x 4 kernel
    return nn.Sequential(
        nn.ZeroPad2d(even),
        nn.Conv2d(3, width, 4),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.ZeroPad2d(even),
        nn.Conv2d(width, 2 * width, 4),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.ZeroPad2d(even),
        nn.Conv2d(2 * width, channels, 4),
    )


class Autoencoder(nn.Module):
    """A picture to one code of 64 numbers, and to the teacher's grid."""

    def __init__(self, image_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, inputs = image_size, 3
        for outputs in (32, 32, LATENT, LATENT, LATENT):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
            size, inputs = (size[0] // 2, size[1] // 2), outputs
        layers.append(nn.Conv2d(LATENT, LATENT, size))  # all cells: one code
        self.encode = nn.Sequential(*layers)
        grid = (image_size[0] // 4, image_size[1] // 4)
        self.sizes = [
            (max(1, grid[0] // part), max(1, grid[1] // part)) for part in (16, 8, 4, 2)
        ] + [grid]
        self.decode = nn.ModuleList(
            nn.Sequential(nn.Conv2d(LATENT, LATENT, 3, padding=1), nn.ReLU())
            for _ in self.sizes
        )
        self.answer = nn.Conv2d(LATENT, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, channels, H // 4, W // 4)."""
        x = self.encode(x)  # (N, 64, 1, 1)
        for size, layer in zip(self.sizes, self.decode, strict=True):
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = layer(x)
        answer: Tensor = self.answer(x)
        return answer


class EfficientAD(Detector):
    """Small student and autoencoder against a small teacher: no backbone ships."""

    name = "efficientad"
    Config: ClassVar[type[Any]] = EfficientADConfig
    needs_weights = True
    trains = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"width": 24, "channels": 48, "teacher_steps": 300, "steps": 600},
        "fine": {"image_size": (384, 384), "width": 48, "channels": 96},
    }

    config: EfficientADConfig
    backbone: Backbone

    def __init__(
        self, config: EfficientADConfig, *, backbone: Backbone | None = None
    ) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        self.pixels = PixelInput(
            config.image_size,
            mean=backbone.pixel_mean,
            std=backbone.pixel_std,
            geometry=config.geometry,
        )
        self.teacher = patch_network(config.width, config.channels)
        self.pupils = nn.ModuleDict(
            {
                # Twice the channels: one half follows the teacher, one the autoencoder.
                "student": patch_network(config.width, 2 * config.channels),
                "autoencoder": Autoencoder(config.image_size, config.channels),
            }
        )
        available = sum(tap.channels for tap in backbone.taps)
        if config.channels > available:
            raise ConfigError(
                f"efficientad: channels is {config.channels}, expected at most "
                f"{available}, which {config.backbone} has at {', '.join(config.taps)}"
            )
        height, width = config.image_size
        self.map_output = MapOutput(
            config.image_size, config.sigma_px, grid=(height // 4, width // 4)
        )
        self.register_buffer("map_gain", torch.ones(2))
        self.map_gain: Tensor  # what the student's and the autoencoder's map is times

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch; see `Detector.forward`."""
        x = self.pixels(images_u8)
        local, whole = self._distances(x, self.teacher(x))
        both = 0.5 * (local * self.map_gain[0] + whole * self.map_gain[1])
        anomaly_map = self.map_output(both)
        return anomaly_map.amax(dim=(1, 2)), anomaly_map

    def _distances(self, x: Tensor, taught: Tensor) -> tuple[Tensor, Tensor]:
        """Give the student's and the autoencoder's map (N, h, w), not normalised."""
        follows_teacher, follows_autoencoder = self.pupils["student"](x).chunk(2, dim=1)
        rebuilt = self.pupils["autoencoder"](x)
        return (
            (taught - follows_teacher).square().mean(dim=1),
            (rebuilt - follows_autoencoder).square().mean(dim=1),
        )

    def fit(self, data: TrainingData, *, context: FitContext) -> Self:
        """Distil the teacher, train student and autoencoder, measure normal maps."""
        self.eval().to(context.device)
        normals = FeatureSet.collect(
            data.normals(),
            self.pixels,
            n_images=data.n_normals,
            context=context,
            name="pictures",
        )
        with torch.no_grad():
            tuning = [self.pixels(b.to(context.device)) for b in data.tuning_normals()]
        self._distil(normals, context)
        taught = FeatureSet.collect(
            normals.batches(4),
            self.teacher,
            n_images=len(normals),
            context=context,
            name="teacher's answers",
        )
        self._train(normals, taught, tuning, context)
        self._measure(tuning if tuning else normals.batches(4), context)
        return self.eval()

    def _distil(self, normals: FeatureSet, context: FitContext) -> None:
        """Train the teacher to answer like the backbone, at unit variance."""
        config, generator = self.config, context.generator
        axes, center, scale = self._components(normals, context)
        initialize(self.teacher, generator)
        self.teacher.requires_grad_(True)
        optimizer, scheduler = _adam(self.teacher, config, config.teacher_steps)

        def step() -> Tensor:
            picks = draw_batch(len(normals), config.batch_size, generator)
            x = random_crops(normals.images(picks), generator).to(context.device)
            with torch.no_grad():
                features = self._backbone_features(x)
                wanted = torch.einsum("nchw,ck->nkhw", features - center, axes) / scale
            return F.mse_loss(self.teacher(x), wanted)

        train_by_gradient(
            self.teacher,
            optimizer,
            step,
            plan=LoopPlan(steps=config.teacher_steps),
            context=context,
            name="teacher",
            scheduler=scheduler,
        )
        self.teacher.requires_grad_(False)

    def _backbone_features(self, x: Tensor) -> Tensor:
        """Give (N, C, h, w) on the teacher's grid; the picture is doubled for it.

        The paper, too, gives the large network 512 pixels for 256 (appendix A.1).
        """
        doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        grid = (x.shape[2] // 4, x.shape[3] // 4)
        levels = [
            F.interpolate(level, size=grid, mode="bilinear", align_corners=False)
            for level in self.backbone(doubled)
        ]
        return torch.cat(levels, dim=1)

    @torch.no_grad()
    def _components(
        self, normals: FeatureSet, context: FitContext
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give axes (C, k), mean (1, C, 1, 1) and one deviation: the axes' mean.

        One for all, not one each: axes that hardly vary are noise, and would weigh as
        much as the others.
        """
        moments, done = Moments(), 0
        for batch in normals.batches(4):
            features = self._backbone_features(batch.to(context.device))
            vectors = features.permute(0, 2, 3, 1).flatten(0, 2)[::7]  # (P, C)
            moments.update(vectors.cpu())
            done += len(batch)
            context.progress("what to distil", done, len(normals))
        variances, axes = moments.axes()
        k = self.config.channels
        scale = variances[:k].mean().sqrt().clamp_min(1e-6)
        return (
            axes[:, :k].float().contiguous().to(context.device),
            moments.mean.float().view(1, -1, 1, 1).to(context.device),
            scale.float().to(context.device),
        )

    def _train(
        self,
        normals: FeatureSet,
        taught: FeatureSet,
        tuning: list[Tensor],
        context: FitContext,
    ) -> None:
        """Train student and autoencoder on the teacher's answers."""
        config, generator = self.config, context.generator
        initialize(self.pupils, generator)
        self.pupils.requires_grad_(True)
        optimizer, scheduler = _adam(self.pupils, config, config.steps)

        def loss_of(x: Tensor, wanted: Tensor) -> Tensor:
            follows, copies = self.pupils["student"](x).chunk(2, dim=1)
            rebuilt = self.pupils["autoencoder"](x)
            of_student = _hardest((wanted - follows).square())
            of_autoencoder = F.mse_loss(rebuilt, wanted)
            of_their_meeting = F.mse_loss(copies, rebuilt.detach())
            return of_student + of_autoencoder + of_their_meeting

        def step() -> Tensor:
            picks = draw_batch(len(normals), config.batch_size, generator)
            x = normals.images(picks).to(context.device)
            return loss_of(x, taught.images(picks).to(context.device))

        def tuning_loss() -> float:
            losses = [float(loss_of(x, self.teacher(x))) * len(x) for x in tuning]
            return sum(losses) / sum(len(x) for x in tuning)

        train_by_gradient(
            self.pupils,
            optimizer,
            step,
            plan=LoopPlan(steps=config.steps),
            context=context,
            name="student",
            scheduler=scheduler,
            tuning_loss=tuning_loss if tuning else None,
        )
        self.pupils.requires_grad_(False)

    @torch.no_grad()
    def _measure(self, batches: Any, context: FitContext) -> None:
        """Bring both maps to one scale by their quantiles over normals."""
        maps: tuple[list[Any], list[Any]] = ([], [])
        for batch in batches:
            x = batch.to(context.device)
            for found, values in zip(
                maps, self._distances(x, self.teacher(x)), strict=True
            ):
                found.append(values.cpu().numpy().ravel())
        for row, found in enumerate(maps):
            low, high = np.quantile(
                np.concatenate(found), [LOW_QUANTILE, HIGH_QUANTILE]
            )
            self.map_gain[row] = HIGH_VALUE / max(float(high - low), 1e-12)

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return self.pixels.describe()

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.postprocess_steps`."""
        return self.map_output.describe()

    def map_size(self) -> tuple[int, int]:
        """See `Detector.map_size`."""
        return self.map_output.map_size


def random_crops(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Give (N, 3, H, W): a random part of each picture, at its size, half mirrored."""
    height, width = pictures.shape[2:]
    crops = []
    for picture in pictures:
        draw = torch.rand(4, generator=generator).tolist()
        share = CROP_SHARE + (1 - CROP_SHARE) * draw[0]
        h, w = max(1, round(share * height)), max(1, round(share * width))
        top, left = round(draw[1] * (height - h)), round(draw[2] * (width - w))
        part = picture[None, :, top : top + h, left : left + w]
        part = part.flip(3) if draw[3] < 0.5 else part
        crops.append(
            F.interpolate(
                part, size=(height, width), mode="bilinear", align_corners=False
            )
        )
    return torch.cat(crops)


def _hardest(errors: Tensor) -> Tensor:
    """Give the mean of the largest errors: only they train (paper, equation 3)."""
    count = max(1, round(HARD_SHARE * errors.numel()))
    hardest: Tensor = errors.flatten().topk(count).values.mean()
    return hardest


def _adam(
    module: nn.Module, config: EfficientADConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=1e-5
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return optimizer, scheduler
