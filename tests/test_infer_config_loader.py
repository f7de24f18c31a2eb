"""Documents of both kinds are loaded by the runtime's contract, narrowed, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Exported
from pyimgano.inference.config import load_infer_config, select_infer_category
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.errors import BundleError, ConfigError
from pyimgano_runtime.infer_config import InferConfig, RunConfig

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def document(two_parts: Exported) -> Path:
    """The document of a run with the categories bracket and connector."""
    return two_parts.run / "artifacts" / "infer_config.json"


@pytest.fixture
def edited(document: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """Give a function that writes a changed copy of the document."""

    def make(edit: Edit) -> Path:
        payload = json.loads(document.read_text("utf-8"))
        edit(payload)
        path = tmp_path / "infer_config.json"
        path.write_text(json.dumps(payload), encoding="utf-8")
        return path

    return make


def category(payload: dict[str, Any], name: str = "bracket") -> Any:
    return payload["categories"][name]


def test_a_runs_document_is_given_as_it_stands_in_the_file(document: Path) -> None:
    payload = load_infer_config(document)
    assert payload == json.loads(document.read_text("utf-8"))
    assert payload["kind"] == "run"


def test_a_bundles_document_is_given_as_it_stands_in_the_file(
    two_parts: Exported,
) -> None:
    path = two_parts.bundle / "infer_config.json"
    assert load_infer_config(path) == json.loads(path.read_text("utf-8"))


def test_a_folder_means_the_document_in_it(document: Path) -> None:
    assert load_infer_config(document.parent) == load_infer_config(document)


def test_a_named_category_is_all_that_stays_and_the_rest_is_still_valid(
    document: Path,
) -> None:
    payload = load_infer_config(document)
    narrowed = select_infer_category(payload, "connector")
    assert list(narrowed["categories"]) == ["connector"]
    assert narrowed["categories"]["connector"] == category(payload, "connector")
    assert RunConfig.from_dict(narrowed, "narrowed").to_dict() == narrowed
    assert list(payload["categories"]) == ["bracket", "connector"]  # not changed


def test_a_narrowed_bundle_keeps_its_own_goldens_and_is_still_valid(
    two_parts: Exported,
) -> None:
    payload = load_infer_config(two_parts.bundle)
    narrowed = select_infer_category(payload, "connector")
    goldens = narrowed["parity"]["goldens"]
    assert goldens
    assert {golden["category"] for golden in goldens} == {"connector"}
    assert InferConfig.from_dict(narrowed, "narrowed").to_dict() == narrowed


def test_the_only_category_need_not_be_named(document: Path) -> None:
    payload = load_infer_config(document)
    one = select_infer_category(payload, "bracket")
    assert select_infer_category(one) == one


def test_several_categories_and_none_named_is_refused_with_their_names(
    document: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"2 categories.*: bracket, connector"):
        select_infer_category(load_infer_config(document))


def test_an_unknown_category_is_refused_with_the_one_that_was_meant(
    document: Path,
) -> None:
    with pytest.raises(ConfigError, match=r'did you mean "bracket".*connector'):
        select_infer_category(load_infer_config(document), "braket")


REFUSED: dict[str, tuple[Edit, str]] = {
    "an unknown key": (
        lambda p: p.update(devise="cpu"),
        'devise: unknown key \\(did you mean "device"\\?\\)',
    ),
    "an unknown key inside": (
        lambda p: category(p).update(threshold=1),
        'bracket.threshold: unknown key \\(did you mean "thresholds"\\?\\)',
    ),
    "a newer minor version": (
        lambda p: p.update(schema_version="1.4"),
        "schema_version is 1.4, runtime .* reads 1.0 to 1.3",
    ),
    "a newer major version": (
        lambda p: p.update(schema_version="2.0"),
        "schema_version is 2.0",
    ),
    "an unknown requirement": (
        lambda p: p.update(requires=["preprocess.runtime"]),
        "requires \\['preprocess.runtime'\\]",
    ),
    "another schema": (lambda p: p.update(schema="x"), '"pyimgano/infer_config"'),
    "another kind": (lambda p: p.update(kind="ran"), 'found "ran"'),
    "a threshold in words": (
        lambda p: category(p)["thresholds"].update(image="3.5"),
        'thresholds.image: found "3.5", expected a finite number',
    ),
    "a threshold without provenance": (
        lambda p: category(p)["thresholds"]["provenance"].pop("image"),
        "provenance.image: missing; every threshold says where it comes from",
    ),
    "a pixel threshold without provenance": (
        lambda p: category(p)["thresholds"]["provenance"].pop("pixel"),
        "provenance.pixel: missing; every threshold says where it comes from",
    ),
    "an invented method": (
        lambda p: category(p)["thresholds"]["provenance"]["image"].update(
            method="magic"
        ),
        'method: found "magic", expected one of "conformal"',
    ),
    "an absolute checkpoint": (
        lambda p: category(p)["checkpoint"].update(path="/models/a.safetensors"),
        "checkpoint.path: .* is absolute",
    ),
    "a checkpoint on a drive": (
        lambda p: category(p)["checkpoint"].update(path="C:\\a.safetensors"),
        "has a backslash or colon",
    ),
    "a checkpoint that climbs in its middle": (
        lambda p: category(p)["checkpoint"].update(path="a/../../b"),
        'has an empty name, "." or ".." after its beginning',
    ),
    "no checkpoint": (
        lambda p: category(p).pop("checkpoint"),
        "bracket.checkpoint: missing",
    ),
    "no categories": (
        lambda p: p.update(categories={}),
        "categories: empty, expected at least one",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_contract_does_not_hold_is_refused(
    name: str, edited: Callable[[Edit], Path]
) -> None:
    edit, sentence = REFUSED[name]
    with pytest.raises(BundleError, match=sentence):
        load_infer_config(edited(edit))


def test_all_problems_are_said_at_once(edited: Callable[[Edit], Path]) -> None:
    def edit(payload: dict[str, Any]) -> None:
        payload["devise"] = 1
        category(payload)["thresholds"]["image"] = None
        category(payload, "connector")["checkpoint"]["sha256"] = "AB"

    with pytest.raises(BundleError) as caught:
        load_infer_config(edited(edit))
    text = str(caught.value)
    assert text.startswith("3 problems:")
    assert "devise" in text
    assert "bracket.thresholds.image" in text
    assert "connector.checkpoint.sha256" in text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": 1, "a": 2}', 'the key "a" stands twice'),
        ('{"a": NaN}', "contains NaN"),
        ("{", "line 1, column 2"),
        ("[]", '"schema": "pyimgano/infer_config"'),
        ("\ufeff{}", "byte-order mark"),
    ],
)
def test_json_is_read_strictly(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "infer_config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=sentence):
        load_infer_config(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.json: no such file"):
        load_infer_config(tmp_path / "none.json")


def test_a_device_refuses_a_runs_document_and_says_what_to_do(
    document: Path, tmp_path: Path
) -> None:
    shutil.copy(document, tmp_path)
    with pytest.raises(BundleError, match=r'training run.*"pyimgano bundle export"'):
        open_bundle(tmp_path)
