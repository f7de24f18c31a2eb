"""infer_config.json is read strictly, and all of its problems are named at once."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import edit_document, write_bundle

from pyimgano_runtime import BundleError, ConfigError, open_bundle
from pyimgano_runtime._reader import MAX_JSON_DEPTH, Fields, parse_json
from pyimgano_runtime.infer_config import InferConfig


@pytest.fixture
def payload(tmp_path: Path) -> dict[str, Any]:
    folder = write_bundle(tmp_path / "b", categories=("a", "b"))
    loaded: dict[str, Any] = json.loads((folder / "infer_config.json").read_text())
    return loaded


def refusal(payload: Any) -> str:
    with pytest.raises(BundleError) as caught:
        InferConfig.from_dict(payload, "doc")
    return str(caught.value)


def text_refusal(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as caught:
        parse_json(data, "doc")
    return str(caught.value)


def test_a_document_comes_back_as_it_was(payload: dict[str, Any]) -> None:
    payload["extensions"] = {"line": {"cell": 4}}
    before = copy.deepcopy(payload)
    assert InferConfig.from_dict(payload, "doc").to_dict() == before


SHOWN = (
    *("bundle.name", "bundle.version", "bundle.created", "bundle.producer.pyimgano"),
    *("parity.reference", "parity.candidate", "parity.machine"),
    *("parity.categories.a.images", "input.reference_decoder"),
    *("training.categories.a.detector", "training.categories.a.warnings.0"),
    *(
        f"categories.a.thresholds.provenance.image.{key}"
        for key in ("source", "set_by", "set_at", "warnings.0")
    ),
)


@pytest.mark.parametrize("path", SHOWN)
@pytest.mark.parametrize("sign", ["\x1b", "\n", "\x85", "\u2028"])
def test_a_text_that_is_shown_has_no_sign_that_cannot_be(
    payload: dict[str, Any], path: str, sign: str
) -> None:
    *above, last = path.removesuffix(".0").split(".")
    block = payload
    for key in above:
        block = block[key]
    text = f"x{sign}[2J"
    block[last] = [text] if path.endswith(".0") else text
    message = refusal(payload)
    assert path.removesuffix(".0") in message
    assert "expected characters that can be shown" in message
    assert sign not in message


def test_a_name_that_cannot_be_shown_is_not_shown_in_the_refusal(
    payload: dict[str, Any],
) -> None:
    payload["bundle"]["producer"]["a\x1b[2J"] = "1"
    payload["categories"]["c\x1b"] = payload["categories"]["a"] | {"graph": ["x"]}
    message = refusal(payload)
    assert "bundle.producer" in message
    assert "\x1b" not in message


def test_an_unknown_key_names_its_place_and_the_closest_key(
    payload: dict[str, Any],
) -> None:
    payload["input"]["exfi"] = payload["input"].pop("exif")
    message = refusal(payload)
    assert 'doc: input.exfi: unknown key (did you mean "exif"?)' in message
    assert "doc: input.exif: missing" in message


@pytest.mark.parametrize(
    "where",
    [
        lambda p: p,
        lambda p: p["bundle"],
        lambda p: p["files"][0],
        lambda p: p["models"]["tiny"],
        lambda p: p["models"]["tiny"]["outputs"][0],
        lambda p: p["input"],
        lambda p: p["categories"]["a"],
        lambda p: p["categories"]["a"]["thresholds"],
        lambda p: p["categories"]["a"]["thresholds"]["provenance"]["image"],
        lambda p: p["categories"]["a"]["calibration"],
        lambda p: p["categories"]["a"]["map_geometry"],
        lambda p: p["parity"],
        lambda p: p["parity"]["tolerances"],
        lambda p: p["parity"]["categories"]["a"],
        lambda p: p["parity"]["goldens"][0],
    ],
)
def test_every_block_refuses_unknown_keys_but_extensions_takes_any(
    payload: dict[str, Any], where: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    payload["extensions"] = {"zzz": 1}
    where(payload)["zzz"] = 1
    assert refusal(payload).count("zzz: unknown key") == 1


def set_at(payload: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split("/")
    here: Any = payload
    for name in parents:
        here = here[int(name)] if name.isdigit() else here[name]
    here[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("files", {}, "files: found {}, expected a list"),
        ("files/0", 3, "files[0]: found 3, expected an object"),
        ("files/0/size", 1.5, "files[0].size: found 1.5, expected a whole number"),
        ("files/0/size", True, "files[0].size: found true"),
        ("files/0/size", -1, "of at least 0"),
        ("files/0/sha256", "AB" * 32, "64 lower-case hexadecimal"),
        ("files/0/sha256", "a" * 64 + "\n", "64 lower-case hexadecimal"),
        ("files/0/path", "../m.onnx", '"../m.onnx" leaves the bundle folder'),
        ("files/0/role", "modle", 'did you mean "model"?'),
        ("bundle", [], "bundle: found [], expected an object"),
        ("bundle/name", "", "bundle.name"),
        ("bundle/producer", {"torch": 2}, "producer.torch: expected a version"),
        ("models/tiny/opset", 17, "from 18 to 24"),
        ("models/tiny/inputs/0/dtype", "uint16", "expected one of"),
        ("models/tiny/inputs/0/shape", [0], "shape[0]"),
        ("input/expected_size", "8", 'found "8", expected [height, width]'),
        ("input/expected_size", [8], "found [8], expected [height, width]"),
        ("input/expected_size", [True, 8], "[height, width]"),
        ("input/max_pixels", 0, "from 1 to"),
        ("categories", [], "categories: found [], expected an object"),
        ("categories/a/thresholds/image", "1", 'image: found "1"'),
        ("categories/a/thresholds/image", 1e39, "found 1e+39, expected"),
        ("categories/a/thresholds/pixel", -1e39, "found -1e+39, expected"),
        ("categories/a/thresholds/compare", ">", 'expected one of ">="'),
        ("categories/a/calibration/image_scores", [2, 1], "ascending"),
        ("categories/a/calibration/image_scores", [1, "2"], "image_scores[1]"),
        ("categories/a/calibration/image_scores", [-1e39], "float32 can hold"),
        ("categories/a/calibration/n_images", 1, "at least the 4"),
        ("categories/a/roi", {}, "expected one of them"),
        ("parity/tolerances/score_rel", -1, "of at least 0"),
        ("parity/goldens/0/score", None, "score: found null"),
        ("preprocess", [{"step": "x", "where": "moon"}], 'expected "graph"'),
        ("requires", "abc", "requires: found"),
        ("requires", 5, "requires: found 5"),
        ("requires", [[]], "requires[0]: found []"),
        ("training", 7, "training: found 7"),
        ("training", {"categories": []}, "training.categories"),
        ("training", {"categories": {"a": 1}}, "training.categories.a"),
        ("training", {"categories": {"a": {"detector": 1}}}, "detector: found 1"),
    ],
)
def test_a_wrong_value_is_named_once_with_place_and_expectation(
    payload: dict[str, Any], path: str, value: Any, expected: str
) -> None:
    set_at(payload, path, value)
    message = refusal(payload)
    assert expected in message
    assert message.startswith("doc: "), "one wrong value is one problem"


@pytest.mark.parametrize("value", [None, 5, "x"])
def test_a_wrong_fingerprint_is_refused_not_turned_into_text(
    payload: dict[str, Any], value: Any
) -> None:
    provenance = payload["categories"]["a"]["thresholds"]["provenance"]["image"]
    provenance["fingerprint"] = value
    assert "provenance.image.fingerprint" in refusal(payload)


def test_all_problems_are_listed_at_once(payload: dict[str, Any]) -> None:
    payload["bundle"]["name"] = 3
    payload["input"]["exif"] = "ignore"
    del payload["parity"]["machine"]
    message = refusal(payload)
    assert message.startswith("3 problems:\n")
    for part in ("bundle.name", "input.exif", "parity.machine"):
        assert part in message


@pytest.mark.parametrize("version", ["1.4", "2.0", "0.9", "9999.0"])
def test_another_schema_is_refused_naming_the_runtime_that_reads_it(
    payload: dict[str, Any], version: str
) -> None:
    payload["schema_version"] = version
    payload["bundle"]["producer"]["pyimgano"] = "3.1.0"
    payload["future"] = {"anything": 1}
    message = refusal(payload)
    assert f"schema_version is {version}" in message
    assert "pyimgano-runtime 3.1.0 or newer" in message
    assert "future" not in message


@pytest.mark.parametrize("bundle", [None, [], {"producer": 5}, {"producer": {}}])
def test_a_newer_document_without_a_producer_still_names_the_schema(
    payload: dict[str, Any], bundle: Any
) -> None:
    payload |= {"schema_version": "1.9", "bundle": bundle}
    assert "a pyimgano-runtime that reads schema 1.9" in refusal(payload)


@pytest.mark.parametrize(
    "version",
    [1.0, 1, None, "1", "1.0\n", "v1.0", "\u0661.\u0660", "01.0", "1.0.0", [], "1.-1"],
)
def test_a_schema_version_is_a_text_of_two_plain_numbers(
    payload: dict[str, Any], version: Any
) -> None:
    payload["schema_version"] = version
    assert 'expected a text "MAJOR.MINOR"' in refusal(payload)


def test_an_unknown_requirement_is_refused_by_name(payload: dict[str, Any]) -> None:
    payload["requires"] = ["preprocess.runtime"]
    assert "requires ['preprocess.runtime']" in refusal(payload)


def test_a_training_run_is_told_apart_from_a_bundle(payload: dict[str, Any]) -> None:
    payload["kind"] = "run"
    assert "pyimgano bundle export" in refusal(payload)


@pytest.mark.parametrize("document", [None, [], "x", {}, {"schema": "other"}])
def test_any_other_json_is_refused_as_no_bundle(document: Any) -> None:
    assert '"schema": "pyimgano/infer_config"' in refusal(document)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("models/tiny/file", "models/b.onnx", "does not stand in files"),
        ("files/0/role", "model_card", 'with role "model"'),
        ("files/0/path", "infer_config.json", "not at all"),
        ("files/0/path", "model_card.MD", "the same file on systems"),
        ("models/tiny/inputs", [], "expected one image, or"),
        ("models/tiny/outputs", [], "expected score"),
        ("models/tiny/inputs/0/dtype", "float32", "expected uint8 with 4 for kind"),
        (
            "models/tiny/outputs/0/shape",
            ["batch", 1],
            "expected float32 with 1 for kind",
        ),
        ("categories/a/graph", ["other"], "expected one of the models"),
        ("categories/a/graph", ["tiny", "tiny"], "expected each model once"),
        ("categories/a/map_geometry", None, "exactly where the model has"),
        ("categories/a/map_geometry/map_size", [4, 7], "anomaly_map has [4, 6]"),
        ("categories/a/thresholds/provenance", {}, "says where it comes from"),
        ("categories", {}, "expected at least one"),
        ("parity/goldens/0/category", "c", 'goldens[0].category: no category "c"'),
        ("parity/goldens/1/image", "MODEL_CARD.md", "parity.goldens[1].image"),
        ("parity/goldens/1/map", "golden/9.npy", "parity.goldens[1].map"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(
    payload: dict[str, Any], path: str, value: Any, expected: str
) -> None:
    set_at(payload, path, value)
    assert expected in refusal(payload)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1b[2J", "x" * 101])
def test_a_category_has_a_name_that_can_be_shown(
    payload: dict[str, Any], name: str
) -> None:
    payload["categories"][name] = payload["categories"]["a"]
    assert "printable characters" in refusal(payload)


def test_a_golden_with_a_map_of_a_model_without_one_is_refused(tmp_path: Path) -> None:
    def add_map(document: dict[str, Any]) -> None:
        document["files"].append(document["files"][1] | {"path": "g/m", "size": 1})
        document["files"][-1]["role"] = "golden_map"
        document["parity"]["goldens"][0]["map"] = "g/m"

    folder = write_bundle(tmp_path / "b", with_map=False, edit=add_map)
    with pytest.raises(BundleError, match=r"goldens\[0\].map: expected null"):
        open_bundle(folder)


def test_duplicate_keys_are_refused() -> None:
    assert 'the key "b" stands twice' in text_refusal('{"a": [{"b": 1, "b": 2}]}')


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused_anywhere(number: str) -> None:
    assert "finite numbers only" in text_refusal(f'{{"a": [{number}]}}')


def test_an_endless_whole_number_is_refused() -> None:
    assert "out of range" in text_refusal("9" * 100_000)


def test_a_byte_order_mark_and_other_encodings_are_refused() -> None:
    assert "without BOM" in text_refusal(b"\xef\xbb\xbf{}")
    assert "byte 1 is not UTF-8" in text_refusal(b'"\xff"')
    assert "expected one JSON value" in text_refusal('{"a": 1}'.encode("utf-16-le"))


@pytest.mark.parametrize("text", ["", "{", '{"a": 1} {"b": 2}', "{'a': 1}", '["\n"]'])
def test_broken_json_is_placed_by_line_and_column(text: str) -> None:
    assert "doc: line " in text_refusal(text)


def test_half_of_a_character_is_refused_and_a_whole_one_is_read() -> None:
    assert "one half" in text_refusal('{"a": "\\ud83d"}')
    assert parse_json(b'"\\ud83d\\ude00\\u00e9"', "doc") == "\U0001f600\u00e9"


@pytest.mark.parametrize(("left", "right"), ["[]", ('{"a":', "}")])
def test_deep_nesting_is_refused_at_the_stated_depth(left: str, right: str) -> None:
    deepest = left * MAX_JSON_DEPTH + "1" + right * MAX_JSON_DEPTH
    parse_json(deepest.encode(), "doc")
    assert "levels deep" in text_refusal(left + deepest + right)
    assert "levels deep" in text_refusal(left * 100_000 + "1" + right * 100_000)


def test_brackets_inside_of_texts_are_not_depth() -> None:
    text = "[" * 1000 + '\\"{' * 1000
    assert parse_json(json.dumps([text]).encode(), "doc") == [text]


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 200_000,  # a text that never ends
        '{"k":0,' + ",".join(f'"{i}":0' for i in range(50_000)) + ',"k":0}',
        "[" + "[]," * 200_000 + "[]",
    ],
)
def test_hostile_json_is_refused_in_time_that_grows_with_its_size(text: str) -> None:
    start = time.process_time()  # other processes may keep this one waiting
    text_refusal(text)
    assert time.process_time() - start < 5.0  # quadratic: minutes


def test_a_wrong_value_is_shown_short() -> None:
    problems: list[str] = []
    Fields({"a": "x" * 10_000}, "doc", problems).integer("a")
    assert len(problems[0]) < 150


def test_a_bundle_reads_its_document_by_the_same_rules(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    edit_document(folder, lambda document: document.update(zzz=1))
    with pytest.raises(BundleError, match="zzz: unknown key"):
        open_bundle(folder)
    (folder / "infer_config.json").write_text("{")
    with pytest.raises(BundleError, match="line 1"):
        open_bundle(folder)
