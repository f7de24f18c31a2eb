"""Features of several taps on one grid: that of the finest, or that of the coarsest."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from pyimgano.backbones import create_backbone
from pyimgano.detectors import create_detector
from pyimgano.detectors.deep_features import DeepFeatures
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext
from pyimgano_exporters.onnx_graph import export_graph

TAPS = ("stage3", "stage5")  # strides 8 and 16
CHANNELS = (40, 112)


@pytest.fixture(scope="module")
def backbone() -> Any:
    return create_backbone("efficientnet_lite0", taps=TAPS).eval()


def pictures(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (2, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@torch.no_grad()
def levels(deep: DeepFeatures, images: torch.Tensor, backbone: Any) -> Any:
    return [deep.average(level) for level in backbone(deep.pixels(images))]


@torch.no_grad()
def test_the_finest_grid_interpolates_the_coarser_tap(backbone: Any) -> None:
    deep, images = DeepFeatures(backbone, (96, 128)), pictures(96, 128)
    features = deep(images, backbone)
    fine, coarse = levels(deep, images, backbone)
    assert features.shape == (2, sum(CHANNELS), 12, 16)
    assert torch.equal(features[:, : CHANNELS[0]], fine)
    wide = F.interpolate(coarse, size=(12, 16), mode="bilinear", align_corners=False)
    assert torch.equal(features[:, CHANNELS[0] :], wide)


@torch.no_grad()
def test_the_coarsest_grid_averages_the_finer_tap(backbone: Any) -> None:
    deep = DeepFeatures(backbone, (96, 128), grid="coarsest")
    images = pictures(96, 128)
    features = deep(images, backbone)
    fine, coarse = levels(deep, images, backbone)
    assert features.shape == (2, sum(CHANNELS), 6, 8)
    assert torch.equal(features[:, CHANNELS[0] :], coarse)
    cells = fine.reshape(2, CHANNELS[0], 6, 2, 8, 2).mean(dim=(3, 5))
    torch.testing.assert_close(features[:, : CHANNELS[0]], cells)
    assert deep.grid_of(backbone) == (6, 8)


@torch.no_grad()
def test_cells_of_a_grid_that_does_not_fit_overlap(backbone: Any) -> None:
    deep = DeepFeatures(backbone, (72, 96), grid="coarsest")  # 9 x 12 on 4 x 6
    images = pictures(72, 96)
    features = deep(images, backbone)
    fine, coarse = levels(deep, images, backbone)
    assert fine.shape[-2:] == (9, 12)
    assert coarse.shape[-2:] == (4, 6)
    own = features[:, : CHANNELS[0]]
    torch.testing.assert_close(own[:, :, 0, 0], fine[:, :, :3, :2].mean(dim=(2, 3)))
    torch.testing.assert_close(own[:, :, 1, 5], fine[:, :, 2:5, 10:].mean(dim=(2, 3)))
    torch.testing.assert_close(own[:, :, 3, 2], fine[:, :, 6:, 4:6].mean(dim=(2, 3)))


@torch.no_grad()
def test_features_do_not_depend_on_what_shares_a_batch(backbone: Any) -> None:
    deep = DeepFeatures(backbone, (96, 96))
    some = pictures(80, 90)
    images = torch.cat([some, some.flip(1), some.flip(2), 255 - some])
    together = deep(images, backbone)
    for size in (1, 2):
        parts = torch.cat([deep(part, backbone) for part in images.split(size)])
        torch.testing.assert_close(together, parts, rtol=1e-5, atol=1e-5)


def test_features_of_two_grids_are_not_shared(backbone: Any) -> None:
    grids = [DeepFeatures(backbone, (96, 96), grid=g) for g in ("finest", "coarsest")]
    assert len({deep.key(backbone) for deep in grids}) == 2
    one = create_backbone("efficientnet_lite0", taps=("stage5",), pretrained=False)
    grids = [DeepFeatures(one, (96, 96), grid=g) for g in ("finest", "coarsest")]
    assert len({deep.key(one) for deep in grids}) == 1  # there is no other grid


@pytest.mark.parametrize("size", [(64, 64), (72, 96)])
def test_patchcore_on_the_coarsest_grid_is_the_same_in_its_graph(
    size: tuple[int, int], tmp_path: Any
) -> None:
    options = {"image_size": size, "bank_size": 10}
    detector: Any = create_detector("patchcore", options, preset="fast")
    assert detector.config.grid == "coarsest"
    images = pictures(90, 120)
    with torch.no_grad():
        kept = detector.features(images).numpy()
        context = FitContext(
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            workspace=tmp_path,
            progress=lambda step, done, total: None,
        )
        detector.fit_features(FeatureSet(kept, np.arange(2)), context=context)
        other = pictures(90, 120).flip(1)
        score, anomaly_map = detector(other)
    session = onnxruntime.InferenceSession(export_graph(detector))
    found = session.run(None, {"image": other.numpy()})
    np.testing.assert_allclose(found[0], score.numpy(), rtol=1e-5)
    span = float(anomaly_map.max() - anomaly_map.min())
    assert float(np.abs(found[1] - anomaly_map.numpy()).max()) <= 1e-4 * span
