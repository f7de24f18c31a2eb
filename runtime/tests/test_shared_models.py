"""A bundle whose categories share a model: opened once, run as one, refused if torn."""

from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_bundle import FEATURES_SHAPE, backbone_bytes, head_bytes, write_shared
from tiny_bundle import (
    edit_document,
    graph,
    grey,
    model,
    model_spec,
    write_bundle,
)

from pyimgano_runtime import BundleError, ImageError, Predictor, open_bundle
from pyimgano_runtime.check import check_bundle
from pyimgano_runtime.cli import main
from pyimgano_runtime.engine import OnnxSession
from pyimgano_runtime.infer_config import InferConfig
from pyimgano_runtime.providers import CPU

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return write_shared(tmp_path / "shared")


def refusal(folder: Path, edit: Edit) -> str:
    edit_document(folder, edit)
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    return str(caught.value)


def test_features_go_through_the_head_of_the_category(shared: Path) -> None:
    bundle = open_bundle(shared)
    nut, bolt = (Predictor.open(bundle, category=c) for c in ("nut", "bolt"))
    # The backbone gives the grey level; the heads multiply it by 1 and by 3.
    assert nut.predict(grey(40)).score == 40.0
    assert bolt.predict(grey(40)).score == 120.0
    assert nut.predict(grey(40), with_map=False).anomaly_map is None
    assert [p.score for p in bolt.predict_batch([grey(2), grey(5)])] == [6.0, 15.0]


def test_each_file_is_opened_once_whatever_the_number_of_categories(
    shared: Path,
) -> None:
    bundle = open_bundle(shared)
    one = Predictor.open(bundle, category="nut")
    assert sorted(name for name, *_ in bundle.sessions) == ["backbone", "nut"]
    backbone = bundle.sessions["backbone", None, (CPU,)]
    others = [Predictor.open(bundle, category=c) for c in ("bolt", "nut")]
    assert bundle.sessions["backbone", None, (CPU,)] is backbone
    assert sorted(name for name, *_ in bundle.sessions) == ["backbone", "bolt", "nut"]
    assert one.predict(grey(7)).score == others[1].predict(grey(7)).score


def test_other_threads_are_another_session(shared: Path) -> None:
    bundle = open_bundle(shared)
    kept = [Predictor.open(bundle, category="nut", threads=n) for n in (1, 2)]
    assert len(bundle.sessions) == 2 * len(kept)


def test_a_session_goes_with_the_last_predictor_that_uses_it(shared: Path) -> None:
    bundle = open_bundle(shared)
    predictors = [Predictor.open(bundle, category=c) for c in ("nut", "bolt")]
    predictors.pop()
    gc.collect()
    assert sorted(name for name, *_ in bundle.sessions) == ["backbone", "nut"]
    predictors.pop()
    gc.collect()
    assert not bundle.sessions


def test_a_missing_head_harms_its_own_category_only(shared: Path) -> None:
    (shared / "models" / "bolt.onnx").unlink()
    bundle = open_bundle(shared)
    assert Predictor.open(bundle, category="nut").predict(grey(3)).score == 3.0
    with pytest.raises(BundleError, match=r"bolt\.onnx: the file is missing"):
        Predictor.open(bundle, category="bolt")


def test_a_changed_backbone_is_refused(shared: Path) -> None:
    path = shared / "models" / "backbone.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"backbone\.onnx.*changed after export"):
        Predictor.open(shared, category="nut")


