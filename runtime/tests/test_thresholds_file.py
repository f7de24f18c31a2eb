"""`thresholds.json`: read strictly, and used with the model it was made with only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import category, edit_document, graph, grey, model, write_bundle

from pyimgano_runtime import Predictor, open_bundle
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.thresholds_file import (
    CalibratedBundle,
    CategoryThresholds,
    ThresholdsFile,
    model_sha256,
    read_thresholds_file,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def path(tmp_path: Path, bundle: Path) -> Path:
    """A file with the threshold 30 and other calibration scores."""
    opened = open_bundle(bundle)
    settings = category(threshold=30.0, scores=(1.0, 2.0))
    own = CategoryThresholds(
        model_sha256(opened, "part"), settings.thresholds, settings.calibration
    )
    made = CalibratedBundle("tiny", "1", opened.sha256)
    file = ThresholdsFile("thresholds.json", made, {"part": own})
    path = tmp_path / "thresholds.json"
    path.write_text(file.to_json(), encoding="utf-8")
    return path


def spoil(path: Path, edit: Callable[[dict[str, Any]], object]) -> str:
    payload = json.loads(path.read_text(encoding="utf-8"))
    edit(payload)
    path.write_text(json.dumps(payload), encoding="utf-8")
    return refused(path)


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_thresholds_file(path)
    return str(caught.value)


def part(payload: dict[str, Any]) -> dict[str, Any]:
    block: dict[str, Any] = payload["categories"]["part"]
    return block


def provenance(payload: dict[str, Any]) -> dict[str, Any]:
    block: dict[str, Any] = part(payload)["thresholds"]["provenance"]["image"]
    return block


BOUNDS = {
    **{"confidence": 0.95, "n_images": 8, "images_above": 1, "by_images": [0, 1]},
    **{"n_groups": 8, "groups_above": 1, "by_groups": [0, 1]},
}


def test_what_was_written_is_read_again(path: Path) -> None:
    file = read_thresholds_file(path)
    assert file.to_json() == path.read_text(encoding="utf-8")
    assert file.name == "thresholds.json"
    assert file.categories["part"].thresholds.image == 30.0


def test_a_predictor_judges_by_it_and_says_so(path: Path, bundle: Path) -> None:
    predictor = Predictor.open(bundle, thresholds=read_thresholds_file(path))
    prediction = predictor.predict(grey(40))
    assert (prediction.threshold, prediction.label) == (30.0, "anomaly")
    assert prediction.threshold_source == "thresholds.json: conformal"
    assert prediction.p_value == 1 / 3  # of two scores, not of the bundle's four
    assert predictor.settings.map_geometry is not None


def test_a_threshold_and_a_file_exclude_each_other(path: Path, bundle: Path) -> None:
    file = read_thresholds_file(path)
    with pytest.raises(ConfigError, match="give one of them"):
        Predictor.open(bundle, threshold=1.0, thresholds=file)


def test_another_model_is_refused(path: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", model_bytes=model(graph(scale=2.0)))
    file = read_thresholds_file(path)
    with pytest.raises(ConfigError, match=r"another model of part.*calibrate again"):
        Predictor.open(other, thresholds=file)


def test_the_same_model_with_other_thresholds_is_accepted(
    path: Path, bundle: Path
) -> None:
    edit_document(bundle, lambda p: part(p)["thresholds"].update(image=7.0))
    predictor = Predictor.open(bundle, thresholds=read_thresholds_file(path))
    assert predictor.threshold == 30.0


def test_a_category_that_is_not_in_it_is_refused_with_what_is(
    path: Path, tmp_path: Path
) -> None:
    both = write_bundle(tmp_path / "both", categories=("part", "parts"))
    file = read_thresholds_file(path)
    assert Predictor.open(both, category="part", thresholds=file).threshold == 30.0
    with pytest.raises(ConfigError, match=r'category "parts".*it holds: part;'):
        Predictor.open(both, category="parts", thresholds=file)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda p: p.update(sead=1), "sead: unknown key"),
        (lambda p: p.pop("bundle"), "bundle: missing"),
        (lambda p: p["bundle"].update(nmae="x"), 'did you mean "name"?'),
        (lambda p: p["bundle"].update(infer_config_sha256="AB"), "64 lower-case"),
        (lambda p: p.update(categories={}), "categories: empty"),
        (lambda p: p.update(categories=[]), "categories: found [], expected an object"),
        (lambda p: part(p).update(model_sha256=[]), "model_sha256: expected texts"),
        (lambda p: part(p).update(model_sha256=["x"]), "model_sha256: expected texts"),
        (lambda p: part(p).update(model_sha256="x"), "expected a list"),
        (lambda p: part(p)["thresholds"].update(image="1"), 'image: found "1"'),
        (lambda p: part(p)["thresholds"].update(image=None), "image: found null"),
        (lambda p: part(p)["thresholds"].update(image=1e39), "image: found 1e+39"),
        (lambda p: part(p)["thresholds"].update(imgae=1), 'did you mean "image"?'),
        (
            lambda p: part(p)["thresholds"].update(pixel=1.0),
            "provenance.pixel: missing",
        ),
        (
            lambda p: part(p)["thresholds"]["provenance"].clear(),
            "provenance.image: missing",
        ),
        (
            lambda p: part(p)["thresholds"]["provenance"].update(
                pixel=part(p)["thresholds"]["provenance"]["image"]
            ),
            "provenance.pixel: there is no pixel threshold",
        ),
        (lambda p: part(p)["calibration"].update(image_scores=[2, 1]), "ascending"),
        (lambda p: p.update(schema="pyimgano/infer_config"), '"pyimgano/thresholds"'),
        (lambda p: p.pop("schema"), '"pyimgano/thresholds"'),
        (lambda p: p.update(schema_version="1.1"), "runtime 0"),
        (lambda p: p.update(schema_version="2.0"), "reads 1.0 to 1.0; install"),
        (lambda p: p.update(schema_version=1.0), 'expected a text "MAJOR.MINOR"'),
        (lambda p: p.update(schema_version="1.0\n"), 'expected a text "MAJOR.MINOR"'),
    ],
)
def test_a_wrong_file_is_refused_in_words(
    path: Path, edit: Callable[[dict[str, Any]], object], expected: str
) -> None:
    message = spoil(path, edit)
    assert expected in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            lambda p: provenance(p).update(bounds=BOUNDS | {"images_above": 99}),
            "part.thresholds.provenance.image.bounds: more are at or above",
        ),
        (
            lambda p: provenance(p).update(set_by="x\x1b[2J"),
            "provenance.image.set_by: found",
        ),
        (lambda p: p["bundle"].update(name="x\n"), "bundle.name: found"),
        (lambda p: p["bundle"].update(version="x\n"), "bundle.version: found"),
        (
            lambda p: p["categories"].update({"a\x1b": part(p)}),
            "categories: found the name",
        ),
        (
            lambda p: p["categories"].update({"a" * 101: part(p)}),
            "categories: found the name",
        ),
    ],
)
def test_the_rules_of_bundles_hold_here_too(
    path: Path, edit: Callable[[dict[str, Any]], object], expected: str
) -> None:
    message = spoil(path, edit)
    assert expected in message
    assert "\x1b" not in message
    assert "\n" not in message


def test_every_problem_comes_at_once(path: Path) -> None:
    def edit(payload: dict[str, Any]) -> None:
        payload["sead"] = 1
        part(payload)["thresholds"]["image"] = "1"
        part(payload)["model_sha256"] = ["x"]

    assert spoil(path, edit).startswith("3 problems:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected one JSON value"),
        ("[]", "expected a JSON object"),
        ('{"schema": 1, "schema": 2}', 'the key "schema" stands twice'),
        ('{"schema": NaN}', "contains NaN"),
        ("\ufeff{}", "byte-order mark"),
    ],
)
def test_a_text_that_is_no_strict_json_is_refused(
    path: Path, text: str, expected: str
) -> None:
    path.write_text(text, encoding="utf-8")
    assert expected in refused(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file; check the path" in refused(tmp_path / "t.json")
