"""A detector of your own: places with more, or fewer, edges than good parts have.

pyimgano train --plugin plugin_detector:EdgeDensity --config config.json
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pyimgano.detectors.feature_detector import FeatureDetector
from pyimgano.detectors.layers import MapOutput, PixelInput
from pyimgano.option_fields import option


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeDensityConfig:
    image_size: tuple[int, int] = option((128, 128), "model size, pixels", low=16)
    cell_px: int = option(16, "side of a place, in model pixels", low=1, high=16)
    sigma_px: float = option(4.0, "Gaussian smoothing of the map", low=0.0, high=64.0)


class EdgeDensity(FeatureDetector):
    """Deviation of each place's edge strength from that of good parts, in any pose."""

    name = "edge_density"
    Config = EdgeDensityConfig

    def __init__(self, config, *, backbone=None):
        super().__init__(config, backbone=backbone)
        self.pixels = PixelInput(config.image_size)  # resize: (N, 3, H, W) grey levels
        grid = [side // config.cell_px for side in config.image_size]
        self.map_output = MapOutput(config.image_size, config.sigma_px, grid=grid)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def features(self, images_u8):
        grey = self.pixels(images_u8).mean(dim=1, keepdim=True)
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        edges = (across.square() + down.square() + 1e-6).sqrt()
        return F.avg_pool2d(edges, self.config.cell_px)  # (N, 1, h, w) grey levels

    def fit_features(self, features, *, context):
        density = torch.cat([batch.double().flatten() for batch in features.batches()])
        self.mean = density.mean().float().to(context.device)
        self.deviation = (density.var() + 1).sqrt().float().to(context.device)
        return self  # 1: a grey level of sensor noise

    def score_features(self, features):
        strength = ((features - self.mean) / self.deviation).abs().squeeze(1)
        anomaly_map = self.map_output(strength)
        return anomaly_map.amax(dim=(1, 2)), anomaly_map  # (N,), (N, H, W)

    def preprocess_steps(self):
        return self.pixels.describe()

    def postprocess_steps(self):
        return self.map_output.describe()

    def map_size(self):
        return self.map_output.map_size
