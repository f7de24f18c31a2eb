"""SuperSimpleNet: a small discriminator between normal and disturbed features.

Rolih, Fucka, Skocaj, "SuperSimpleNet: unifying unsupervised and supervised learning for
fast and reliable surface defect detection", ICPR 2024. Frozen features pass a linear
adaptor; noise inside of random blobs makes anomalies of them (section III-B); a
segmentation head learns where, a classification head learns whether (section III-C).
Real defects of the train split take part when there are some (section III-D).

We leave the paper in these places:

- The features are computed once and standardised per channel by the training set, so a
  step costs the heads alone and the noise has the same unit for every backbone.
- The blobs are thresholded smooth noise, not Perlin noise: like shapes, six lines.
- Map and score are -log P(normal) in nats: softplus of the heads' logits. The paper's
  probabilities pile up at 1, where thresholds cannot tell scores apart. The logits are
  divided by a temperature first (Guo et al., "On calibration of modern neural
  networks", ICML 2017): heads as sure as these make of an engine's rounding of a logit
  as much rounding of the score, relative to it; 1.09e-5 on magnetic tiles.
- The score is the sum of the map's maximum and the classification head's value, as for
  two independent judges; the paper takes the classification head alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option

from .deep_features import DeepFeatures
from .feature_set import FeatureSet
from .interface import Detector, FitContext, TrainingData
from .layers import MapOutput
from .training_loop import LoopPlan, draw_batch, initialize, train_by_gradient

CLASSIFY_CHANNELS = 32  # the paper takes 128: two thirds of a step on a CPU
FOCAL_GAMMA = 2.0  # Lin et al. 2017; the paper takes their default
MARGIN = 0.5  # of the truncated L1 loss (paper, equation 3)
TEMPERATURE = 4.0  # the logits are divided by, once they are trained
TUNING_DRAWS = 4  # disturbed versions of the tuning normals, the same at each look


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperSimpleNetConfig:
    """Hyper-parameters of SuperSimpleNet."""

    backbone: str = option("efficientnet_lite0", "feature extractor")
    taps: tuple[str, ...] = option(
        ("stage3", "stage5"), "where features are read: stage names, or stride8 etc."
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
    hidden: int = option(256, "channels within the segmentation head", low=8, high=4096)
    noise: float = option(
        1.0,
        "standard deviation of the noise that makes anomalies, in standard deviations "
        "of the features",
        low=1e-3,
        high=100.0,
    )
    steps: int = option(1000, "training steps at most", low=1, high=1_000_000)
    batch_size: int = option(8, "pictures per step", low=1, high=1024)
    learning_rate: float = option(1e-3, "of both heads", low=1e-7, high=1.0)
    sigma_px: float = option(
        4.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )


class Heads(nn.Module):
    """The trained part: adaptor, segmentation head, classification head."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.adaptor = nn.Conv2d(channels, channels, 1, bias=False)
        self.segment = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, 1, 1, bias=False),
        )
        self.classify = nn.Sequential(
            nn.Conv2d(channels + 1, CLASSIFY_CHANNELS, 5, padding=2, bias=False),
            nn.BatchNorm2d(CLASSIFY_CHANNELS),
            nn.ReLU(),
        )
        self.judge = nn.Linear(2 * CLASSIFY_CHANNELS + 2, 1)

    def forward(self, adapted: Tensor) -> tuple[Tensor, Tensor]:
        """Give logits per cell (N, 1, h, w) and per picture (N,)."""
        cells = self.segment(adapted)  # (N, 1, h, w)
        # No gradient into the segmentation head from here (paper, section III-C).
        both = torch.cat([adapted, cells.detach()], dim=1)
        seen = self.classify(both)  # (N, 32, h, w)
        pooled = torch.cat(
            [_mean(seen), seen.amax(dim=(2, 3)), _mean(cells), cells.amax(dim=(2, 3))],
            dim=1,
        )  # (N, 66)
        return cells, self.judge(pooled).squeeze(1)


