"""Copies of exported bundles and runs that a test may spoil."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def copy_of(folder: Path, target: Path) -> Path:
    """The target, after the folder was copied there."""
    shutil.copytree(folder, target)
    return target


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place."""
    payload = json.loads(path.read_text(encoding="utf-8"))
    change(payload)
    path.write_text(json.dumps(payload), encoding="utf-8")


def edit_document(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change infer_config.json of a bundle."""
    edit_json(bundle / "infer_config.json", change)


def set_threshold(bundle: Path, value: float) -> None:
    """Give the category of a bundle another image threshold."""

    def change(document: dict[str, Any]) -> None:
        document["categories"]["bracket"]["thresholds"]["image"] = value

    edit_document(bundle, change)


def remove_goldens(bundle: Path) -> None:
    """Make a bundle as `--goldens none` makes it."""

    def change(document: dict[str, Any]) -> None:
        document["parity"]["goldens"] = []
        document["files"] = [
            entry
            for entry in document["files"]
            if not entry["path"].startswith("golden/")
        ]

    edit_document(bundle, change)
    shutil.rmtree(bundle / "golden")
