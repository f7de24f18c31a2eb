"""A bundle runs anywhere: other folder, read-only, no home, the training gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult, Exported
from factories import read_rows

Run = Callable[..., CommandResult]
Export = Callable[[str], Exported]

RUNTIME = Path(__file__).resolve().parents[1] / "runtime" / "src"


def on_device(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the runtime as a process in the root folder, of a user without a home."""
    return subprocess.run(
        [sys.executable, "-m", "pyimgano_runtime", *map(str, arguments)],
        cwd="/",
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(RUNTIME),
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "TMPDIR": str(home / "tmp"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def read_only(folder: Path) -> None:
    """Take the right to write from everything in a folder."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def writable(folder: Path) -> None:
    """Give it back, so that the folder can be deleted."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("name", ["pixel_stats", "patchcore"])
def test_a_bundle_far_from_its_origin_gives_the_same_scores_to_the_bit(
    name: str, exported: Export, run_cli: Run, tmp_path: Path
) -> None:
    made = exported(name)
    run = Path(shutil.copytree(made.run, tmp_path / "training" / "run"))
    bundle = tmp_path / "training" / "bundle"
    assert run_cli("bundle", "export", "--run", run, "--output", bundle).code == 0
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for row in read_rows(made.manifest):
        if row["split"] == "test":
            source = made.manifest.parent / row["image_path"]
            shutil.copy(source, pictures / row["image_path"].replace("/", "_"))
    before = rows_of(on_device(Path.home(), "infer", "--bundle", bundle, pictures))

    place = tmp_path / "línea 3" / "Prüfplatz 検査"
    place.mkdir(parents=True)
    shutil.copytree(bundle, place / "release 1 (copy)")
    read_only(place)
    (tmp_path / "training").rename(tmp_path / "gone")
    nowhere = tmp_path / "no" / "such" / "home"
    try:
        copy = place / "release 1 (copy)"
        check = on_device(nowhere, "check", copy)
        after = rows_of(on_device(nowhere, "infer", "--bundle", copy, pictures))
    finally:
        writable(place)
    assert check.returncode == 0, check.stderr
    assert [row["score"] for row in after] == [row["score"] for row in before]
    assert [without_times(row) for row in after] == [
        without_times(row) for row in before
    ]
    assert len(after) == 12
    assert not nowhere.exists()  # onnxruntime would leave its machine identifier there


def rows_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "ms"}


def test_nothing_in_a_bundle_names_the_machine_that_made_it(
    exported: Export,
) -> None:
    made = exported("pixel_stats")
    for path in made.bundle.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for place in (made.run, made.manifest.parent, Path.home()):
                if len(place.parts) > 2:  # shorter ones are words of other texts
                    assert str(place).encode() not in data, path.name
