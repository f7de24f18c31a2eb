"""A letterboxed map lies where the picture lies on its canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyimgano.detectors.layers import PixelInput
from pyimgano_exporters.onnx_graph import export_graph, model_spec
from pyimgano_runtime.engine import OnnxEngine
from pyimgano_runtime.geometry import letterbox_canvas, map_to_image

SIZES = [(64, 64), (50, 100), (100, 50), (33, 500), (37, 53), (1, 9)]
EXPORTED_SIZES = [
    *((33, 500), (500, 33), (64, 64), (97, 161), (480, 640), (1080, 1920)),
    *((1920, 1080), (60, 101)),
]
MODEL_SIZES = [(64, 64), (48, 96), (96, 32)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model_size", MODEL_SIZES)
def test_the_graph_and_the_runtime_agree_on_the_canvas(
    size: tuple[int, int], model_size: tuple[int, int]
) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (1, *size, 3), dtype=np.uint8)
    canvas = letterbox_canvas(size, model_size)
    top, left = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    below, right = canvas[0] - size[0] - top, canvas[1] - size[1] - left
    around = ((0, 0), (top, below), (left, right), (0, 0))
    on_canvas = np.pad(picture, around, mode="edge")
    found = PixelInput(model_size, geometry="letterbox")(torch.from_numpy(picture))
    expected = PixelInput(model_size)(torch.from_numpy(on_canvas))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model_size", MODEL_SIZES)
def test_a_letterboxed_map_is_its_canvas_with_the_rest_cut_off(
    size: tuple[int, int], model_size: tuple[int, int]
) -> None:
    anomaly_map = np.random.default_rng(0).random(model_size).astype(np.float32)
    height, width = letterbox_canvas(size, model_size)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    whole = map_to_image(anomaly_map, (height, width))
    expected = whole[top : top + size[0], left : left + size[1]]
    found = map_to_image(anomaly_map, size, mode="letterbox")
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("geometry", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(60, 120), (120, 60), (64, 64)])
def test_a_bright_spot_comes_back_to_its_place(
    geometry: str, size: tuple[int, int]
) -> None:
    """Through the graph's resize and the runtime's way back."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    row, column = size[0] // 4, size[1] * 3 // 4
    image[row - 4 : row + 4, column - 4 : column + 4] = 255
    seen = PixelInput((64, 64), geometry=geometry)(torch.from_numpy(image)[None])
    back = map_to_image(seen[0, 0].numpy(), size, mode=geometry)
    bright = np.argwhere(back > 0.8 * back.max())
    assert np.abs(bright.mean(axis=0) - [row - 0.5, column - 0.5]).max() < 1.0


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode 'boxed'"):
        map_to_image(np.zeros((4, 4), np.float32), (8, 8), mode="boxed")


class ResizedPixels(torch.nn.Module):
    """A detector whose map is the letterboxed red channel, in grey levels."""

    name = "resized_pixels"
    has_map = True

    def __init__(self) -> None:
        super().__init__()
        self.pixels = PixelInput((96, 160), geometry="letterbox")

    def forward(self, images_u8: torch.Tensor) -> Any:
        normalized = self.pixels(images_u8)
        pixels = normalized * self.pixels.std + self.pixels.mean
        return pixels.amax(dim=(1, 2, 3)), pixels[:, 0]

    def map_size(self) -> tuple[int, int]:
        return (96, 160)


def test_an_exported_letterbox_gives_the_pixels_of_torch() -> None:
    """Any size goes into one graph; ADR 0008 quotes the largest difference."""
    detector = ResizedPixels().eval()
    spec = model_spec("letterbox.onnx", detector)  # type: ignore[arg-type]
    graph = export_graph(detector)  # type: ignore[arg-type]
    engine = OnnxEngine(graph, spec, "letterbox")
    random = np.random.default_rng(0)
    largest = 0.0
    for index, size in enumerate(EXPORTED_SIZES):
        shape = (1 + index % 3, *size, 3)
        images = random.integers(0, 256, shape, dtype=np.uint8)
        with torch.inference_mode():
            _, expected = detector(torch.from_numpy(images))
        _, maps = engine.run(images, with_map=True)
        assert maps is not None
        largest = max(largest, float(np.abs(maps - expected.numpy()).max()))
    print(f"largest difference: {largest:.1e} grey levels")
    assert largest < 1e-4  # measured: 5.3e-5; onnxruntime's Resize was 3.7e-3 off
