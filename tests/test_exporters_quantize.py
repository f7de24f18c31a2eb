"""int8 graphs and the bundles that carry them inside a benchmark."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from scipy.stats import spearmanr

from conftest import Exported
from pyimgano_exporters.int8_twin import write_int8_twin
from pyimgano_exporters.quantize import quantize_graph
from pyimgano_runtime.bundle import Bundle, open_bundle
from pyimgano_runtime.decode import read_image
from pyimgano_runtime.engine import OnnxEngine
from pyimgano_runtime.errors import ConfigError, ExportError
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.onnx_rules import check_graph
from pyimgano_runtime.predictor import Predictor

Image = npt.NDArray[np.uint8]
Export = Callable[[str], Exported]

SCORE_TOLERANCE: Final = 0.10  # of the float32 score
MIN_RANK_CORRELATION: Final = 0.9


def pictures(made: Exported, part: str) -> list[Image]:
    """Give the pictures of a split of the small data set."""
    rows = [json.loads(line) for line in made.manifest.read_text().splitlines()]
    return [
        read_image(made.manifest.parent / row["image_path"], InputRules())
        for row in rows
        if row["split"] == part
    ]


def graph_of(bundle: Bundle) -> bytes:
    """Give the bytes of the only graph."""
    (spec,) = bundle.config.models.values()
    return bundle.read(spec.file)


def files_of(folder: Path) -> dict[str, str]:
    """Give the sha256 of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def scores(bundle: Path, images: list[Image]) -> npt.NDArray[np.float64]:
    """Give the scores that a bundle's only category gives."""
    predictor = Predictor.open(bundle, threads=1)
    return np.array([predictor.predict(image).score for image in images])


@pytest.fixture(scope="module")
def patchcore(exported: Export) -> Exported:
    """Give the small PatchCore bundle."""
    return exported("patchcore")


@pytest.fixture(scope="module")
def int8_graph(patchcore: Exported) -> bytes:
    """Give its graph in 8 bits."""
    return quantize_graph(
        graph_of(open_bundle(patchcore.bundle)), pictures(patchcore, "train")
    )


