"""`--force` replaces what we wrote, and never what somebody still needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CommandResult, Exported, config_payload
from factories import write_dataset

Run = Callable[..., CommandResult]


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy_of_run(made: Exported, folder: Path) -> Path:
    return Path(shutil.copytree(made.run, folder))


def test_train_keeps_the_folder_that_holds_its_config_and_pictures(
    tmp_path: Path, run_cli: Run
) -> None:
    folder = tmp_path / "dd"
    manifest = write_dataset(folder, n_train=4, size=(64, 64))
    config = folder / "config.json"
    config.write_text(json.dumps(config_payload(manifest)))
    (folder / "report.json").write_text("{}")  # even if it looks like one of ours
    before = files_in(folder)
    done = run_cli("train", "--config", config, "--output", folder, "--force")
    assert done.code == 2
    assert f"would delete {config}" in done.stderr
    assert files_in(tmp_path) == {f"dd/{name}": data for name, data in before.items()}


def test_train_keeps_the_folder_of_its_pictures(
    tmp_path: Path, make_config: Callable[..., Path], run_cli: Run
) -> None:
    manifest = write_dataset(tmp_path / "data", n_train=20, size=(64, 64))
    output = next(p for p in (tmp_path / "data").iterdir() if p.is_dir())
    (output / "report.json").write_text("{}")
    before = files_in(tmp_path / "data")
    config = make_config(manifest)
    done = run_cli("train", "--config", config, "--output", output, "--force")
    assert done.code == 2
    assert "which is still needed" in done.stderr
    assert files_in(tmp_path / "data") == before


def test_train_keeps_a_folder_that_we_did_not_write(
    small_dataset: Path,
    tmp_path: Path,
    make_config: Callable[..., Path],
    run_cli: Run,
) -> None:
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "chapter.txt").write_text("three years")
    config = make_config(small_dataset)
    done = run_cli("train", "--config", config, "--output", output, "--force")
    assert done.code == 2
    assert "none of report.json, infer_config.json, overview.html" in done.stderr
    assert files_in(output) == {"chapter.txt": b"three years"}


def test_export_keeps_the_run_that_it_reads(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    run = copy_of_run(exported("pixel_stats"), tmp_path / "run")
    before = files_in(run)
    done = run_cli("bundle", "export", "--run", run, "--output", run, "--force")
    assert done.code == 2
    assert f"would delete {run}" in done.stderr
    assert files_in(run) == before


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize(
    "output",
    [
        *("categories/bracket", "checkpoints", "artifacts", "artifacts/new"),
        *("elsewhere", "bundle/more", "other/../categories"),
    ],
)
def test_export_writes_nothing_into_its_run(
    output: str,
    force: tuple[str, ...],
    exported: Callable[[str], Exported],
    tmp_path: Path,
    run_cli: Run,
) -> None:
    run = copy_of_run(exported("pixel_stats"), tmp_path / "run")
    before = files_in(run)
    done = run_cli("bundle", "export", "--run", run, "--output", run / output, *force)
    assert done.code == 2
    assert f"lies in the run {run}, which it would change" in done.stderr
    assert files_in(run) == before


def test_export_replaces_the_bundle_that_train_made_in_the_run(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    run = copy_of_run(exported("pixel_stats"), tmp_path / "run")
    command = ["bundle", "export", "--run", run, "--output", run / "bundle"]
    assert run_cli(*command, "--goldens", "none").code == 0
    assert run_cli(*command, "--goldens", "none", "--force").code == 0


@pytest.mark.parametrize("output", [".", "run", "bundle"])
def test_benchmark_keeps_the_run_and_the_bundle_that_it_compares(
    output: str, exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    made = exported("pixel_stats")
    bench = tmp_path / "bench"
    run = copy_of_run(made, bench / "run")
    bundle = Path(shutil.copytree(made.bundle, bench / "bundle"))
    (bench / "report.json").write_text("{}")
    before = files_in(bench)
    command = ["benchmark", "--run", run, "--bundle", bundle]
    done = run_cli(*command, "--output", bench / output, "--force")
    assert done.code == 2
    assert "would delete" in done.stderr
    assert files_in(bench) == before


def test_benchmark_keeps_the_manifest_that_it_trains_on(
    tmp_path: Path, run_cli: Run
) -> None:
    manifest = write_dataset(tmp_path / "data", n_train=4, size=(64, 64))
    (tmp_path / "data" / "report.json").write_text("{}")
    before = files_in(tmp_path / "data")
    command = ["benchmark", "--dataset", "manifest", "--manifest-path", manifest]
    done = run_cli(*command, "--output", tmp_path / "data", "--force")
    assert done.code == 2
    assert f"would delete {manifest}" in done.stderr
    assert files_in(tmp_path / "data") == before


def test_the_demo_keeps_the_working_directory(
    tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # the command would leave it set
    monkeypatch.chdir(tmp_path)
    (tmp_path / "overview.html").write_text("old")
    done = run_cli("demo", "--output", ".", "--force")
    assert done.code == 2
    assert f"would delete {tmp_path}" in done.stderr
    assert "1/7" not in done.stderr
    assert files_in(tmp_path) == {"overview.html": b"old"}


def test_an_output_with_too_long_a_name_is_refused(
    small_dataset: Path,
    tmp_path: Path,
    make_config: Callable[..., Path],
    run_cli: Run,
) -> None:
    config = make_config(small_dataset)
    for length in (252, 300):  # the names beside it are longer than its own
        done = run_cli(
            "train", "--config", config, "--output", tmp_path / ("x" * length)
        )
        assert done.code == 2
        assert "cannot be written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_run_with_too_long_a_name_is_refused(tmp_path: Path, run_cli: Run) -> None:
    run, output = tmp_path / ("x" * 300), tmp_path / "bundle"
    done = run_cli("bundle", "export", "--run", run, "--output", output)
    assert done.code == 2
