"""Suites: every cell once, failures alone, and on with it after a kill."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult, Exported
from factories import read_rows, write_dataset, write_manifest
from pyimgano.pipelines.cell_process import CellProcess
from pyimgano.pipelines.suite_file import load_suite, shipped_suites
from pyimgano_runtime.errors import ConfigError

Run = Callable[..., CommandResult]
QUICK = ("--no-process-costs", "--no-pixel-metrics")


def small(size: int, **more: Any) -> dict[str, Any]:
    return {"name": "pixel_stats", "options": {"image_size": [size, size]}} | more


def write_suite(path: Path, manifest: Path, models: list[Any], **more: Any) -> Path:
    dataset = {"dataset": "manifest", "manifest_path": str(manifest)}
    payload = {"models": models, "datasets": [dataset]} | more
    path.write_text(json.dumps(payload), encoding="utf-8")
    return path


def board(output: Path) -> list[dict[str, str]]:
    with (output / "leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def two_models(
    two_parts: Exported, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Give a suite file and its output: two models on two categories."""
    from pyimgano.cli import main

    folder = tmp_path_factory.mktemp("suite")
    models = [small(32, label="small"), small(48, label="large")]
    suite = write_suite(folder / "suite.json", two_parts.manifest, models)
    command = ["benchmark", "--suite", str(suite), "--output", str(folder / "out")]
    assert main([*command, *QUICK]) == 0
    return suite, folder / "out"


def test_the_leaderboard_has_a_row_for_each_cell_and_engine(
    two_models: tuple[Path, Path],
) -> None:
    rows = board(two_models[1])
    keys = ("model", "dataset", "category", "seed", "precision", "engine")
    found = {tuple(row[key] for key in keys) for row in rows}
    assert found == {
        (model, "manifest", category, "0", "fp32", engine)
        for model in ("small", "large")
        for category in ("bracket", "connector")
        for engine in ("torch", "onnx")
    }
    assert len(rows) == 8
    for row in rows:
        assert 0 <= float(row["image_auroc"]) <= 1
        assert float(row["latency_ms.p95"]) > 0
        assert (row["label_flips"] == "0") == (row["engine"] == "onnx")


def test_models_are_compared_in_pairs_on_the_same_pictures(
    two_models: tuple[Path, Path],
) -> None:
    text = (two_models[1] / "comparisons.csv").read_text("utf-8").splitlines()
    rows = list(csv.DictReader(text))
    assert len(rows) == 4  # two categories, two engines, one pair
    for row in rows:
        assert (row["model_a"], row["model_b"]) == ("small", "large")
        auroc = {
            other["model"]: float(other["image_auroc"])
            for other in board(two_models[1])
            if (other["category"], other["engine"]) == (row["category"], row["engine"])
        }
        difference = auroc["large"] - auroc["small"]  # B minus A
        assert float(row["image_auroc_difference"]) == pytest.approx(difference)
        assert float(row["low"]) <= float(row["image_auroc_difference"])
        assert float(row["image_auroc_difference"]) <= float(row["high"])


def test_each_cell_is_a_whole_benchmark(two_models: tuple[Path, Path]) -> None:
    cells = sorted((two_models[1] / "cells").iterdir())
    assert len(cells) == 4
    for cell in cells:
        assert (cell / "bundle" / "infer_config.json").is_file()
        assert (cell / "run" / "report.json").is_file()
        report = json.loads((cell / "report.json").read_text("utf-8"))
        assert report["kind"] == "benchmark"


def test_finished_cells_are_not_run_again(
    two_models: tuple[Path, Path], run_cli: Run
) -> None:
    suite, output = two_models
    before = {p: p.stat().st_mtime_ns for p in output.rglob("cells/[!.]*/report.json")}
    # Killed right after the cell was finished, the suite had not deleted this yet.
    stale = output / "failures" / f"{next(iter(before)).parent.name}.json"
    stale.parent.mkdir(exist_ok=True)
    stale.write_text('{"kind": "Crash", "error": "x"}', encoding="utf-8")
    done = run_cli(
        *("benchmark", "--suite", suite, "--output", output, "--resume", *QUICK)
    )
    assert done.code == 0, done.stderr
    assert "4 of 4 cells are finished already" in done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert not stale.exists()


