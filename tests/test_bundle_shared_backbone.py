"""Categories with equal backbones share one file, and no bit of a score changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bundle_copies import copy_of
from conftest import CommandResult, config_payload
from pyimgano.cli import main
from pyimgano.datasets.generated_parts import write_parts
from pyimgano_exporters.graph_split import split_graphs, weight_bytes
from pyimgano_exporters.shared_backbone import Model, share_backbone
from pyimgano_runtime import Predictor, open_bundle
from pyimgano_runtime.bundle import Bundle

PARTS = ("bracket", "connector")
RunCli = Callable[..., CommandResult]


@dataclass(frozen=True)
class Sharing:
    """One run, exported with a shared backbone and without."""

    run: Path
    shared: Bundle
    apart: Bundle
    pictures: list[Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sharing:
    folder = tmp_path_factory.mktemp("sharing")
    manifest = write_parts(
        folder / "data",
        parts=PARTS,
        n_train=12,
        n_test_normal=3,
        n_test_defect=3,
        size=(64, 64),
        seed=0,
    )
    config, run = folder / "config.json", folder / "run"
    config.write_text(json.dumps(config_payload(manifest, "patchcore")), "utf-8")
    assert main(["train", "--config", str(config), "--output", str(run)]) == 0
    export = ["bundle", "export", "--run", str(run), "--output"]
    assert main([*export, str(folder / "shared")]) == 0
    assert main([*export, str(folder / "apart"), "--share-backbone", "never"]) == 0
    return Sharing(
        run,
        open_bundle(folder / "shared"),
        open_bundle(folder / "apart"),
        sorted((folder / "data" / "images").rglob("test/**/*.png")),
    )


def model_files(bundle: Bundle) -> list[str]:
    return [entry.path for entry in bundle.config.files if entry.role == "model"]


def test_two_categories_share_one_backbone_and_have_a_head_each(made: Sharing) -> None:
    config = made.shared.config
    assert model_files(made.shared) == [
        "models/backbone.onnx",
        "models/bracket.onnx",
        "models/connector.onnx",
    ]
    assert {name: list(c.graph) for name, c in config.categories.items()} == {
        name: ["backbone", name] for name in PARTS
    }
    (features,) = config.models["backbone"].outputs
    assert (features.kind, features.shape[0]) == ("features", "batch")
    assert [m.inputs for m in config.models.values()][1:] == [(features,)] * 2
    assert config.schema_version == "1.3"  # 1.2, but for the drift reference
    assert config.requires == ()


def test_the_weights_stand_in_one_file_only(made: Sharing) -> None:
    sizes = {e.path: e.size for e in made.shared.config.files}
    assert sizes["models/backbone.onnx"] > 20 * sizes["models/bracket.onnx"]


def test_scores_and_maps_are_equal_to_the_bit(made: Sharing) -> None:
    assert made.pictures
    for name in PARTS:
        a, b = (Predictor.open(x, category=name) for x in (made.shared, made.apart))
        for path in made.pictures:
            one, other = (p.predict(p.read(path)) for p in (a, b))
            assert one.score == other.score
            assert np.array_equal(one.anomaly_map, other.anomaly_map)  # type: ignore[arg-type]


def test_batches_and_other_sizes_are_equal_to_the_bit_too(made: Sharing) -> None:
    random = np.random.default_rng(0)
    images = list(random.integers(0, 256, (3, 75, 131, 3), dtype=np.uint8))
    for name in PARTS:
        a, b = (Predictor.open(x, category=name) for x in (made.shared, made.apart))
        assert [p.score for p in a.predict_batch(images)] == [
            p.score for p in b.predict_batch(images)
        ]


def test_what_is_judged_by_is_the_same_in_both(made: Sharing) -> None:
    shared, apart = made.shared.config, made.apart.config
    assert shared.parity == apart.parity
    for name in PARTS:
        assert shared.categories[name].thresholds == apart.categories[name].thresholds


def test_never_gives_whole_graphs(made: Sharing) -> None:
    assert model_files(made.apart) == [f"models/{name}.onnx" for name in PARTS]


def test_a_small_common_part_is_not_shared(two_parts: Any) -> None:
    assert model_files(open_bundle(two_parts.bundle)) == [
        f"models/{name}.onnx" for name in PARTS
    ]


def test_the_same_graphs_give_the_same_bytes(made: Sharing) -> None:
    config = made.apart.config
    wholes = [Model(made.apart.read(m.file), m) for m in config.models.values()]
    again = share_backbone(wholes, "models/backbone.onnx")
    assert again is not None
    for model in (again.backbone, *again.heads):
        assert model.data == made.shared.read(model.spec.file)
        assert model.spec in made.shared.config.models.values()


def test_verify_proves_backbone_and_heads_against_the_run(
    made: Sharing, run_cli: RunCli
) -> None:
    done = run_cli("bundle", "verify", made.shared.root, "--run", made.run)
    assert done.code == 0, done.stdout + done.stderr
    for path in model_files(made.shared):
        assert path in done.stdout


def test_verify_refuses_a_backbone_of_other_weights(
    made: Sharing, tmp_path: Path, run_cli: RunCli
) -> None:
    folder = copy_of(made.shared.root, tmp_path / "copy")
    path = folder / "models" / "backbone.onnx"
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda t: t.ByteSize())
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    path.write_bytes(model.SerializeToString())
    done = run_cli("bundle", "verify", folder)
    assert done.code != 0
    assert "models/backbone.onnx" in done.stdout + done.stderr


def test_inspect_and_diff_show_the_shared_model(made: Sharing, run_cli: RunCli) -> None:
    shown = run_cli("bundle", "inspect", made.shared.root)
    assert shown.code == 0
    assert "models/backbone.onnx" in shown.stdout
    assert "features float32[batch, " in shown.stdout
    differ = run_cli("bundle", "diff", made.apart.root, made.shared.root)
    assert differ.code == 0
    assert "model 1.sha256" in differ.stdout


def test_the_model_card_says_what_is_shared(made: Sharing) -> None:
    card = (made.shared.root / "MODEL_CARD.md").read_text("utf-8")
    assert "`models/backbone.onnx`, shared by 2 categories" in card
    assert "shared by" not in (made.apart.root / "MODEL_CARD.md").read_text("utf-8")


def whole_graphs(made: Sharing) -> list[onnx.ModelProto]:
    files = model_files(made.apart)
    return [onnx.load_from_string(made.apart.read(path)) for path in files]


def test_one_other_weight_moves_the_cut_before_it(made: Sharing) -> None:
    wholes = whole_graphs(made)
    before = split_graphs(wholes, "image")
    last = [n for n in wholes[1].graph.node if n.op_type == "Conv"][10]
    weight = next(t for t in wholes[1].graph.initializer if t.name == last.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nextafter(values.flat[0], np.float32(9))
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    after = split_graphs(wholes, "image")
    assert before is not None
    assert after is not None
    assert weight_bytes(after.backbone) < weight_bytes(before.backbone)
    assert len(after.heads[0].graph.node) > len(before.heads[0].graph.node)


def test_names_say_nothing_about_what_is_equal(made: Sharing) -> None:
    wholes = whole_graphs(made)
    before = split_graphs(wholes, "image")
    swapped = {t.name: f"other_{n}" for n, t in enumerate(wholes[1].graph.initializer)}
    for tensor in wholes[1].graph.initializer:
        tensor.name = swapped[tensor.name]
    for node in wholes[1].graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = swapped.get(name, name)
    after = split_graphs(wholes, "image")
    assert before is not None
    assert after is not None
    assert after.backbone == before.backbone