def _mean(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C), rows first: one sum over all cells loses digits."""
    return x.mean(dim=3).mean(dim=2)


class SuperSimpleNet(Detector):
    """Trained discriminator of features, with synthetic and, if given, real defects."""

    name = "supersimplenet"
    Config: ClassVar[type[Any]] = SuperSimpleNetConfig
    needs_weights = True
    trains = True
    uses_defects = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"steps": 300, "hidden": 128},
        "fine": {"image_size": (384, 384), "steps": 2000},
    }

    config: SuperSimpleNetConfig
    backbone: Backbone

    def __init__(
        self, config: SuperSimpleNetConfig, *, backbone: Backbone | None = None
    ) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        self.deep_features = DeepFeatures(
            backbone, config.image_size, geometry=config.geometry
        )
        channels = self.deep_features.channels
        self.heads = Heads(channels, config.hidden)
        self.map_output = MapOutput(
            config.image_size,
            config.sigma_px,
            grid=self.deep_features.grid_of(backbone),
        )
        self.register_buffer("center", torch.zeros(1, channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, channels, 1, 1))
        self.center: Tensor  # (1, C, 1, 1) mean of the training features
        self.scale: Tensor  # (1, C, 1, 1) their standard deviation
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: `fit` alone switches the heads."""
        del mode
        return super().train(False)

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch; see `Detector.forward`."""
        return self.score_features(self.deep_features(images_u8, self.backbone))

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Give score (N,) and map (N, map_h, map_w) of (N, C, h, w), in nats."""
        cells, whole = self.heads(self._adapt(features))
        anomaly_map = self.map_output(_surprise(cells).squeeze(1))
        return anomaly_map.amax(dim=(1, 2)) + _surprise(whole), anomaly_map

    def fit(self, data: TrainingData, *, context: FitContext) -> Self:
        """Train the heads on the features of normals and, if given, of defects."""
        self.eval().to(context.device)

        def compute(images_u8: Tensor) -> Tensor:
            features: Tensor = self.deep_features(images_u8, self.backbone)
            return features

        normals = FeatureSet.collect(
            data.normals(), compute, n_images=data.n_normals, context=context
        )
        with torch.no_grad():
            tuning = [
                compute(b.to(context.device)).cpu() for b in data.tuning_normals()
            ]
            defects = list(self._defects(data, compute, normals.shape[1:], context))
        return self.fit_features(
            normals,
            tuning=torch.cat(tuning) if tuning else None,
            defects=defects,
            context=context,
        )

    def _defects(
        self,
        data: TrainingData,
        compute: Any,
        grid: tuple[int, int],
        context: FitContext,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Give features (C, h, w) and marked cells (1, h, w) of each real defect."""
        for image, mask in data.defects():
            features = compute(image[None].to(context.device))[0].cpu()
            marked = None
            if mask is not None:
                # The picture's way to the model size; a cell with any defect counts.
                lit = mask[..., None].expand(*mask.shape, 3).to(torch.uint8) * 255
                pixels = self.deep_features.pixels
                on_model = (
                    pixels(lit[None].to(context.device)) * pixels.std + pixels.mean
                )
                marked = F.adaptive_max_pool2d(on_model[:, :1], grid)[0].cpu() > 64
            yield features, marked

    def fit_features(
        self,
        normals: FeatureSet,
        *,
        tuning: Tensor | None,
        defects: list[tuple[Tensor, Tensor | None]],
        context: FitContext,
    ) -> Self:
        """Train the heads on features that were computed before."""
        config, generator = self.config, context.generator
        self._standardize(normals, context)
        initialize(self.heads, generator)
        with torch.no_grad():  # the adaptor starts as the identity
            nn.init.dirac_(self.heads.adaptor.weight)
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": self.heads.adaptor.parameters(),
                    "lr": config.learning_rate / 2,
                },
                {
                    "params": [
                        *self.heads.segment.parameters(),
                        *self.heads.classify.parameters(),
                        *self.heads.judge.parameters(),
                    ],
                    "weight_decay": 1e-5,
                },
            ],
            lr=config.learning_rate,
        )
        milestones = [int(config.steps * 0.8), int(config.steps * 0.9)]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.4)

        def step() -> Tensor:
            self.heads.train()
            picks = draw_batch(len(normals), config.batch_size, generator)
            features = normals.images(picks).to(context.device)
            loss = self._loss(self._adapt(features), generator)
            if defects:
                loss = loss + self._loss_of_defects(defects, context)
            return loss

        tuned = None if tuning is None else tuning.to(context.device)

        def tuning_loss() -> float:
            assert tuned is not None
            self.heads.eval()
            fixed = torch.Generator().manual_seed(0)
            adapted = self._adapt(tuned)
            losses = [self._loss(adapted, fixed) for _ in range(TUNING_DRAWS)]
            return float(torch.stack(losses).mean())

        train_by_gradient(
            self.heads,
            optimizer,
            step,
            plan=LoopPlan(steps=config.steps),
            context=context,
            name="training",
            scheduler=scheduler,
            tuning_loss=None if tuned is None else tuning_loss,
        )
        return self.eval()

    @torch.no_grad()
    def _standardize(self, normals: FeatureSet, context: FitContext) -> None:
        """Take mean and standard deviation of each channel over all cells."""
        channels = normals.shape[0]
        count = 0
        total = torch.zeros(channels, dtype=torch.float64)
        squares = torch.zeros(channels, dtype=torch.float64)
        for batch in normals.batches():
            values = batch.double()
            count += values.numel() // channels
            total += values.sum(dim=(0, 2, 3))
            squares += values.square().sum(dim=(0, 2, 3))
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(1e-12)
        shape = (1, channels, 1, 1)
        self.center = mean.float().view(shape).to(context.device)
        self.scale = variance.sqrt().float().view(shape).to(context.device)

    def _adapt(self, features: Tensor) -> Tensor:
        adapted: Tensor = self.heads.adaptor((features - self.center) / self.scale)
        return adapted

    def _loss(self, adapted: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of normals (N, C, h, w) and of as many disturbed copies of them."""
        n, _, height, width = adapted.shape
        blobs = draw_blobs(n, (height, width), generator).to(adapted.device)
        noise = torch.randn(adapted.shape, generator=generator).to(adapted.device)
        disturbed = adapted + noise * self.config.noise * blobs
        both = torch.cat([adapted, disturbed])  # (2N, C, h, w)
        truth = torch.cat([torch.zeros_like(blobs), blobs])  # (2N, 1, h, w)
        cells, whole = self.heads(both)
        anomalous = truth.amax(dim=(1, 2, 3))  # (2N,)
        return _cell_loss(cells, truth) + _focal(whole, anomalous)

    def _loss_of_defects(
        self, defects: list[tuple[Tensor, Tensor | None]], context: FitContext
    ) -> Tensor:
        """Loss of some real defects; those without a mask judge the whole alone."""
        size = max(1, self.config.batch_size // 2)
        picks = draw_batch(len(defects), size, context.generator).tolist()
        features = torch.stack([defects[i][0] for i in picks]).to(context.device)
        cells, whole = self.heads(self._adapt(features))
        loss = _focal(whole, torch.ones_like(whole))
        masked = [row for row, i in enumerate(picks) if defects[i][1] is not None]
        if masked:
            masks = [defects[picks[row]][1] for row in masked]
            truth = torch.stack([m for m in masks if m is not None]).float()
            loss = loss + _cell_loss(cells[masked], truth.to(context.device))
        return loss

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return self.deep_features.describe()

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.postprocess_steps`."""
        return self.map_output.describe()

    def map_size(self) -> tuple[int, int]:
        """See `Detector.map_size`."""
        return self.map_output.map_size


def draw_blobs(n: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Give (n, 1, h, w) float32 masks of 0 and 1: where a picture is disturbed.

    Smooth noise of a random coarseness above a random level: from one cell to about a
    third of the picture, never nothing.
    """
    masks = []
    for _ in range(n):
        coarse = int(torch.randint(2, 9, (1,), generator=generator))
        noise = torch.randn(1, 1, coarse, coarse, generator=generator)
        field = F.interpolate(noise, size=grid, mode="bicubic", align_corners=False)
        share = 0.3 * float(torch.rand(1, generator=generator)) ** 2
        n_cells = max(1, round(share * grid[0] * grid[1]))
        level = field.flatten().topk(n_cells).values[-1]
        masks.append((field >= level).float())
    return torch.cat(masks)


def _surprise(logits: Tensor) -> Tensor:
    """Give -log P(normal), in nats, at the temperature; never negative."""
    return F.softplus(logits / TEMPERATURE)


def _cell_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Truncated L1 (paper, equation 3) plus focal loss of the cells."""
    signed = torch.where(truth > 0.5, -logits, logits)
    truncated = (signed + MARGIN).clamp_min(0)
    wrong = truth > 0.5
    parts = [truncated[part].mean() for part in (wrong, ~wrong) if bool(part.any())]
    return torch.stack(parts).sum() + _focal(logits, truth)


def _focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017, equation 4, without alpha)."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return ((1 - torch.exp(-entropy)) ** FOCAL_GAMMA * entropy).mean()