def test_a_cell_that_is_killed_while_it_speaks_has_crashed() -> None:
    speaks = 'input(); print(\'{"progress": ["epo\', end="")'
    process = subprocess.Popen(
        [sys.executable, "-c", speaks], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    told = CellProcess({}, threads=1)._follow(process, lambda *progress: None)
    assert (told, process.wait()) == (None, 0)


def test_an_existing_output_is_refused_with_both_ways_on(
    two_models: tuple[Path, Path], run_cli: Run
) -> None:
    suite, output = two_models
    done = run_cli("benchmark", "--suite", suite, "--output", output, *QUICK)
    assert done.code == 2
    assert "--force" in done.stderr
    assert "--resume" in done.stderr


def test_another_suite_does_not_go_on_in_this_folder(
    two_models: tuple[Path, Path], two_parts: Exported, tmp_path: Path, run_cli: Run
) -> None:
    other = write_suite(tmp_path / "other.json", two_parts.manifest, [small(40)])
    done = run_cli(
        *("benchmark", "--suite", other, "--output", two_models[1], "--resume", *QUICK)
    )
    assert done.code == 2
    assert "was made by another suite (differs in: cells)" in done.stderr


def test_a_cell_that_fails_is_told_and_the_others_finish(
    two_parts: Exported, tmp_path: Path, run_cli: Run
) -> None:
    """One category holds a picture that cannot be read."""
    data = tmp_path / "data"
    shutil.copytree(two_parts.manifest.parent, data)
    manifest = data / two_parts.manifest.name
    bad = next(row for row in read_rows(manifest) if row["category"] == "connector")
    broken = data / bad["image_path"]
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    suite = write_suite(tmp_path / "suite.json", manifest, [small(32)])
    output = tmp_path / "out"
    command = ("benchmark", "--suite", suite, "--output", output, *QUICK)
    done = run_cli(*command)
    assert done.code == 1
    assert "1 of 2 cells finished, 1 failed" in done.stdout
    assert "DatasetError" in done.stderr
    assert str(broken) in done.stderr
    (record,) = (output / "failures").iterdir()
    failure = json.loads(record.read_text("utf-8"))
    assert failure["kind"] == "DatasetError"
    assert "Traceback" in failure["traceback"]
    assert {row["category"] for row in board(output)} == {"bracket"}
    assert "connector" in (output / "leaderboard.html").read_text("utf-8")

    # The data is mended: only the failed cell runs.
    broken.write_bytes(whole)
    done = run_cli(*command, "--resume")
    assert done.code == 0, done.stderr
    assert "1 of 2 cells are finished already" in done.stderr
    assert list((output / "failures").iterdir()) == []
    assert {row["category"] for row in board(output)} == {"bracket", "connector"}


@pytest.mark.slow  # three cells, each in a process of its own
def test_a_killed_suite_goes_on_where_it_was(tmp_path: Path, run_cli: Run) -> None:
    manifest = write_dataset(tmp_path / "data", size=(32, 32))
    models = [small(side, label=f"m{side}") for side in (16, 24, 32)]
    suite = write_suite(tmp_path / "suite.json", manifest, models)
    output = tmp_path / "out"
    command = ["benchmark", "--suite", str(suite), "--output", str(output), *QUICK]
    process = subprocess.Popen(
        [sys.executable, "-m", "pyimgano.cli", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("cells/[!.]*/report.json")):
        assert time.monotonic() < deadline, "no cell finished"
        assert process.poll() is None, "the suite ended by itself"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = list(output.glob("cells/[!.]*/report.json"))
    assert 1 <= len(finished) < 3
    before = {path: path.stat().st_mtime_ns for path in finished}

    done = run_cli(*command, "--resume", "--jobs", "2")
    assert done.code == 0, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in finished}
    assert [row["model"] for row in board(output)] == [
        *("m16", "m16", "m24", "m24", "m32", "m32")
    ]
    leftovers = [p for p in (output / "cells").iterdir() if p.name.startswith(".")]
    assert leftovers == []


@pytest.fixture(scope="module")
def finished_cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of data, suite file and output of a suite of one cell."""
    from pyimgano.cli import main

    folder = tmp_path_factory.mktemp("one cell")
    manifest = write_dataset(folder / "data", size=(32, 32))
    suite = write_suite(folder / "suite.json", manifest, [small(16)])
    command = ["benchmark", "--suite", str(suite), "--output", str(folder / "out")]
    assert main([*command, *QUICK]) == 0
    return folder


@pytest.fixture
def one_cell(finished_cell: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Give manifest, suite file and an output of its own that a test may change."""
    output = tmp_path / "out"
    shutil.copytree(finished_cell / "out", output)
    manifest = finished_cell / "data" / "manifest.jsonl"
    return manifest, finished_cell / "suite.json", output


def test_a_cell_whose_data_changed_runs_again(
    one_cell: tuple[Path, Path, Path], run_cli: Run
) -> None:
    manifest, suite, output = one_cell
    before, rows = board(output)[0]["test_fingerprint"], read_rows(manifest)
    write_manifest(manifest, rows[:-1])
    done = run_cli(
        *("benchmark", "--suite", suite, "--output", output, "--resume", *QUICK)
    )
    write_manifest(manifest, rows)  # as the other tests have it
    assert done.code == 0, done.stderr
    assert "runs again: its rows in the data have changed" in done.stderr
    assert board(output)[0]["test_fingerprint"] != before


def test_a_damaged_cell_runs_again(
    one_cell: tuple[Path, Path, Path], run_cli: Run
) -> None:
    _, suite, output = one_cell
    (rows,) = output.glob("cells/[!.]*/categories/*/per_image.jsonl")
    rows.write_text("{", encoding="utf-8")
    done = run_cli(
        *("benchmark", "--suite", suite, "--output", output, "--resume", *QUICK)
    )
    assert done.code == 0, done.stderr
    assert "runs again: " in done.stderr
    assert len(rows.read_text("utf-8").splitlines()) > 1


def test_a_resumed_suite_keeps_its_threads(
    one_cell: tuple[Path, Path, Path], run_cli: Run
) -> None:
    _, suite, output = one_cell
    path = output / "suite.json"
    document = json.loads(path.read_text("utf-8")) | {"threads": 3}
    path.write_text(json.dumps(document), encoding="utf-8")
    shutil.rmtree(next(output.glob("cells/[!.]*")))
    command = ("benchmark", "--suite", suite, "--output", output, "--resume", *QUICK)
    assert run_cli(*command).code == 0
    (report,) = output.glob("cells/[!.]*/report.json")
    assert json.loads(report.read_text("utf-8"))["threads"] == 3


def test_force_spares_the_suite_file_and_begins_anew_elsewhere(
    one_cell: tuple[Path, Path, Path], run_cli: Run
) -> None:
    _, suite, output = one_cell
    inside = output / "suite-of-mine.json"
    shutil.copy(suite, inside)
    command = ("benchmark", "--output", output, "--force", *QUICK)
    done = run_cli(*command, "--suite", inside)
    assert done.code == 2
    assert "which is still needed" in done.stderr
    assert inside.is_file()
    assert run_cli(*command, "--suite", suite).code == 0
    assert not inside.exists()


def test_resume_and_force_contradict_each_other(
    one_cell: tuple[Path, Path, Path], run_cli: Run
) -> None:
    _, suite, output = one_cell
    done = run_cli(
        *("benchmark", "--suite", suite, "--output", output, "--resume", "--force")
    )
    assert done.code == 2
    assert "--resume, --force: one goes on, the other begins anew" in done.stderr


@pytest.mark.slow  # as above
def test_an_interrupted_suite_leaves_no_process_and_shows_what_is_finished(
    tmp_path: Path,
) -> None:
    manifest = write_dataset(tmp_path / "data", size=(32, 32))
    models = [small(side, label=f"m{side}") for side in (16, 24, 32)]
    suite = write_suite(tmp_path / "suite.json", manifest, models)
    output = tmp_path / "out"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pyimgano.cli", "benchmark", *QUICK),
            *("--suite", str(suite), "--output", str(output)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # A shell's background job ignores Ctrl-C, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("cells/[!.]*/report.json")):
        assert time.monotonic() < deadline, "no cell finished"
        assert process.poll() is None, "the suite ended by itself"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].rstrip().endswith("interrupted")
    assert process.returncode == 130
    assert len(board(output)) >= 2
    cells = [p.name for p in Path("/proc").glob("[0-9]*") if _is_cell_of(p, output)]
    assert cells == []


def _is_cell_of(process: Path, output: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
        files = [fd.readlink() for fd in (process / "fd").iterdir()]
    except OSError:
        return False
    return b"suite_cell" in command and any(str(output) in str(file) for file in files)


@pytest.mark.skipif(os.name == "nt", reason="limits of a process are POSIX")
def test_a_full_disk_fails_its_cells_and_keeps_what_is_finished(
    two_models: tuple[Path, Path], two_parts: Exported, tmp_path: Path
) -> None:
    """A quota: no file may grow beyond 30 kB, so no bundle can be written."""
    import resource

    output = tmp_path / "out"
    suite = write_suite(tmp_path / "suite.json", two_parts.manifest, [small(32)])
    limit = (30_000, 30_000)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pyimgano.cli", "benchmark"),
            *("--suite", str(suite), "--output", str(output), *QUICK),
        ],
        capture_output=True,
        encoding="utf-8",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert list(output.glob("cells/*")) == []
    assert json.loads((output / "report.json").read_text())["state"] == "incomplete"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": []}, 'model: unknown key (did you mean "models"?)'),
        ({"models": []}, "models: found none"),
        ({"models": ["patchcor"]}, 'did you mean "patchcore"?'),
        ({"models": [{"name": "padim", "preset": "fats"}]}, 'did you mean "fast"?'),
        ({"models": [small(32), small(48)]}, 'two entries are called "pixel_stats"'),
        ({"models": [{"nam": "padim"}]}, 'did you mean "name"?'),
        ({"models": [{"name": "padim", "options": {"x": 1}}]}, "x: unknown key"),
        ({"datasets": []}, "datasets: found none"),
        ({"datasets": [{"dataset": "mvtec"}]}, "datasets[0].root: missing"),
        ({"datasets": [{"dataset": "manifest"}]}, "manifest_path: missing"),
        ({"datasets": [{"dataset": "mvtek", "root": "."}]}, 'did you mean "mvtec"?'),
        ({"seeds": [0, 0]}, "seeds: the same stands there twice"),
        ({"seeds": [-1]}, "found -1"),
        ({"precisions": ["fp8"]}, 'precisions: "fp8"'),
        ({"precisions": []}, "precisions: found none"),
    ],
)
def test_a_suite_file_with_a_mistake_is_refused(
    change: dict[str, Any], expected: str, small_dataset: Path, tmp_path: Path
) -> None:
    path = write_suite(tmp_path / "suite.json", small_dataset, [small(32)])
    payload = json.loads(path.read_text("utf-8")) | change
    path.write_text(json.dumps(payload), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_suite(str(path))
    assert expected in str(refused.value)


def test_a_category_that_is_not_there_is_refused_before_any_cell_runs(
    small_dataset: Path, tmp_path: Path, run_cli: Run
) -> None:
    dataset = {"manifest_path": str(small_dataset), "categories": ["bracet"]}
    path = write_suite(
        tmp_path / "suite.json", small_dataset, [small(32)], datasets=[dataset]
    )
    done = run_cli("benchmark", "--suite", path, "--output", tmp_path / "out")
    assert done.code == 2
    assert 'no category "bracet" (did you mean "bracket"?)' in done.stderr
    assert not (tmp_path / "out").exists()


def test_only_models_and_datasets_are_required(
    small_dataset: Path, tmp_path: Path
) -> None:
    path = write_suite(tmp_path / "suite.json", small_dataset, ["padim"])
    suite = load_suite(str(path))
    assert suite.seeds == (0,)
    assert suite.precisions == ("fp32",)
    assert suite.datasets[0].categories == ("bracket",)
    assert suite.datasets[0].name == small_dataset.parent.name


def test_relative_paths_stand_on_the_file_or_on_the_suite_root(
    small_dataset: Path, tmp_path: Path
) -> None:
    dataset = {"manifest_path": f"{small_dataset.parent.name}/manifest.jsonl"}
    path = write_suite(
        tmp_path / "suite.json", small_dataset, [small(32)], datasets=[dataset]
    )
    with pytest.raises(ConfigError, match="manifest"):
        load_suite(str(path))
    suite = load_suite(str(path), base=small_dataset.parent.parent)
    assert suite.datasets[0].source.manifest_path == small_dataset


def test_the_shipped_suites_are_listed_and_read(tmp_path: Path, run_cli: Run) -> None:
    done = run_cli("benchmark", "--list-suites")
    assert done.stdout.splitlines() == shipped_suites()
    assert {"mvtec", "visa", "btad", "reference"} <= set(shipped_suites())
    for name in shipped_suites():
        # Nothing is wrong with any of them but that the data is not here.
        with pytest.raises(ConfigError) as refused:
            load_suite(name, base=tmp_path)
        assert f"{name}: datasets[0]: " in str(refused.value)
        assert "unknown" not in str(refused.value)


def test_an_unknown_suite_names_the_shipped_ones(run_cli: Run, tmp_path: Path) -> None:
    done = run_cli("benchmark", "--suite", "mvtek", "--output", tmp_path / "out")
    assert done.code == 2
    assert 'did you mean "mvtec"?' in done.stderr


def test_only_some_cells_are_run_and_the_others_stay_for_later(
    run_cli: Run, tmp_path: Path
) -> None:
    manifest = write_dataset(tmp_path / "data", size=(32, 32))
    models = [small(side, label=f"m{side}") for side in (16, 24, 32)]
    suite = write_suite(tmp_path / "suite.json", manifest, models)
    output = tmp_path / "out"
    command = ("benchmark", "--suite", suite, "--output", output, *QUICK)
    done = run_cli(*command, "--only", "bracket-m16")
    assert done.code == 0, done.stderr
    assert len(board(output)) == 2  # engines
    assert json.loads((output / "report.json").read_text())["state"] == "incomplete"
    done = run_cli(*command, "--resume", "--only", "m16", "--only", "m24")
    assert "1 of 3 cells are finished already" in done.stderr
    assert [row["model"] for row in board(output)] == ["m16", "m16", "m24", "m24"]


def test_only_of_nothing_is_refused_naming_models_and_data(
    run_cli: Run, two_parts: Exported, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path / "suite.json", two_parts.manifest, [small(32)])
    command = ("benchmark", "--suite", suite, "--output", tmp_path / "out")
    refused = run_cli(*command, "--only", "padim")
    assert refused.code == 2
    assert "its models: pixel_stats; its data sets: " in refused.stderr
    assert not (tmp_path / "out").exists()
