"""The resize in the graph: a triangle filter, in numbers that every engine has."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
import torch.nn.functional as F

from pyimgano.detectors.layers import PixelInput
from pyimgano_exporters.integer_products import use_integer_products
from pyimgano_exporters.onnx_graph import export_graph

SIZES = [(64, 64), (90, 37), (33, 500), (5, 7), (1, 9), (480, 640)]
# A weight is rounded to 1/255 of the largest one: by half a grey level at most on each
# axis, for pixels of pure noise (measured: 0.6). The source's own levels are rounded by
# as much.
WORST_LEVELS = 1.0
MEAN_LEVELS = 0.2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model_size", [(64, 64), (36, 50)])
def test_the_resize_is_that_of_torch_within_the_rounding_of_its_weights(
    size: tuple[int, int], model_size: tuple[int, int]
) -> None:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (2, *size, 3), dtype=np.uint8))
    expected = F.interpolate(
        images.permute(0, 3, 1, 2).float(),
        size=model_size,
        mode="bilinear",
        antialias=True,
    )
    off = (PixelInput(model_size)(images) - expected).abs()
    assert float(off.max()) < WORST_LEVELS
    assert float(off.mean()) < MEAN_LEVELS


@pytest.mark.parametrize("level", [0, 1, 200, 255])
@pytest.mark.parametrize("geometry", ["stretch", "letterbox"])
def test_a_plain_picture_keeps_its_level(level: int, geometry: str) -> None:
    images = torch.full((1, 333, 77, 3), level, dtype=torch.uint8)
    found = PixelInput((40, 56), geometry=geometry)(images)
    torch.testing.assert_close(
        found, torch.full_like(found, level), rtol=1e-6, atol=0.0
    )


class Pixels(torch.nn.Module):
    """A detector that is its resize."""

    name = "pixels"
    has_map = False

    def __init__(self) -> None:
        super().__init__()
        self.pixels = PixelInput((32, 48))

    def forward(self, images_u8: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.pixels(images_u8).amax(dim=(1, 2, 3)), None


def test_the_graph_reads_the_picture_in_8_bits() -> None:
    """As float32 the picture would be written once more, four times as large."""
    exported = export_graph(Pixels().eval())  # type: ignore[arg-type]
    graph = onnx.load_from_string(exported).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulInteger") == 1
    assert "Resize" not in kinds
    onnx.checker.check_model(onnx.load_from_string(exported))


def product_graph(left_type: int) -> onnx.GraphProto:
    helper = onnx.helper
    float32 = onnx.TensorProto.FLOAT
    return helper.make_graph(
        [
            helper.make_node("Cast", ["a"], ["af"], to=float32),
            helper.make_node("Cast", ["b"], ["bf"], to=float32),
            helper.make_node("MatMul", ["af", "bf"], ["c"]),
            helper.make_node("ReduceMax", ["bf"], ["d"], keepdims=0),
        ],
        "products",
        [
            helper.make_tensor_value_info("a", left_type, [4, 6]),
            helper.make_tensor_value_info("b", onnx.TensorProto.UINT8, [6, 5]),
        ],
        [
            helper.make_tensor_value_info("c", float32, [4, 5]),
            helper.make_tensor_value_info("d", float32, []),
        ],
    )


def run(graph: onnx.GraphProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)]
    )
    outputs: list[np.ndarray] = onnx.reference.ReferenceEvaluator(model).run(
        None, feeds
    )
    return outputs


def test_a_product_of_uint8_is_made_of_integers_and_stays_the_same() -> None:
    random = np.random.default_rng(0)
    feeds = {
        "a": random.integers(0, 256, (4, 6), dtype=np.uint8),
        "b": random.integers(0, 256, (6, 5), dtype=np.uint8),
    }
    graph = product_graph(onnx.TensorProto.UINT8)
    before = run(graph, feeds)
    assert use_integer_products(graph) == 1
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMul") == 0
    assert kinds.count("Cast") == 2  # of the sums, and of b, which the maximum reads
    for one, other in zip(before, run(graph, feeds), strict=True):
        assert np.array_equal(one, other)


def test_a_product_of_other_types_is_left_alone() -> None:
    graph = product_graph(onnx.TensorProto.INT8)
    assert use_integer_products(graph) == 0
    assert [node.op_type for node in graph.node] == [
        *("Cast", "Cast", "MatMul", "ReduceMax"),
    ]
