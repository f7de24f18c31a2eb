"""SuperSimpleNet: a small discriminator between normal and disturbed features.

Rolih, Fucka, Skocaj, "SuperSimpleNet: unifying unsupervised and supervised learning for
fast and reliable surface defect detection", ICPR 2024. Frozen features pass a linear
adaptor; noise inside of random blobs makes anomalies of them (section III-B); a
segmentation head learns where, a classification head learns whether (section III-C).
Real defects of the train split take part when there are some (section III-D).

We leave the paper in these places:

- The features are computed once, so a step costs the heads alone.
- The adaptor is not trained but computed: it whitens each position by its own Gaussian
  (`gaussian.py`), of which the segmentation head's logit starts as the log distance.
- Anomalies are features of another picture and another place, mixed in by 30 to 100 %,
  not noise: the longer noise of the features' covariance taught, the worse real
  defects were found (screws, two runs).
- The segmentation head learns ten times slower than the classification head: the
  farther it goes from the Gaussian's answer, the more it finds pasted features only.
- The classification head sees cells of twice the size, and has a quarter of the
  paper's channels: it was two thirds of a step.
- The blobs are thresholded smooth noise, not Perlin noise: like shapes, six lines.
- Map and score are -log P(normal) in nats: softplus of the heads' logits. The paper's
  probabilities pile up at 1, where thresholds cannot tell scores apart. The logits are
  divided by a temperature first (Guo et al., "On calibration of modern neural
  networks", ICML 2017): heads as sure as these make of an engine's rounding of a logit
  as much rounding of the score, relative to it.
- The score is the map's maximum. Where real defects took part, the classification
  head's value is added, as for two independent judges; from pasted features alone it
  helped on screws and harmed on tiles. The paper takes the classification head alone.
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
from .gaussian import PositionGaussian, PositionMoments
from .interface import Detector, FitContext, TrainingData
from .layers import MapOutput, PixelInput
from .training_loop import LoopPlan, draw_batch, initialize, train_by_gradient

CLASSIFY_CHANNELS = 32  # the paper takes 128: two thirds of a step on a CPU
FOCAL_GAMMA = 2.0  # Lin et al. 2017; the paper takes their default
MARGIN = 0.5  # of the truncated L1 loss (paper, equation 3)
TEMPERATURE = 16.0  # the logits are divided by, once they are trained
DEFECT_SHARE = 0.3  # of a model pixel under a mask: the cell around it is a defect
FIRST_GAIN = 4.0  # of the energy in a cell's logit
SEGMENT_PACE = 0.1  # of the classification head's learning rate
LEAST_SHARE = 0.3  # of a pasted feature in the mixture
LEAST_MOVE = 0.1  # squared, per channel, in deviations: what moves less stays normal
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
    steps: int = option(300, "training steps at most", low=1, high=1_000_000)
    batch_size: int = option(8, "pictures per step", low=1, high=1024)
    learning_rate: float = option(
        1e-3,
        "of the classification head; the segmentation head takes a tenth",
        low=1e-7,
        high=1.0,
    )
    rank: int = option(
        16,
        "directions kept per position beyond the part's common ones",
        low=0,
        high=512,
    )
    prior_images: float = option(
        16.0, "weight of the part's common covariance, in images", low=0.0
    )
    sigma_px: float = option(
        4.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )


class Heads(nn.Module):
    """The trained part: segmentation head and classification head."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.segment = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, 1, 1),
        )
        self.gain = nn.Parameter(torch.tensor(FIRST_GAIN))
        self.classify = nn.Sequential(
            nn.Conv2d(channels + 1, CLASSIFY_CHANNELS, 5, padding=2, bias=False),
            nn.BatchNorm2d(CLASSIFY_CHANNELS),
            nn.ReLU(),
        )
        self.judge = nn.Linear(2 * CLASSIFY_CHANNELS + 2, 1)

    def restart(self, generator: torch.Generator) -> None:
        """Draw fresh weights; the cells' answer starts from the energy alone."""
        initialize(self, generator)
        with torch.no_grad():
            self.segment[-1].weight.mul_(0.1)  # type: ignore[operator]
            self.gain.fill_(FIRST_GAIN)

    def parts(self, *names: str) -> list[nn.Parameter]:
        """Give the parameters of some parts."""
        return [
            value
            for name, value in self.named_parameters()
            if name.split(".")[0] in names
        ]

    def forward(self, white: Tensor) -> tuple[Tensor, Tensor]:
        """Give logits per cell (N, 1, h, w) and per picture (N,)."""
        energy = (white.square().mean(dim=1, keepdim=True) + 1e-3).log()
        cells = self.segment(white) + self.gain * energy  # (N, 1, h, w)
        # No gradient into the segmentation head from here (paper, section III-C).
        both = torch.cat([white, cells.detach()], dim=1)
        seen = self.classify(F.avg_pool2d(both, 2, ceil_mode=True))  # (N, 32, h/2, w/2)
        found = cells.detach()
        pooled = torch.cat(
            [_mean(seen), seen.amax(dim=(2, 3)), _mean(found), found.amax(dim=(2, 3))],
            dim=1,
        )  # (N, 66)
        return cells, self.judge(pooled).squeeze(1)


