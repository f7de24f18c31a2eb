"""A document finds its checkpoint beside it, and nothing further away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import Exported
from pyimgano.detectors import load_detector
from pyimgano.inference.config import (
    load_infer_config,
    resolve_checkpoint,
    select_infer_category,
)
from pyimgano_runtime.errors import BundleError, ConfigError


@pytest.fixture
def run(two_parts: Exported, tmp_path: Path) -> Path:
    """A copy of a run in a folder of another name."""
    return Path(shutil.copytree(two_parts.run, tmp_path / "site ü" / "moved run"))


def read(path: Path, category: str = "bracket") -> dict[str, Any]:
    return select_infer_category(load_infer_config(path), category)


def with_checkpoint(path: Path, written: str) -> dict[str, Any]:
    payload = json.loads(path.read_text("utf-8"))
    for category in payload["categories"].values():
        category["checkpoint"]["path"] = written
    path.write_text(json.dumps(payload), encoding="utf-8")
    return read(path)


def test_a_checkpoint_in_a_sibling_folder_is_found_after_the_run_was_moved(
    run: Path,
) -> None:
    path = run / "artifacts" / "infer_config.json"
    payload = read(path)
    found = resolve_checkpoint(payload, path)
    assert found == run.resolve() / "checkpoints" / "bracket" / "model.safetensors"
    digest = payload["categories"]["bracket"]["checkpoint"]["sha256"]
    assert load_detector(found, sha256=digest).name == "pixel_stats"


def test_the_working_directory_does_not_matter(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    path = Path("artifacts/infer_config.json")
    assert resolve_checkpoint(read(path), path).is_file()


def test_a_checkpoint_beside_or_below_the_document_is_found(run: Path) -> None:
    path = run / "artifacts" / "infer_config.json"
    for written in ("model.safetensors", "deep/er/model.safetensors"):
        target = path.parent / written
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run / "checkpoints" / "bracket" / "model.safetensors", target)
        payload = with_checkpoint(path, written)
        assert resolve_checkpoint(payload, path) == target.resolve()


def test_a_checkpoint_outside_the_parent_is_refused_and_a_root_allows_it(
    run: Path,
) -> None:
    path = run / "artifacts" / "infer_config.json"
    store = run.parent / "store"
    shutil.move(run / "checkpoints", store)
    payload = with_checkpoint(path, "../../store/bracket/model.safetensors")
    with pytest.raises(ConfigError, match=r"expected a file under .*moved run.*root"):
        resolve_checkpoint(payload, path)
    found = resolve_checkpoint(payload, path, checkpoint_root=store)
    assert found == store.resolve() / "bracket" / "model.safetensors"


def test_a_root_that_does_not_hold_it_does_not_help(run: Path, tmp_path: Path) -> None:
    path = run / "artifacts" / "infer_config.json"
    payload = with_checkpoint(path, "../../../x/model.safetensors")
    with pytest.raises(ConfigError, match="leads to"):
        resolve_checkpoint(payload, path, checkpoint_root=tmp_path / "elsewhere")


def test_a_link_that_leads_out_is_refused(run: Path) -> None:
    path = run / "artifacts" / "infer_config.json"
    outside = run.parent / "secret.safetensors"
    shutil.move(run / "checkpoints" / "bracket" / "model.safetensors", outside)
    (run / "checkpoints" / "bracket" / "model.safetensors").symlink_to(outside)
    with pytest.raises(ConfigError, match=r"leads to .*secret\.safetensors"):
        resolve_checkpoint(read(path), path)


def test_a_missing_checkpoint_says_what_to_copy(run: Path) -> None:
    path = run / "artifacts" / "infer_config.json"
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ConfigError, match="no file is; copy the run's checkpoints"):
        resolve_checkpoint(read(path), path)


def test_a_checkpoint_that_was_changed_is_refused(run: Path) -> None:
    path = run / "artifacts" / "infer_config.json"
    payload = read(path)
    found = resolve_checkpoint(payload, path)
    data = bytearray(found.read_bytes())
    data[-1] ^= 1
    found.write_bytes(data)
    digest = payload["categories"]["bracket"]["checkpoint"]["sha256"]
    with pytest.raises(ConfigError, match=r"sha256 is .*, expected .*changed after"):
        load_detector(found, sha256=digest)


def test_a_bundle_has_no_checkpoint(two_parts: Exported) -> None:
    path = two_parts.bundle / "infer_config.json"
    with pytest.raises(BundleError, match="is a bundle's document"):
        resolve_checkpoint(read(path), path)
