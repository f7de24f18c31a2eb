"""`pyimgano bundle inspect`: what a person finds in a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bundle_copies import copy_of, edit_document, remove_goldens
from conftest import CommandResult, Exported
from pyimgano_runtime.bundle import open_bundle

Run = Callable[..., CommandResult]
Export = Callable[[str], Exported]


def test_the_table_names_what_matters(exported: Export, run_cli: Run) -> None:
    made = exported("patchcore")
    done = run_cli("bundle", "inspect", made.bundle)
    assert done.code == 0
    opened = open_bundle(made.bundle)
    category = opened.config.categories["bracket"]
    for expected in (
        "bundle        bundle 1\n",
        f"sha256        {opened.sha256}",
        "signature     none beside the bundle",
        "models/bracket.onnx",
        "category      bracket\n",
        "detector    patchcore (",
        "image_size 64 x 64",
        "bank_size 100",
        "licence Apache-2.0",
        "20 train normals",
        "image uint8[batch, height, width, 3] -> score float32[batch]; anomaly_map",
        f"image {category.thresholds.image:.6g}: conformal on 20 held-out normals in "
        "20 groups (kfold_pooled); promises about 4.76% false alarms (asked: 1.00%)",
        f"pixel {category.thresholds.pixel:.6g}: conformal",
        "; set by pyimgano train",
        "CALIBRATION_SMALL_N",
        "12 test+val pictures: torch and onnxruntime differ by at most",
        "0 label flips",
        "goldens     4 synthetic",
        "image_auroc",
    ):
        assert expected in done.stdout, expected


def test_json_is_the_document_and_its_sha256(exported: Export, run_cli: Run) -> None:
    made = exported("pixel_stats")
    payload = json.loads(run_cli("bundle", "inspect", made.bundle, "--json").stdout)
    opened = open_bundle(made.bundle)
    assert payload == opened.config.to_dict() | {"sha256": opened.sha256}


def test_a_signature_beside_the_bundle_is_named(
    exported: Export, tmp_path: Path, run_cli: Run
) -> None:
    bundle = copy_of(exported("pixel_stats").bundle, tmp_path / "b 7")
    (tmp_path / "b 7.sig").write_text("{}")
    done = run_cli("bundle", "inspect", bundle)
    assert f"signature     {tmp_path / 'b 7.sig'} (not checked here" in done.stdout


def test_a_bundle_that_tells_nothing_of_its_training_is_shown(
    exported: Export, tmp_path: Path, run_cli: Run
) -> None:
    bundle = copy_of(exported("pixel_stats").bundle, tmp_path / "b")
    remove_goldens(bundle)

    def change(document: dict[str, Any]) -> None:
        document["training"] = {"categories": {"bracket": {"metrics": [], "counts": 3}}}

    edit_document(bundle, change)
    done = run_cli("bundle", "inspect", bundle)
    assert done.code == 0
    assert "detector    not stated" in done.stdout
    assert "none: no device can prove this model" in done.stdout


def test_what_is_no_bundle_is_refused(tmp_path: Path, run_cli: Run) -> None:
    done = run_cli("bundle", "inspect", tmp_path)
    assert done.code == 2
    assert "has no infer_config.json" in done.stderr
