"""Ratios of the graph's steps, with bounds that a loaded machine keeps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from pyimgano.detectors import create_detector
from pyimgano.detectors.layers import PixelInput
from pyimgano.detectors.nearest_neighbour import nearest
from pyimgano_exporters.onnx_graph import export_graph

ROUNDS = 25
MODEL_SIZE = (256, 256)


class Pixels(torch.nn.Module):
    """A detector that is one way to the model's pixels."""

    name = "pixels"
    has_map = False

    def __init__(self, resize: Any) -> None:
        super().__init__()
        self.resize = resize

    def forward(self, images_u8: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.resize(images_u8).mean(dim=(1, 2, 3)), None


class OwnResize(torch.nn.Module):
    """The resize as torch has it, which exports as onnxruntime's own."""

    def forward(self, images_u8: torch.Tensor) -> torch.Tensor:
        pixels = images_u8.permute(0, 3, 1, 2).to(torch.float32)
        return F.interpolate(pixels, size=MODEL_SIZE, mode="bilinear", antialias=True)


def session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"]
    )


def processor_ms(
    sessions: Mapping[str, onnxruntime.InferenceSession], feeds: dict[str, np.ndarray]
) -> dict[str, float]:
    """Give the least processor time of each, all in turn: waiting does not count."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, each in sessions.items():
            start = time.process_time()
            each.run(None, feeds)
            times[name].append((time.process_time() - start) * 1000)
    return {name: min(values) for name, values in times.items()}


@pytest.mark.bench
def test_the_resize_of_a_megapixel_is_cheaper_than_that_of_onnxruntime() -> None:
    own, products = OwnResize(), PixelInput(MODEL_SIZE, geometry="letterbox")
    sessions = {
        name: session(export_graph(Pixels(resize).eval()))  # type: ignore[arg-type]
        for name, resize in (("own", own), ("products", products))
    }
    image = np.random.default_rng(0).integers(0, 256, (1, 1000, 1000, 3), np.uint8)
    ms = processor_ms(sessions, {"image": image})
    print(f"{ms['products'] / ms['own']:.2f} x ({ms})")
    assert ms["products"] < 0.9 * ms["own"]


class Search(torch.nn.Module):
    """The nearest neighbours of 1,024 patches in a bank of 2,000."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("bank", torch.randn(2000, channels, generator=generator))
        self.bank: torch.Tensor

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return nearest(queries, self.bank)[0]


class Product(Search):
    """The matrix product alone, which no search goes below."""

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries @ self.bank.T


@pytest.mark.bench
def test_a_search_costs_little_more_than_its_matrix_product() -> None:
    queries = torch.randn(1024, 152, generator=torch.Generator().manual_seed(1))
    sessions = {}
    for name, module in (("search", Search(152)), ("product", Product(152))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            program = torch.onnx.export(
                module.eval(),
                (queries,),
                dynamo=True,
                opset_version=20,
                input_names=["queries"],
                verbose=False,
            )
        assert program is not None
        sessions[name] = session(program.model_proto.SerializeToString())
    ms = processor_ms(sessions, {"queries": queries.numpy()})
    print(f"{ms['search'] / ms['product']:.2f} x ({ms})")
    assert ms["search"] < 1.5 * ms["product"]


@pytest.mark.bench
def test_the_coarser_grid_saves_a_third_of_a_picture() -> None:
    sessions = {}
    for grid in ("finest", "coarsest"):
        options = {"grid": grid, "image_size": MODEL_SIZE}
        detector: Any = create_detector("patchcore", options, preset="fast")
        generator = torch.Generator().manual_seed(0)
        detector.bank = torch.randn(2000, 152, generator=generator)
        sessions[grid] = session(export_graph(detector.eval()))
    image = np.random.default_rng(0).integers(0, 256, (1, *MODEL_SIZE, 3), np.uint8)
    ms = processor_ms(sessions, {"image": image})
    print(f"{ms['coarsest'] / ms['finest']:.2f} x ({ms})")
    assert ms["coarsest"] < 0.8 * ms["finest"]
