"""The demo from drawn parts to the overview, small enough to run each time."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pyimgano.datasets.elpv import BLOCK, write_elpv
from pyimgano.datasets.manifest import read_manifest
from pyimgano.datasets.splits import split_manifest
from pyimgano.pipelines.demo import N_STEPS, DemoPlan, run_demo
from pyimgano.pipelines.demo_device import DEVICE_PROGRAM, refuse_disagreement
from pyimgano.reporting.overview_facts import Overview
from pyimgano.workbench.artifacts import open_run
from pyimgano.workbench.config import load_config
from pyimgano.workbench.runner import load_splits
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.errors import ConfigError, DatasetError, ParityError

SCORE_REL = 1e-5  # the promise; measured 2e-7

PLAN = DemoPlan(
    model="pixel_stats",
    options={"image_size": [64, 64]},
    parts=("bracket", "washer"),
    n_train=12,
    n_test_normal=4,
    n_test_defect=4,
    size=(64, 64),
)


def silent(step: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True)
class Demo:
    """A finished demo, and what it said."""

    folder: Path
    overview: Overview
    said: list[str]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo") / "my demo"
    said: list[str] = []
    overview = run_demo(folder, PLAN, force=False, progress=silent, say=said.append)
    return Demo(folder, overview, said)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_folder_holds_every_result_and_nothing_unfinished(demo: Demo) -> None:
    assert sorted(path.name for path in demo.folder.iterdir()) == [
        "bundle",
        "config.json",
        "data",
        "device copy",
        "overview.html",
        "overview.png",
        "rows.jsonl",
        "run",
    ]
    assert [path.name for path in demo.folder.parent.iterdir()] == ["my demo"]


def test_the_device_scores_like_the_trained_model(demo: Demo) -> None:
    rows = {row["input"]: row for row in read_rows(demo.folder / "rows.jsonl")}
    run = open_run(demo.folder / "run")
    n_compared = 0
    for category in run.categories:
        for trained in read_rows(run.category_folder(category) / "per_image.jsonl"):
            row = rows[f"data/{trained['input']}"]
            assert row["category"] == category
            assert row["score"] == pytest.approx(trained["score"], rel=SCORE_REL)
            assert row["label"] == trained["label"]
            assert row["label_true"] == trained["label_true"]
            n_compared += 1
    assert n_compared == len(rows) == 16


def test_the_overview_tells_the_rows_of_the_device(demo: Demo) -> None:
    rows = read_rows(demo.folder / "rows.jsonl")
    flagged = [row for row in rows if row["label"] == "anomaly"]
    found = sum(row["label_true"] for row in flagged)
    alarms = len(flagged) - found

    assert demo.overview.headline == (
        f"{found} of 8 defective parts found, {alarms} false "
        f"alarm{'' if alarms == 1 else 's'} in 8 good parts"
    )
    assert demo.overview.label_flips == 0
    assert demo.overview.max_rel_score_diff <= SCORE_REL
    page = (demo.folder / "overview.html").read_text(encoding="utf-8")
    assert demo.overview.headline in page
    assert all(part.map_path for c in demo.overview.categories for part in c.parts)


def test_the_run_stays_usable_where_it_lies_now(demo: Demo) -> None:
    for config in ("config.json", "run/config.json"):
        splits = load_splits(load_config(demo.folder / config))
        paths = [row.image_path for split in splits for row in split.test]
        assert all(demo.folder in path.parents for path in paths)
    everything = "".join(
        path.read_text("utf-8")
        for suffix in ("json", "jsonl", "html", "md")
        for path in demo.folder.rglob(f"*.{suffix}")
    )
    assert ".my demo.new" not in everything


def test_the_copy_equals_the_bundle(demo: Demo) -> None:
    bundle, copy = (open_bundle(demo.folder / n) for n in ("bundle", "device copy"))
    copy.verify_files()
    assert copy.sha256 == bundle.sha256


def test_every_step_is_numbered_and_timed(demo: Demo) -> None:
    numbers = [line.split()[0] for line in demo.said if not line.startswith(" ")]
    assert numbers == [f"{step}/{N_STEPS}" for step in range(1, N_STEPS + 1)]
    assert sum(line.endswith(" s") for line in demo.said) == N_STEPS


def run_on_device(statement: str) -> subprocess.CompletedProcess[str]:
    program = DEVICE_PROGRAM.replace("from pyimgano_runtime.cli import main", statement)
    command = [sys.executable, "-c", program.split("sys.exit")[0], "."]
    return subprocess.run(command, capture_output=True, check=False, text=True)


@pytest.mark.parametrize("module", ["torch", "onnx", "pyimgano", "pyimgano_exporters"])
def test_the_device_cannot_import(module: str) -> None:
    ended = run_on_device(f"import {module}")
    assert f"ModuleNotFoundError: import of {module} halted" in ended.stderr
    assert run_on_device("import numpy").returncode == 0


def test_a_copy_that_scores_differently_is_refused(demo: Demo) -> None:
    result = demo.overview.categories[0]
    refuse_disagreement(result)
    for change in ({"label_flips": 1}, {"max_rel_score_diff": 2e-5}):
        agreement = replace(result.agreement, **change)
        with pytest.raises(ParityError, match="does not score like the trained model"):
            refuse_disagreement(replace(result, agreement=agreement))


def test_an_existing_folder_is_refused_and_kept(demo: Demo) -> None:
    with pytest.raises(ConfigError, match="pass --force to replace it"):
        run_demo(demo.folder, PLAN, force=False, progress=silent, say=print)
    assert (demo.folder / "overview.html").is_file()


def test_a_demo_that_fails_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    old = tmp_path / "demo"
    old.mkdir()
    (old / "overview.html").write_text("old")
    one_good = replace(PLAN, n_train=1)  # cannot be given a threshold
    with pytest.raises(DatasetError, match="a threshold needs normals"):
        run_demo(old, one_good, force=True, progress=silent, say=lambda line: None)

    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert (old / "overview.html").read_text() == "old"


def test_the_command_refuses_an_unknown_detector_before_any_work(
    tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # the command would leave it set
    output = tmp_path / "demo"
    ended = run_cli("demo", "--output", output, "--model", "patchcor")
    assert ended.code == 2
    assert 'did you mean "patchcore"?' in ended.stderr
    assert "1/7" not in ended.stderr
    assert not output.exists()


def test_elpv_without_its_package_names_what_to_install(
    tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    output = tmp_path / "demo"
    ended = run_cli("demo", "--dataset", "elpv", "--output", output)
    assert ended.code == 2
    assert "pip install elpv-dataset" in ended.stderr
    assert "CC BY-NC-SA 4.0" in ended.stderr
    assert not output.exists()


@pytest.fixture
def elpv_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package like elpv-dataset: mono and poly cells, good, doubtful, defective."""
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    package = tmp_path / "site" / "elpv_dataset"
    (package / "data" / "images").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    lines = []
    for number in range(12 * BLOCK):
        name = f"images/cell{number:04d}.png"
        pixels = np.full((8, 8), number % 256, np.uint8)
        cv2.imwrite(str(package / "data" / name), pixels)
        probability = (0.0, 1.0, 0.0, 0.3333333333333333)[number % 4]
        lines.append(f"{name} {probability}  {'poly' if number % 5 == 0 else 'mono'}\n")
    (package / "data" / "labels.csv").write_text("".join(lines))
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def test_elpv_takes_sure_mono_cells_and_divides_no_block(
    elpv_package: Path, tmp_path: Path
) -> None:
    manifest = write_elpv(
        tmp_path / "data", n_train=20, n_test_normal=8, n_test_defect=5
    )
    (split,) = split_manifest(read_manifest(manifest))

    assert [len(split.train), len(split.test)] == [20, 13]
    assert not any(row.label for row in split.train)
    assert sum(row.label for row in split.test) == 5
    assert not {r.group for r in split.train} & {r.group for r in split.test}
    for row in (*split.train, *split.test):
        number = int(row.image_path.stem.removeprefix("cell"))
        original = elpv_package / "data" / "images" / row.image_path.name
        assert row.image_path.read_bytes() == original.read_bytes()
        assert number % 5 != 0  # poly
        assert number % 4 == (1 if row.label else number % 4 & 2)


def test_elpv_asked_for_more_cells_than_there_are_gives_all(
    elpv_package: Path, tmp_path: Path
) -> None:
    manifest = write_elpv(
        tmp_path / "data", n_train=10**6, n_test_normal=10**6, n_test_defect=10**6
    )
    rows = read_manifest(manifest)
    assert len({row.image for row in rows}) == len(rows)
    assert {row.label for row in rows} == {0, 1}