@pytest.fixture(scope="module")
def twin(patchcore: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of its int8 twin."""
    output = tmp_path_factory.mktemp("twin") / "bundle"
    bundle = open_bundle(patchcore.bundle)
    (category,) = bundle.config.categories
    write_int8_twin(bundle, output, {category: lambda: pictures(patchcore, "train")})
    return output


def test_the_graph_holds_8_bit_convolutions_and_float_distances(
    int8_graph: bytes, patchcore: Exported
) -> None:
    model = onnx.load_model_from_string(int8_graph)
    made_by = {name: n for n in model.graph.node for name in n.output}
    kinds = [
        made_by[n.input[0]].op_type == "DequantizeLinear"
        for n in model.graph.node
        if n.op_type == "Conv"
    ]
    assert kinds[: len(kinds) // 5] == [False] * (len(kinds) // 5)
    assert all(kinds[len(kinds) // 5 :])
    products = [n for n in model.graph.node if n.op_type == "MatMul"]
    assert len(products) >= 3  # distances, and the map's rows and columns
    makers = [made_by.get(name) for product in products for name in product.input]
    assert all(m is None or m.op_type != "DequantizeLinear" for m in makers)


def test_weights_have_7_bits_and_depthwise_ones_8(int8_graph: bytes) -> None:
    model = onnx.load_model_from_string(int8_graph)
    made_by = {name: n for n in model.graph.node for name in n.output}
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    largest = {False: 0, True: 0}  # depthwise or not
    for node in model.graph.node:
        source = made_by.get(node.input[1]) if node.op_type == "Conv" else None
        if source is not None:
            weights = values[source.input[0]]
            is_depthwise = weights.shape[1] == 1
            most = int(np.abs(weights.astype(int)).max())
            largest[is_depthwise] = max(largest[is_depthwise], most)
            assert values[source.input[1]].shape == (len(weights),)  # one per channel
    assert largest == {False: 64, True: 127}


def test_inputs_outputs_and_opset_stay_and_nothing_names_the_machine(
    int8_graph: bytes, patchcore: Exported
) -> None:
    before = onnx.load_model_from_string(graph_of(open_bundle(patchcore.bundle)))
    after = onnx.load_model_from_string(int8_graph)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    facts = check_graph(int8_graph, "int8")
    assert (facts.opset, facts.domains, facts.has_metadata) == (20, {""}, False)
    assert tempfile.gettempdir().encode() not in int8_graph


def test_the_same_pictures_give_the_same_bytes(
    int8_graph: bytes, patchcore: Exported
) -> None:
    again = quantize_graph(
        graph_of(open_bundle(patchcore.bundle)), pictures(patchcore, "train")
    )
    assert again == int8_graph


def test_other_pictures_give_other_ranges(
    int8_graph: bytes, patchcore: Exported
) -> None:
    one = quantize_graph(
        graph_of(open_bundle(patchcore.bundle)),
        pictures(patchcore, "train"),
        max_images=1,
    )
    assert one != int8_graph


def test_pictures_of_different_sizes_give_the_ranges_together(
    patchcore: Exported,
) -> None:
    images = pictures(patchcore, "train")
    mixed = [images[0], images[1][:41, :53], images[2][::2, 3:]]
    assert quantize_graph(graph_of(open_bundle(patchcore.bundle)), mixed)


def test_no_more_pictures_are_read_than_asked_for(patchcore: Exported) -> None:
    read = []

    def counted() -> Iterator[Image]:
        for image in pictures(patchcore, "train"):
            read.append(image)
            yield image

    graph = graph_of(open_bundle(patchcore.bundle))
    quantize_graph(graph, counted(), max_images=3)
    assert len(read) == 3


def test_batches_and_odd_sizes_give_the_scores_of_single_pictures(
    int8_graph: bytes, patchcore: Exported
) -> None:
    (spec,) = open_bundle(patchcore.bundle).config.models.values()
    engine = OnnxEngine(int8_graph, spec, "int8", threads=1)
    random = np.random.default_rng(0)
    batch = random.integers(0, 256, (3, 37, 53, 3), dtype=np.uint8)
    together, maps = engine.run(batch, with_map=True)
    alone = [engine.run(batch[i : i + 1], with_map=False)[0][0] for i in range(3)]
    assert together.dtype == np.float32
    assert maps is not None
    assert maps.shape == (3, 64, 64)
    # Float sums of a batch run in another order; an activation at a rounding edge may
    # then take the next step of 8 bits.
    np.testing.assert_allclose(together, alone, rtol=1e-2)


def test_a_graph_without_learned_convolutions_is_refused(exported: Export) -> None:
    made = exported("pixel_stats")  # its only convolutions are Gaussian filters
    graph = graph_of(open_bundle(made.bundle))
    with pytest.raises(ExportError, match="int8 would change nothing"):
        quantize_graph(graph, pictures(made, "train"))


def test_no_pictures_are_refused(patchcore: Exported) -> None:
    with pytest.raises(ExportError, match="no pictures"):
        quantize_graph(graph_of(open_bundle(patchcore.bundle)), [])


def test_pictures_of_another_kind_are_refused(patchcore: Exported) -> None:
    grey = [np.zeros((32, 32), np.uint8)]
    with pytest.raises(ExportError, match="cannot quantize the graph"):
        quantize_graph(graph_of(open_bundle(patchcore.bundle)), grey)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ExportError, match="not an ONNX model"):
        quantize_graph(b"\x00 no model", [])


def test_no_file_stays_and_nothing_is_printed(
    patchcore: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "temp").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    graph = graph_of(open_bundle(patchcore.bundle))
    quantize_graph(graph, pictures(patchcore, "train"), max_images=2)
    assert list((tmp_path / "temp").iterdir()) == []
    assert list((tmp_path / "here").iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_twin_scores_like_its_original(patchcore: Exported, twin: Path) -> None:
    images = pictures(patchcore, "test")
    reference, int8 = scores(patchcore.bundle, images), scores(twin, images)
    assert not np.array_equal(reference, int8)
    np.testing.assert_allclose(int8, reference, rtol=SCORE_TOLERANCE)
    assert spearmanr(reference, int8).statistic > MIN_RANK_CORRELATION


def test_the_twin_says_what_it_is(patchcore: Exported, twin: Path) -> None:
    original, config = open_bundle(patchcore.bundle), open_bundle(twin).config
    assert [m.precision for m in config.models.values()] == ["int8"]
    assert config.categories == original.config.categories  # thresholds included
    assert config.parity.categories == {}
    assert config.parity.goldens == ()
    assert "not compared" in config.parity.reference
    assert config.training["quantized_from"] == original.sha256
    assert {entry.role for entry in config.files} == {"model"}


def test_the_twin_is_whole_and_half_as_large(patchcore: Exported, twin: Path) -> None:
    opened = open_bundle(twin)
    opened.verify_files()
    assert opened.unlisted_files() == []
    before = len(graph_of(open_bundle(patchcore.bundle)))
    assert len(graph_of(opened)) < 0.6 * before


def test_writing_a_twin_leaves_the_original_alone(
    patchcore: Exported, tmp_path: Path
) -> None:
    before = files_of(patchcore.bundle)
    bundle = open_bundle(patchcore.bundle)
    (category,) = bundle.config.categories
    write_int8_twin(
        bundle, tmp_path / "twin", {category: lambda: pictures(patchcore, "train")[:2]}
    )
    assert files_of(patchcore.bundle) == before


def test_a_twin_of_an_unknown_category_is_refused(
    patchcore: Exported, tmp_path: Path
) -> None:
    bundle = open_bundle(patchcore.bundle)
    with pytest.raises(ConfigError, match='no category "other"'):
        write_int8_twin(bundle, tmp_path / "twin", {"other": list})
    assert list(tmp_path.iterdir()) == []
