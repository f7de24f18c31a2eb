from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from pyimgano.detectors.feature_detector import FeatureDetector
from pyimgano.detectors.layers import MapOutput, PixelInput
from pyimgano.option_fields import option


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeDensityConfig:
    image_size: tuple[int, int] = option((128, 128), "model size, pixels", low=16)
    sigma_px: float = option(4.0, "Gaussian smoothing of the map", low=0.0, high=64.0)


class EdgeDensity(FeatureDetector):
    """Places with more, or fewer, edges than good parts have, in any pose."""

    name, Config = "edge_density", EdgeDensityConfig

    def __init__(self, config, *, backbone=None):
        super().__init__(config, backbone=backbone)
        self.pixels = PixelInput(config.image_size)  # resize: (N, 3, H, W) grey levels
        grid = [side // 16 for side in config.image_size]
        self.map_output = MapOutput(config.image_size, config.sigma_px, grid=grid)
        self.register_buffer("normal", torch.zeros(2))  # mean and deviation

    def features(self, images_u8):
        grey = self.pixels(images_u8).mean(dim=1, keepdim=True)
        edges = max_pool2d(grey, 3, 1, 1) + max_pool2d(-grey, 3, 1, 1)
        return avg_pool2d(edges, 16)  # (N, 1, H / 16, W / 16): range around a pixel

    def fit_features(self, features, *, context):
        density = torch.cat([batch.flatten() for batch in features.batches()]).double()
        variance = density.var(correction=0) + 1  # 1: a grey level of sensor noise
        normal = torch.stack([density.mean(), variance.sqrt()])
        self.normal = normal.float().to(context.device)
        return self

    def score_features(self, features):
        strength = ((features - self.normal[0]) / self.normal[1]).abs().squeeze(1)
        anomaly_map = self.map_output(strength)
        return anomaly_map.amax(dim=(1, 2)), anomaly_map  # (N,), (N, H, W)

    def preprocess_steps(self):
        return self.pixels.describe()

    def map_size(self):
        return self.map_output.map_size