def test_check_proves_every_category_through_the_shared_model(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check_bundle(open_bundle(shared))
    assert report.ok
    assert {r.category for r in report.results} == {"nut", "bolt"}
    assert main(["check", str(shared)]) == 0
    assert main(["info", str(shared)]) == 0
    said = capsys.readouterr().out
    assert "models     models/backbone.onnx, then models/nut.onnx" in said


def test_a_thresholds_file_names_backbone_and_head(shared: Path) -> None:
    from pyimgano_runtime.thresholds_file import model_sha256

    bundle = open_bundle(shared)
    files = ("models/backbone.onnx", "models/nut.onnx")
    wanted = tuple(hashlib.sha256((shared / f).read_bytes()).hexdigest() for f in files)
    assert model_sha256(bundle, "nut") == wanted


def test_no_copy_of_the_file_is_kept_beside_the_session() -> None:
    data = model(graph())
    before = sys.getrefcount(data)
    session = OnnxSession(data, model_spec(), "m.onnx")
    assert sys.getrefcount(data) == before
    feeds = {"image": np.stack([grey(9)])}
    assert session.run(["score"], feeds, (1, 8, 9, 3))[0] == [9.0]


def test_features_of_another_shape_are_an_error_of_the_picture(tmp_path: Path) -> None:
    # The file leaves the size free, and gives another than document and head say.
    folder = write_shared(tmp_path / "b", backbone=backbone_bytes(resized=False))
    with pytest.raises(ImageError) as caught:
        Predictor.open(folder, category="nut").predict(grey(1))
    assert caught.value.code == "INFERENCE_FAILED"


def test_a_document_of_shared_models_comes_back_as_it_was(shared: Path) -> None:
    payload = json.loads((shared / "infer_config.json").read_text("utf-8"))
    assert InferConfig.from_dict(payload, "doc").to_dict() == payload


def _of(name: str, key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda d: d["models"][name][key][0]  # type: ignore[no-any-return]


def _graph(*names: str) -> Edit:
    return lambda d: d["categories"]["nut"].update(graph=list(names))


NUT = "categories.nut.graph"
TORN: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "a model that is not there": (
        _graph("backbone", "gear"),
        (f"{NUT}: found ['backbone', 'gear']", "one of the models ['backbone', "),
    ),
    "no model": (_graph(), (NUT,)),
    "a model twice": (
        _graph("backbone", "backbone", "nut"),
        (f"{NUT}: found", "expected each model once; export again"),
    ),
    "a ring": (_graph("nut", "backbone"), (f'{NUT}[0]: "nut": expected a model that',)),
    "a head alone": (_graph("nut"), (f'{NUT}[0]: "nut"', "takes the image")),
    "a backbone alone": (
        _graph("backbone"),
        (f'{NUT}[0]: "backbone"', "gives the score"),
    ),
    "two heads": (
        _graph("backbone", "bolt", "nut"),
        (f'{NUT}[1]: "bolt"', "gives features, and only the last the score"),
    ),
    "features of no kind": (
        lambda d: _of("nut", "inputs")(d).pop("kind"),
        ("models.nut.inputs[0].kind", "missing"),
    ),
    "features of an unknown kind": (
        lambda d: _of("backbone", "outputs")(d).update(kind="patches"),
        ("models.backbone.outputs[0].kind", "features"),
    ),
    "features called a score": (
        lambda d: _of("nut", "inputs")(d).update(kind="score"),
        ("models.nut.inputs: found kinds ['score']", "features only"),
    ),
    "features beside a score": (
        lambda d: d["models"]["nut"]["outputs"].append(_of("nut", "inputs")(d)),
        ("models.nut.outputs", "or features only"),
    ),
    "features of another name": (
        lambda d: _of("nut", "inputs")(d).update(name="traits"),
        (f'{NUT}[1]: "nut": takes traits', "found ['features']"),
    ),
    "features of another shape": (
        lambda d: _of("nut", "inputs")(d).update(shape=["batch", 1, 4, 7]),
        (f'{NUT}[1]: "nut": takes features of shape', f"{['batch', *FEATURES_SHAPE]}"),
    ),
    "features of another type": (
        lambda d: _of("nut", "inputs")(d).update(dtype="uint8"),
        ("models.nut: features: found uint8", "float32 with at least 2"),
    ),
    "features without axes": (
        lambda d: _of("nut", "inputs")(d).update(shape=["batch"]),
        ("models.nut: features", "with 1 axes"),
    ),
    "a map from the wrong model": (
        lambda d: d["categories"]["nut"].update(map_geometry=None),
        ("categories.nut.map_geometry", "exactly where the model has"),
    ),
}


@pytest.mark.parametrize("name", TORN)
def test_models_that_do_not_fit_together_are_refused(shared: Path, name: str) -> None:
    edit, parts = TORN[name]
    message = refusal(shared, edit)
    for part in parts:
        assert part in message


def test_a_file_that_gives_other_tensors_than_told_is_refused(tmp_path: Path) -> None:
    folder = write_shared(tmp_path / "b", backbone=backbone_bytes(name="traits"))
    with pytest.raises(BundleError, match="json says"):
        Predictor.open(folder, category="nut")


def test_a_head_of_another_fixed_size_than_told_is_refused(tmp_path: Path) -> None:
    folder = write_shared(tmp_path / "b", heads={"nut": head_bytes(1, told=(1, 5, 6))})
    with pytest.raises(BundleError, match="features is tensor"):
        Predictor.open(folder, category="nut")


SESSIONS = """
import subprocess
import sys
import numpy as np
from pyimgano_runtime.predictor import Predictor


def resident_mb():
    with open("/proc/self/status") as stream:
        facts = dict(line.split(":", 1) for line in stream)
    return int(facts["VmRSS"].split()[0]) / 1024


picture = np.full((2000, 3000, 3), 7, np.uint8)
predictors, grown = [], []
before = resident_mb()
for _ in range(6):
    predictors.append(Predictor.open(sys.argv[1], threads=1))
    predictors[-1].predict(picture)
    grown.append(resident_mb() - before)
print(grown[0], grown[-1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_sessions_compute_in_the_same_memory(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    done = subprocess.run(
        [sys.executable, "-c", SESSIONS, str(bundle)],
        capture_output=True,
        text=True,
        check=True,
    )
    one, six = map(float, done.stdout.split())
    assert one > 50  # float32 pixels of the picture alone: 72 MB
    assert six < 2 * one
