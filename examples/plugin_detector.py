"""A detector of your own: colours that no good part has, whatever the part's pose.

pyimgano train --plugin plugin_detector:ColourRange --config config.json
"""

from dataclasses import dataclass

import torch

from pyimgano.detectors.feature_detector import FeatureDetector
from pyimgano.detectors.layers import MapOutput, PixelInput
from pyimgano.option_fields import option


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourRangeConfig:
    image_size: tuple[int, int] = option((128, 128), "model size, pixels", low=16)
    sigma_px: float = option(2.0, "Gaussian smoothing of the map", low=0.0, high=64.0)


class ColourRange(FeatureDetector):
    """Distance of each spot's colour from those of good parts, in deviations."""

    name = "colour_range"
    Config = ColourRangeConfig

    def __init__(self, config, *, backbone=None):
        super().__init__(config, backbone=backbone)
        self.pixels = PixelInput(config.image_size)  # resize: (N, 3, H, W) grey levels
        self.map_output = MapOutput(config.image_size, config.sigma_px)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("whitening", torch.eye(3))

    def features(self, images_u8):
        return torch.nn.functional.avg_pool2d(self.pixels(images_u8), 4)

    def fit_features(self, features, *, context):
        batches = [batch.movedim(1, 3).reshape(-1, 3) for batch in features.batches()]
        colours = torch.cat(batches).double()  # one row per spot of 4 x 4 pixels
        covariance = colours.T.cov() + torch.eye(3)  # 1: a grey level of sensor noise
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        self.mean = colours.mean(dim=0).float().to(context.device)
        self.whitening = whitening.float().contiguous().to(context.device)
        return self

    def score_features(self, features):
        white = (features.movedim(1, 3) - self.mean) @ self.whitening  # (N, h, w, 3)
        anomaly_map = self.map_output(white.square().sum(dim=3).add(1e-12).sqrt())
        return anomaly_map.amax(dim=(1, 2)), anomaly_map  # (N,), (N, H, W)

    def preprocess_steps(self):
        return self.pixels.describe()

    def postprocess_steps(self):
        return self.map_output.describe()

    def map_size(self):
        return self.map_output.map_size
