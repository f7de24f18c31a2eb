"""The training config: strict, complete, and the same as its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pyimgano.workbench.config import (
    WorkbenchConfig,
    config_schema,
    load_config,
    parse_config,
)
from pyimgano_runtime.errors import ConfigError

MINIMAL = {"dataset": {"manifest_path": "m.jsonl"}}


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(MINIMAL | changes, "config.json")
    return str(caught.value)


def test_a_manifest_is_all_that_must_be_named() -> None:
    config = parse_config(MINIMAL, "config.json")
    assert config.model.name == "patchcore"
    assert config.calibration.method == "conformal"
    assert config.calibration.target_false_alarm_rate == 0.01
    assert config.dataset.test_normal_fraction == 0.2
    assert (config.seed, config.device) == (0, "auto")


def test_the_effective_config_reads_as_the_same_config() -> None:
    config = parse_config(MINIMAL | {"seed": 5}, "config.json")
    payload = json.loads(json.dumps(config.to_dict()))
    assert parse_config(payload, "config.json") == config


def test_paths_stand_on_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "configs/c.json"
    path.parent.mkdir()
    dataset = {"manifest_path": "../data/m.jsonl", "root": "pictures"}
    path.write_text(json.dumps({"dataset": dataset}))
    loaded = load_config(path)
    assert loaded.source.manifest_path == tmp_path / "data/m.jsonl"
    assert loaded.source.root == tmp_path / "configs/pictures"


def test_the_split_seed_is_the_runs_unless_it_is_named() -> None:
    assert parse_config(MINIMAL | {"seed": 7}, "c").split_seed == 7
    named = {"dataset": {"manifest_path": "m", "split_seed": 3}, "seed": 7}
    assert parse_config(named, "c").split_seed == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sead": 1}, 'config.json: sead: unknown key (did you mean "seed"?)'),
        (
            {"dataset": {"manifest_pat": "m"}},
            'dataset.manifest_pat: unknown key (did you mean "manifest_path"?)',
        ),
        (
            {"dataset": {"name": "mvtec", "root": ".", "manifest_path": "m"}},
            'dataset.manifest_path: has no effect with dataset.name "mvtec"',
        ),
        ({"seed": "1"}, 'seed: found "1", expected a whole number'),
        ({"seed": -1}, "seed: found -1"),
        ({"device": "gpu"}, 'device: found "gpu", expected one of "auto"'),
        ({"schema_version": "2.0"}, 'schema_version: found "2.0"'),
        ({"recipe": "x"}, 'recipe: found "x"'),
        ({"model": {"name": "patchcor"}}, 'did you mean "patchcore"'),
        (
            {"model": {"options": {"bank_sise": 1}}},
            'model.options: bank_sise: unknown key (did you mean "bank_size"?)',
        ),
        ({"model": {"options": {"bank_size": 0}}}, "bank_size: found 0"),
        ({"calibration": {"folds": 1}}, "calibration.folds: found 1"),
        (
            {"calibration": {"target_false_alarm_rate": 0}},
            "calibration.target_false_alarm_rate: found 0",
        ),
        ({"calibration": {"method": "fixed"}}, "calibration.threshold: missing"),
        (
            {"calibration": {"threshold": 1.0}},
            'calibration.threshold: has no effect with method "conformal"',
        ),
        (
            {"evaluation": {"bootstrap_resamples": 50}},
            "evaluation.bootstrap_resamples: found 50, expected 0 (no intervals) or at "
            "least 100",
        ),
    ],
)
def test_a_wrong_config_is_refused_in_words(
    changes: dict[str, Any], expected: str
) -> None:
    assert expected in refused(**changes)


def test_every_problem_comes_at_once() -> None:
    message = refused(seed=-1, device="x", evaluation={"pixel_metrics": 1})
    assert message.startswith("3 problems:")


@pytest.mark.parametrize("text", ["", "{", "[]", "{'a': 1}", '{"seed": 1, "seed": 2}'])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.json"):
        load_config(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; check the path"):
        load_config(tmp_path / "c.json")


def test_the_schema_is_a_schema_and_accepts_the_effective_config() -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    payload = json.loads(json.dumps(parse_config(MINIMAL, "c").to_dict()))
    jsonschema.validate(payload, schema)
    jsonschema.validate(MINIMAL, schema)


def test_the_schema_refuses_an_unknown_key() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(MINIMAL | {"sead": 1}, config_schema())


def test_a_config_cannot_be_changed() -> None:
    config = parse_config(MINIMAL, "c")
    assert isinstance(config, WorkbenchConfig)
    with pytest.raises(AttributeError):
        config.seed = 3  # type: ignore[misc]


def test_a_misspelt_key_detector_and_option_are_named_together() -> None:
    payload = {
        "dataset": {"manifest_path": "m.jsonl", "categorys": []},
        "model": {"name": "patchcor"},
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(payload, "c.json")
    assert 'categorys: unknown key (did you mean "categories"?)' in str(caught.value)
    assert 'no detector "patchcor"' in str(caught.value)
    payload["model"] = {"name": "patchcore", "options": {"bank_sizes": 5}}
    with pytest.raises(ConfigError) as caught:
        parse_config(payload, "c.json")
    assert "dataset.categorys" in str(caught.value)
    assert "bank_sizes: unknown key" in str(caught.value)


def test_a_manifest_or_folder_in_place_of_a_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"image_path": "a.png"}\n')
    with pytest.raises(ConfigError, match="is a manifest by its name"):
        load_config(tmp_path / "m.jsonl")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"did you mean .*config"):
        load_config(tmp_path)