def _mean(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C), rows first: one sum over all cells loses digits."""
    return x.mean(dim=3).mean(dim=2)


@dataclass(frozen=True, slots=True)
class RealDefects:
    """Some defects of the train split, as a step sees them."""

    features: Tensor  # (B, C, h, w)
    masked: list[int]  # rows of the batch that have a mask
    truth: list[Tensor]  # (1, h, w) float32 of each of those


class SuperSimpleNet(Detector):
    """Trained discriminator of features, with synthetic and, if given, real defects."""

    name = "supersimplenet"
    Config: ClassVar[type[Any]] = SuperSimpleNetConfig
    needs_weights = True
    trains = True
    uses_defects = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"steps": 100, "hidden": 128},
        "fine": {"image_size": (384, 384), "steps": 600},
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
        # Mean 0: a mask is no picture. A defect at the border is continued as the
        # picture is.
        self.mask_pixels = PixelInput(config.image_size, geometry=config.geometry)
        channels, height, width = self.deep_features.shape_of(backbone)
        self.gaussian = PositionGaussian(
            channels=channels, grid=(height, width), rank=min(config.rank, channels)
        )
        self.heads = Heads(channels, config.hidden)
        self.map_output = MapOutput(
            config.image_size, config.sigma_px, grid=(height, width)
        )
        self.register_buffer("voice", torch.zeros(1))
        self.voice: Tensor  # (1,) of the classification head in the score: 0 or 1
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
        cells, whole = self.heads(self.gaussian.whitened(features))
        anomaly_map = self.map_output(_surprise(cells).squeeze(1))
        score = anomaly_map.amax(dim=(1, 2)) + self.voice * _surprise(whole)
        return score, anomaly_map

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
                marked = mark_cells(mask, self.mask_pixels, grid)
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
        self._whiten_by(normals, context)
        self.voice.fill_(1.0 if defects else 0.0)
        self.heads.restart(generator)
        slower = config.learning_rate * SEGMENT_PACE
        groups: list[dict[str, Any]] = [
            {"params": self.heads.parts("classify", "judge")},
            {"params": self.heads.parts("segment", "gain"), "lr": slower},
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=1e-5
        )
        milestones = [int(config.steps * 0.8), int(config.steps * 0.9)]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.4)

        def step() -> Tensor:
            self.heads.train()
            picks = draw_batch(len(normals), config.batch_size, generator)
            features = normals.images(picks).to(context.device)
            real = self._draw_defects(defects, context) if defects else None
            return self._loss(features, generator, real)

        tuned = None if tuning is None else tuning.to(context.device)

        def tuning_loss() -> float:
            assert tuned is not None
            self.heads.eval()
            fixed = torch.Generator().manual_seed(0)
            losses = [self._loss(tuned, fixed) for _ in range(TUNING_DRAWS)]
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
    def _whiten_by(self, normals: FeatureSet, context: FitContext) -> None:
        """Estimate the Gaussian of each position."""
        channels, height, width = normals.shape
        moments = PositionMoments.empty(
            channels, (height, width), device=context.device
        )
        done = 0
        for batch in normals.batches(32):
            moments.update(batch.to(context.device))
            done += len(batch)
            context.progress("statistics", done, len(normals))
        self.gaussian = PositionGaussian.fit(
            moments,
            rank=min(self.config.rank, channels),
            prior_images=self.config.prior_images,
        )

    def _draw_defects(
        self, defects: list[tuple[Tensor, Tensor | None]], context: FitContext
    ) -> RealDefects:
        """Give some real defects, half as many as normals."""
        size = max(1, self.config.batch_size // 2)
        picks = draw_batch(len(defects), size, context.generator).tolist()
        features = torch.stack([defects[i][0] for i in picks]).to(context.device)
        masks = [defects[i][1] for i in picks]
        return RealDefects(
            features=features,
            masked=[row for row, mask in enumerate(masks) if mask is not None],
            truth=[mask.float() for mask in masks if mask is not None],
        )

    def _loss(
        self,
        features: Tensor,
        generator: torch.Generator,
        real: RealDefects | None = None,
    ) -> Tensor:
        """Loss of normals (N, C, h, w), disturbed copies of them and real defects.

        All pass the heads at once: batch norm sees one mixture, whose statistics it
        keeps for later.
        """
        n = len(features)
        with torch.no_grad():
            white = self.gaussian.whitened(features)
            pasted, blobs = paste(features, generator)
            disturbed = self.gaussian.whitened(pasted)
            moved = (disturbed - white).square().mean(dim=1, keepdim=True)
            blobs = blobs * (moved > LEAST_MOVE)  # (N, 1, h, w)
            batch = [white, disturbed]
            if real is not None:
                batch.append(self.gaussian.whitened(real.features))
        cells, whole = self.heads(torch.cat(batch))
        truth = torch.cat([torch.zeros_like(blobs), blobs])  # (2N, 1, h, w)
        anomalous = truth.amax(dim=(1, 2, 3))  # (2N,)
        loss = _cell_loss(cells[: 2 * n], truth) + _focal(whole[: 2 * n], anomalous)
        if real is None:
            return loss
        loss = loss + _focal(whole[2 * n :], torch.ones_like(whole[2 * n :]))
        if real.masked:  # one without a mask teaches the judgement of the whole alone
            marked = torch.stack(real.truth).to(cells.device)
            loss = loss + _cell_loss(cells[2 * n :][real.masked], marked)
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


def mark_cells(mask: Tensor, pixels: PixelInput, grid: tuple[int, int]) -> Tensor:
    """Give the cells (1, h, w) bool that a defect's mask (H, W) touches.

    Args:
        pixels: takes the mask to the model size as it takes the picture; mean 0.
        grid: (h, w) of the features.
    """
    lit = mask[..., None].expand(*mask.shape, 3).to(torch.uint8) * 255
    covered = pixels(lit[None].to(pixels.mean.device))[:, :1] / 255  # (1, 1, H, W)
    # A defect far smaller than a pixel of the model marks where it is strongest.
    least = min(DEFECT_SHARE, float(covered.max()) / 2)
    return F.adaptive_max_pool2d(covered, grid)[0].cpu() > least


def paste(features: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix features of another picture and place into blobs of features (N, C, h, w).

    Returns:
        The mixture, and (N, 1, h, w) where something was mixed in.
    """
    n, _, height, width = features.shape
    blobs = draw_blobs(n, (height, width), generator).to(features.device)
    down = int(torch.randint(height, (1,), generator=generator))
    right = int(torch.randint(width, (1,), generator=generator))
    others = torch.randperm(n, generator=generator).to(features.device)
    foreign = features[others].roll((down, right), dims=(2, 3))
    draw = torch.rand(n, 1, 1, 1, generator=generator).to(features.device)
    share = (LEAST_SHARE + (1 - LEAST_SHARE) * draw) * blobs
    return features + share * (foreign - features), blobs


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
