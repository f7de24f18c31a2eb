"""Shared fixtures: one small data set, each detector trained and exported once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

# Some tests import onnxruntime themselves, past `quiet_onnxruntime`: no telemetry from
# there either. It works only before the first import of onnxruntime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A script's `pytest &` and `nohup` leave SIGINT ignored, here and in every process that
# a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a busy machine is no finding. The same examples in every run.
settings.register_profile("tests", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("tests")

# Small enough to fit in a second, large enough for every tap of the backbones. What
# learns takes a few steps only: contracts hold at any of them.
SMALL_OPTIONS: dict[str, dict[str, Any]] = {
    "anomaly_dino": {
        "backbone": "dino_vit_tiny",
        "image_size": [70, 70],
        "bank_size": 100,
    },
    "dfm": {"image_size": [64, 64]},
    "efficientad": {
        "image_size": [64, 64],
        "width": 16,
        "channels": 64,
        "teacher_steps": 8,
        "steps": 16,
        "sigma_px": 1.0,
    },
    "knn": {"image_size": [64, 64]},
    "ensemble": {
        "members": {
            "bank": {
                "name": "patchcore",
                "preset": "fast",
                "options": {"image_size": [64, 64], "bank_size": 100},
            },
            "position": {"name": "padim", "options": {"image_size": [64, 64]}},
            "pixels": {"name": "pixel_stats", "options": {"image_size": [48, 48]}},
        }
    },
    "padim": {"image_size": [64, 64]},
    "patchcore": {
        "backbone": "efficientnet_lite0",
        "image_size": [64, 64],
        "sigma_px": 4.0,  # 8 would smooth a 64 px map away
        "score_share": 0.0,
        "bank_size": 100,
    },
    "pixel_stats": {"image_size": [64, 64]},
    "reverse_distillation": {
        "image_size": [64, 64],
        "width": 16,
        "code": 8,
        "steps": 16,
    },
    "stfpm": {"image_size": [64, 64], "steps": 16},
    "supersimplenet": {"image_size": [64, 64], "steps": 16, "hidden": 32},
}

# What a detector needs more to see a severe defect.
LEARNING_OPTIONS: dict[str, dict[str, Any]] = {
    "efficientad": {"teacher_steps": 150, "steps": 300, "learning_rate": 3e-3},
    "reverse_distillation": {"steps": 60},
    "stfpm": {"steps": 120, "learning_rate": 3e-3},
    "supersimplenet": {"steps": 60},
}


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str


# (name, what fills a new folder of that name) -> the folder
MakeOnce = Callable[[str, Callable[[Path], None]], Path]


@dataclass(frozen=True)
class Exported:
    """A finished run and its bundle."""

    name: str
    manifest: Path
    config: Path
    run: Path
    bundle: Path


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Tiny pictures gain nothing from threads, and waiting threads cost the others."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Give a function that runs `pyimgano ARGUMENTS` in this process."""
    from pyimgano.cli import main

    def run(*arguments: str | Path) -> CommandResult:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return CommandResult(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def made_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> MakeOnce:
    """Give a function that gives a folder, filled by the first process to ask for it.

    Tests run in several processes (pytest-xdist), which read it and change nothing.
    """
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # one of several processes
        base = base.parent  # of all of them, of this run alone

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def small_dataset(made_once: MakeOnce) -> Path:
    """Give the manifest of 20 train normals, 6 test normals and 6 defects."""
    from factories import write_dataset

    def make(folder: Path) -> None:
        write_dataset(
            folder, n_train=20, n_test_normal=6, n_test_defect=6, size=(64, 64)
        )

    return made_once("dataset", make) / "manifest.jsonl"


def config_payload(manifest: Path, detector: str = "pixel_stats") -> dict[str, Any]:
    """Give a training config that is quick: small pictures, no intervals."""
    return {
        "device": "cpu",
        "dataset": {"manifest_path": str(manifest)},
        "model": {"name": detector, "options": dict(SMALL_OPTIONS.get(detector, {}))},
        "evaluation": {"bootstrap_resamples": 0},
    }


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes a quick config; keywords replace whole blocks."""

    def make(manifest: Path, detector: str = "pixel_stats", **blocks: Any) -> Path:
        path = tmp_path / "config.json"
        payload = config_payload(manifest, detector) | blocks
        path.write_text(json.dumps(payload), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def exported(small_dataset: Path, made_once: MakeOnce) -> Callable[[str], Exported]:
    """Give a function that trains and exports a detector, once per session."""
    from pyimgano.cli import main

    def make(name: str) -> Exported:
        def train_and_export(folder: Path) -> None:
            config, run = folder / "config.json", folder / "run"
            config.write_text(
                json.dumps(config_payload(small_dataset, name)), encoding="utf-8"
            )
            assert main(["train", "--config", str(config), "--output", str(run)]) == 0
            export = ["bundle", "export", "--run", str(run)]
            assert main([*export, "--output", str(folder / "bundle")]) == 0

        folder = made_once(f"exported_{name}", train_and_export)
        config, run, bundle = (
            folder / part for part in ("config.json", "run", "bundle")
        )
        return Exported(name, small_dataset, config, run, bundle)

    return make


@pytest.fixture(scope="session")
def two_parts(made_once: MakeOnce) -> Exported:
    """Give a run of two categories with its infer_config.json and its bundle."""
    from pyimgano.cli import main
    from pyimgano.datasets.generated_parts import write_parts

    def train_and_export(folder: Path) -> None:
        manifest = write_parts(
            folder / "data",
            parts=("bracket", "connector"),
            n_train=12,
            n_test_normal=3,
            n_test_defect=3,
            size=(64, 64),
            seed=0,
        )
        config = folder / "config.json"
        config.write_text(json.dumps(config_payload(manifest)), encoding="utf-8")
        command = ["train", "--config", str(config), "--output", str(folder / "run")]
        assert main([*command, "--export-infer-config", "--export-bundle"]) == 0

    folder = made_once("two parts é", train_and_export)
    manifest, run = folder / "data" / "manifest.jsonl", folder / "run"
    return Exported(
        "pixel_stats", manifest, folder / "config.json", run, run / "bundle"
    )
