"""`infer_config.json` of every version is read; the published examples are valid."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pyimgano.inference.config import load_infer_config, parse_document
from pyimgano_runtime import __version__
from pyimgano_runtime._reader import parse_json
from pyimgano_runtime.errors import BundleError
from pyimgano_runtime.infer_config import MAJOR, MINOR, SCHEMA
from pyimgano_runtime.thresholds import is_anomaly, p_value
from pyimgano_runtime.thresholds_file import read_thresholds_file

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
SPEC = ROOT / "docs" / "bundle_format.md"

# Golden files are never changed; a new version adds lines.
SHA256 = {
    "infer_config_1.0_bundle.json": "253abc96824f03733277b80bcaf9a10a"
    "fbf0272cde1898b3ebb966108a091128",
    "infer_config_1.0_bundle_minimal.json": "570d71e9d375a8e6076be82e7513e8fe"
    "8e829425826bb3c336493742a463f7db",
    "infer_config_1.0_run.json": "ab64844b31040bb27f5ab5a2e0bc9eb9"
    "b59c8669445992b1a8fd4be3dca8ef06",
    "infer_config_1.0_run_minimal.json": "b4e178f52c5227fc324683fe9faaa461"
    "7fd2be85b85534d067d878a08cd6e062",
    "infer_config_1.1_bundle.json": "42f93336fbe09b5ced1f8ddffb717528"
    "bcace9011c80d83bde921dc4f5905ac0",
    "infer_config_1.1_bundle_minimal.json": "7f265c372dbb2318f2927e74eb2517ea"
    "d19f5f60a4feb13985a4cf7bce5c6213",
    "infer_config_1.1_run.json": "b00210dd94014a449fce265543a81908"
    "958847794a5234763d9186556fdad119",
    "infer_config_1.1_run_minimal.json": "3612b288979ecba969b1d70bcff7c839"
    "ab973c801fa389bce6b86cde971a43ef",
    "infer_config_1.2_bundle.json": "17f392c91a37cf301ae3c45830dc6042"
    "118736f3563ac521b1538d284e583b73",
    "infer_config_1.2_bundle_minimal.json": "24f88525c4a2e61519cecea263c8ef36"
    "d722a83143a3177694e72f6b2cfc1b3f",
    "infer_config_1.2_run.json": "46100d3b24f69da447eae5f742bc1338"
    "728aa5265992e72797c835b7dcfe547f",
    "infer_config_1.2_run_minimal.json": "2318b426e03d32f277d310a8a75d4a14"
    "743427ed182d42c9deb76d5d514e6a21",
    "infer_config_1.3_bundle.json": "6ffe692b85a6b6bc534f3b70c7513574"
    "0d2ff67b252655b88419f9839b7569a7",
    "infer_config_1.3_run.json": "69288c5ac4dc73843a07182c88b854a0"
    "e034d8d8e911e854c874d7fc82fb6f3e",
    "infer_config_1.3_bundle_minimal.json": "86bf25d9d0d81582babb26263d70de71"
    "7c3a3d64ca42c4f8e7db439943e4fb6b",
    "infer_config_1.3_run_minimal.json": "866d968e92837c4f66529c04e138f24d"
    "6d203e62ed10a1f6fe78cfdf3eee0d21",
}
NAME = re.compile(r"infer_config_(\d+)\.(\d+)_(bundle|run)(_minimal)?\.json")
KINDS = ("bundle", "bundle_minimal", "run", "run_minimal")

# What may be left out of a document, by the object that it is left out of.
SETTINGS = ("map_geometry", "roi", "tiling", "regions", "reference")
RATES = ("requested_false_alarm_rate", "used_false_alarm_rate", "bounds")
MAP_DIFFERENCES = ("max_abs_map_diff", "max_map_diff_of_range")


def read(path: Path) -> Any:
    return parse_json(path.read_bytes(), path.name, error=BundleError)


def schema_problems(document: Any) -> list[str]:
    path = ROOT / "pyimgano" / "resources" / "infer_config.schema.json"
    validator = Draft202012Validator(json.loads(path.read_text("utf-8")))
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)]


def with_defaults(document: Any) -> Any:
    """Give a document with null wherever a field was left out that may be."""
    filled = json.loads(json.dumps(document))
    filled["input"].setdefault("expected_size", None)
    if "model" in filled:
        filled["model"].setdefault("preset", None)
    for category in filled["categories"].values():
        _fill(category, SETTINGS)
        if category["reference"] is not None:
            _fill(category["reference"], ("scores",))
        _fill(category["thresholds"], ("pixel",))
        for provenance in category["thresholds"]["provenance"].values():
            _fill(provenance, RATES)
    parity = filled.get("parity", {"categories": {}, "goldens": []})
    for measured in parity["categories"].values():
        _fill(measured, MAP_DIFFERENCES)
    for golden in parity["goldens"]:
        _fill(golden, ("map",))
    return filled


def _fill(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        fields.setdefault(name, None)


def missing_goldens(major: int, minor: int) -> list[str]:
    """Give the golden files that versions up to this one lack."""
    wanted = [
        f"infer_config_{major}.{old}_{kind}.json"
        for old in range(minor + 1)
        for kind in KINDS
    ]
    return [name for name in wanted if not (GOLDEN / name).is_file()]


@pytest.mark.parametrize("name", SHA256)
def test_a_golden_file_is_never_changed(name: str) -> None:
    text = (GOLDEN / name).read_text("utf-8")  # of any line ends
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256[name]


def test_every_golden_file_is_known_and_says_its_own_version() -> None:
    assert sorted(p.name for p in GOLDEN.glob("*.json")) == sorted(SHA256)
    for name in SHA256:
        match = NAME.fullmatch(name)
        assert match is not None
        document = read(GOLDEN / name)
        assert document["schema_version"] == f"{match[1]}.{match[2]}"
        assert document["kind"] == match[3]


def test_each_version_that_is_read_has_its_golden_files() -> None:
    assert not missing_goldens(MAJOR, MINOR)
    assert missing_goldens(MAJOR, MINOR + 1)


@pytest.mark.parametrize("name", SHA256)
def test_a_golden_file_is_read_valid_and_given_back(name: str) -> None:
    document = read(GOLDEN / name)
    assert not schema_problems(document)
    given = parse_document(document, name).to_dict()
    assert given == with_defaults(document)
    assert not schema_problems(given)
    assert load_infer_config(GOLDEN / name) == given


@pytest.mark.parametrize("name", ["bundle", "run"])
def test_a_full_golden_file_leaves_nothing_out(name: str) -> None:
    document = read(GOLDEN / f"infer_config_{MAJOR}.{MINOR}_{name}.json")
    assert with_defaults(document) == document


@pytest.mark.parametrize("name", ["bundle", "run"])
@pytest.mark.parametrize(
    "version", [f"{MAJOR}.{MINOR + 1}", f"{MAJOR + 1}.0", f"{MAJOR - 1}.9"]
)
def test_another_version_is_refused_naming_it_and_the_runtime(
    name: str, version: str
) -> None:
    document = read(GOLDEN / f"infer_config_{MAJOR}.{MINOR}_{name}.json")
    document["schema_version"] = version
    assert schema_problems(document)
    with pytest.raises(BundleError) as caught:
        parse_document(document, "infer_config.json")
    said = f"schema_version is {version}, runtime {__version__} reads {MAJOR}.0 to"
    assert said in str(caught.value)
    assert "install pyimgano-runtime 0.6.5 or newer" in str(caught.value)


@pytest.mark.parametrize("name", ["bundle", "run"])
def test_an_unknown_requirement_is_refused_by_name(name: str) -> None:
    document = read(GOLDEN / f"infer_config_{MAJOR}.{MINOR}_{name}.json")
    document["requires"] = ["preprocess.runtime"]
    assert schema_problems(document)
    with pytest.raises(BundleError, match=r"requires \['preprocess\.runtime'\]"):
        parse_document(document, "infer_config.json")


def test_the_document_of_every_bundle_in_the_repository_is_valid() -> None:
    paths = sorted((ROOT / "bundles").rglob("infer_config.json"))
    assert paths
    assert not [problem for path in paths for problem in schema_problems(read(path))]


def test_the_examples_of_the_spec_are_documents_that_are_read(tmp_path: Path) -> None:
    blocks = re.findall(r"```json\n(.*?)```", SPEC.read_text("utf-8"), re.DOTALL)
    seen = []
    for block in blocks:
        document = parse_json(block.encode(), SPEC.name)
        seen.append(document.get("kind", document["schema"]))
        if document["schema"] == SCHEMA:
            assert not schema_problems(document)
            parse_document(document, SPEC.name)
        else:
            path = tmp_path / "thresholds.json"
            path.write_text(block, "utf-8")
            read_thresholds_file(path)
    assert seen == ["bundle", "run", "pyimgano/thresholds"]


def test_the_numbers_of_the_spec_are_those_of_its_example() -> None:
    text = SPEC.read_text("utf-8")
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block is not None
    category = json.loads(block[1])["categories"]["lid"]
    scores, threshold = category["calibration"]["image_scores"], category["thresholds"]
    assert "2.25 has p = (1 + 3) / (9 + 1) = 0.4" in text
    assert p_value(2.25, scores) == 0.4
    assert "2.75 has p = 0.2 and is `normal` too" in text
    assert p_value(2.75, scores) == 0.2
    assert not is_anomaly(2.75, threshold["image"])
    assert threshold["image"] < 2.7501
