"""`pyimgano infer`: one way from a document, a run or a detector to the same rows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult, Exported
from factories import corrupt_copy, read_rows
from pyimgano.infer_cli import main as infer_main
from pyimgano_runtime.cli import main as runtime_main

Run = Callable[..., CommandResult]

ROW_KEYS = [
    *("schema_version", "input", "category", "ok", "score", "p_value", "threshold"),
    *("threshold_source", "label", "decision", "regions", "ms", "bundle_sha256"),
    "error",
]


@pytest.fixture
def document(two_parts: Exported) -> Path:
    """The document of a run with the categories bracket and connector."""
    return two_parts.run / "artifacts" / "infer_config.json"


def pictures_of(made: Exported, split: str, category: str = "bracket") -> list[Path]:
    return [
        made.manifest.parent / row["image_path"]
        for row in read_rows(made.manifest)
        if row["category"] == category and row["split"] == split
    ]


@pytest.fixture
def pictures(two_parts: Exported) -> list[Path]:
    """The test pictures of the category bracket."""
    return pictures_of(two_parts, "test")


@pytest.fixture
def good(two_parts: Exported) -> Path:
    """The folder of the good pictures of the category bracket."""
    return pictures_of(two_parts, "train")[0].parent


def rows_of(result: CommandResult) -> list[dict[str, Any]]:
    assert result.code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_runs_document_gives_the_rows_of_the_runtime(
    run_cli: Run, document: Path, pictures: list[Path]
) -> None:
    command = ["infer", "--infer-config", document, "--infer-category", "bracket"]
    rows = rows_of(run_cli(*command, *pictures))
    assert [row["input"] for row in rows] == [str(path) for path in pictures]
    assert all(list(row) == ROW_KEYS for row in rows)
    assert {row["threshold_source"] for row in rows} == {"run: conformal"}
    assert {row["category"] for row in rows} == {"bracket"}
    assert all(row["ok"] and row["error"] is None for row in rows)


def test_a_run_goes_the_same_way_as_its_document(
    run_cli: Run, two_parts: Exported, document: Path, pictures: list[Path]
) -> None:
    rest = ["--infer-category", "bracket", *pictures]
    of_file = rows_of(run_cli("infer", "--infer-config", document, *rest))
    of_run = rows_of(run_cli("infer", "--from-run", two_parts.run, *rest))
    assert [without_times(r) for r in of_run] == [without_times(r) for r in of_file]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "ms"}


def test_a_bundles_document_gives_the_very_rows_of_the_runtime(
    run_cli: Run,
    two_parts: Exported,
    pictures: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = two_parts.bundle / "infer_config.json"
    command = ["infer", "--infer-config", config, "--infer-category", "bracket"]
    ours = rows_of(run_cli(*command, *pictures))
    arguments = ["infer", "--bundle", str(two_parts.bundle), "--category", "bracket"]
    assert runtime_main([*arguments, *map(str, pictures)]) == 0
    lines = capsys.readouterr().out.splitlines()
    theirs = [json.loads(line) for line in lines]
    assert [without_times(r) for r in ours] == [without_times(r) for r in theirs]


def test_the_onnx_engine_of_a_run_scores_bit_for_bit_like_its_bundle(
    run_cli: Run, two_parts: Exported, pictures: list[Path]
) -> None:
    rest = ["--infer-category", "bracket", "--threads", "1", *pictures]
    bundle = rows_of(run_cli("infer", "--infer-config", two_parts.bundle, *rest))
    command = ["infer", "--from-run", two_parts.run, "--engine", "onnx"]
    ours = rows_of(run_cli(*command, *rest))
    assert [row["score"] for row in ours] == [row["score"] for row in bundle]


def test_several_categories_and_none_named_is_refused_with_their_names(
    run_cli: Run, two_parts: Exported, document: Path, pictures: list[Path]
) -> None:
    for source in (["--infer-config", document], ["--from-run", two_parts.run]):
        done = run_cli("infer", *source, *pictures)
        assert done.code == 2
        assert "bracket, connector" in done.stderr
        assert done.stdout == ""


def test_a_threshold_flag_wins_and_the_rows_say_so(
    run_cli: Run, document: Path, pictures: list[Path]
) -> None:
    command = ["infer", "--infer-config", document, "--infer-category", "bracket"]
    rows = rows_of(run_cli(*command, "--threshold", "0", *pictures))
    assert {row["threshold_source"] for row in rows} == {"--threshold"}
    assert {row["label"] for row in rows} == {"anomaly"}


def test_another_model_needs_a_threshold_of_its_own(
    run_cli: Run, two_parts: Exported, document: Path, pictures: list[Path]
) -> None:
    other = two_parts.run / "checkpoints" / "connector" / "model.safetensors"
    command = ["infer", "--infer-config", document, "--infer-category", "bracket"]
    refused = run_cli(*command, "--checkpoint", other, *pictures)
    assert refused.code == 2
    assert "is another model than the one whose calibration stands" in refused.stderr
    own = rows_of(run_cli(*command, *pictures))
    chosen = ["--checkpoint", other, "--threshold", "2.5"]
    rows = rows_of(run_cli(*command, *chosen, *pictures))
    assert [row["score"] for row in own] != [row["score"] for row in rows]
    assert {row["p_value"] for row in rows} == {None}
    assert {row["threshold_source"] for row in rows} == {"--threshold"}
    printed = effective(run_cli, *command[1:], *chosen)
    assert printed["checkpoint"]["path"] == str(other)
    assert printed["origins"]["model.options.sigma_px"] == "flag"
    assert printed["thresholds"]["pixel"] is None


def test_the_documents_own_checkpoint_may_lie_elsewhere(
    run_cli: Run, document: Path, pictures: list[Path], tmp_path: Path
) -> None:
    run = document.parent.parent
    moved = shutil.copy(run / "checkpoints" / "bracket" / "model.safetensors", tmp_path)
    lost = shutil.copy(document, tmp_path)
    command = ["infer", "--infer-config", lost, "--infer-category", "bracket"]
    assert run_cli(*command, *pictures).code == 2
    rows = rows_of(run_cli(*command, "--checkpoint", moved, *pictures))
    assert {row["threshold_source"] for row in rows} == {"run: conformal"}
    assert all(row["p_value"] is not None for row in rows)


def test_a_run_whose_checkpoint_was_swapped_is_refused_everywhere(
    run_cli: Run, two_parts: Exported, pictures: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_parts.run, run)
    own = run / "checkpoints" / "bracket" / "model.safetensors"
    shutil.copy(run / "checkpoints" / "connector" / "model.safetensors", own)
    rest = ["--infer-category", "bracket", *pictures]
    for command in (
        ["infer", "--from-run", run, *rest],
        ["infer", "--infer-config", run / "artifacts", *rest],
        ["bundle", "export", "--run", run, "--output", tmp_path / "b"],
        ["bundle", "verify", two_parts.bundle, "--run", run],
        [
            *("benchmark", "--run", run, "--bundle", two_parts.bundle),
            *("--output", tmp_path / "bench"),
        ],
    ):
        done = run_cli(*command)
        assert done.code == 2, command
        assert "the checkpoint was changed" in done.stdout + done.stderr, command


def test_only_the_checkpoint_that_is_needed_must_be_there(
    run_cli: Run, two_parts: Exported, pictures: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_parts.run, run)
    shutil.rmtree(run / "checkpoints" / "connector")
    command = ["infer", "--from-run", run, "--infer-category"]
    assert len(rows_of(run_cli(*command, "bracket", *pictures))) == len(pictures)
    missing = run_cli(*command, "connector", *pictures)
    assert missing.code == 2
    assert "the checkpoint cannot be read" in missing.stderr


def test_a_score_on_the_threshold_is_no_disagreement_of_engines(
    run_cli: Run, two_parts: Exported, pictures: list[Path]
) -> None:
    rest = ["--infer-category", "bracket", pictures[0]]
    score = rows_of(run_cli("infer", "--from-run", two_parts.run, *rest))[0]["score"]
    command = ["infer", "--from-run", two_parts.run, "--engine", "onnx"]
    for threshold in (score * 0.999999, score, score * 1.000001):
        assert run_cli(*command, "--threshold", f"{threshold}", *rest).code == 0


def test_rows_are_not_written_into_the_bundle_nor_over_a_foreign_file(
    run_cli: Run, two_parts: Exported, pictures: list[Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(two_parts.bundle, tmp_path / "b"))
    command = ["infer", "--infer-config", bundle, "--infer-category", "bracket"]
    inside = run_cli(*command, "--output", bundle / "rows.jsonl", pictures[0])
    assert inside.code == 2
    assert "which stays as it was released" in inside.stderr
    assert not (bundle / "rows.jsonl").exists()
    notes = tmp_path / "notes.txt"
    notes.write_text("precious")
    foreign = run_cli(*command, "--output", notes, "--force", pictures[0])
    assert foreign.code == 2
    assert notes.read_text() == "precious"


def test_a_document_that_is_a_pipe_is_refused_not_waited_for(
    run_cli: Run, pictures: list[Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "infer_config.json")
    done = run_cli("infer", "--infer-config", tmp_path, *pictures)
    assert done.code == 2
    assert "is no regular file" in done.stderr


def test_a_file_that_a_bundle_does_not_list_is_named(
    run_cli: Run, two_parts: Exported, pictures: list[Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(two_parts.bundle, tmp_path / "b"))
    (bundle / "junk.txt").write_text("?")
    command = ["infer", "--infer-config", bundle, "--infer-category", "bracket"]
    assert "junk.txt is in the bundle folder" in run_cli(*command, *pictures).stderr


def test_a_damaged_picture_is_one_error_row_and_exit_1(
    run_cli: Run, document: Path, pictures: list[Path], tmp_path: Path
) -> None:
    shutil.copy(pictures[0], tmp_path / "whole.png")
    broken = corrupt_copy(tmp_path / "whole.png")
    command = ["infer", "--infer-config", document, "--infer-category", "bracket"]
    done = run_cli(*command, pictures[0], broken, pictures[1])
    assert done.code == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["ok"] for row in rows] == [True, False, True]
    assert rows[1]["error"]["code"].startswith("IMAGE_")
    assert "1 failed" in done.stderr


def test_rows_maps_and_overlays_go_where_they_are_told(
    run_cli: Run, document: Path, pictures: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    done = run_cli(
        *("infer", "--infer-config", document, "--infer-category", "bracket"),
        *("--output", output, "--save-maps", tmp_path / "maps"),
        *("--save-overlays", tmp_path / "overlays", *pictures[:2]),
    )
    assert done.code == 0
    assert done.stdout == ""
    assert len(output.read_text("utf-8").splitlines()) == 2
    assert len(list((tmp_path / "maps").glob("*.npy"))) == 2
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 2
    again = run_cli(
        *("infer", "--infer-config", document, "--infer-category", "bracket"),
        *("--output", output, pictures[0]),
    )
    assert again.code == 2
    assert "already exists" in again.stderr
    assert len(output.read_text("utf-8").splitlines()) == 2


def test_a_detector_is_fitted_on_a_folder_and_warns_of_too_few(
    run_cli: Run, good: Path, pictures: list[Path]
) -> None:
    done = run_cli(
        *("infer", "--model", "pixel_stats", "--preset", "fast"),
        *("--train-dir", good, *pictures),
    )
    rows = rows_of(done)
    assert {row["threshold_source"] for row in rows} == {"run: conformal"}
    assert all(row["p_value"] is not None for row in rows)
    assert "warning: CALIBRATION_SMALL_N: 12 held-out normals" in done.stderr


def test_a_fit_scores_like_training_on_the_same_pictures(
    run_cli: Run, two_parts: Exported, good: Path, pictures: list[Path]
) -> None:
    trained = rows_of(
        run_cli(
            *("infer", "--from-run", two_parts.run),
            *("--infer-category", "bracket", *pictures),
        )
    )
    kwargs = ["--model-kwargs", '{"image_size": [64, 64]}', "--device", "cpu"]
    command = ["infer", "--model", "pixel_stats", "--train-dir", good, *kwargs]
    fitted = rows_of(run_cli(*command, *pictures))
    assert [r["score"] for r in fitted] == [r["score"] for r in trained]


def test_a_bare_checkpoint_needs_a_threshold(
    run_cli: Run, two_parts: Exported, pictures: list[Path]
) -> None:
    checkpoint = two_parts.run / "checkpoints" / "bracket" / "model.safetensors"
    command = ["infer", "--model", "pixel_stats", "--checkpoint", checkpoint]
    refused = run_cli(*command, *pictures)
    assert refused.code == 2
    assert "a bare checkpoint holds no threshold" in refused.stderr
    rows = rows_of(run_cli(*command, "--threshold", "3.5", *pictures))
    assert {row["threshold"] for row in rows} == {3.5}
    assert {row["p_value"] for row in rows} == {None}


def test_a_checkpoint_of_another_detector_is_refused(
    run_cli: Run, two_parts: Exported, pictures: list[Path]
) -> None:
    checkpoint = two_parts.run / "checkpoints" / "bracket" / "model.safetensors"
    done = run_cli(
        *("infer", "--model", "padim", "--checkpoint", checkpoint),
        *("--threshold", "1", *pictures),
    )
    assert done.code == 2
    assert "holds a pixel_stats" in done.stderr


def test_a_document_about_another_detector_than_its_checkpoint_is_refused(
    run_cli: Run, two_parts: Exported, pictures: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_parts.run, run)
    path = run / "artifacts" / "infer_config.json"
    payload = json.loads(path.read_text("utf-8"))
    payload["model"]["name"] = "padim"
    path.write_text(json.dumps(payload), encoding="utf-8")
    done = run_cli(
        *("infer", "--infer-config", path, "--infer-category", "bracket", *pictures)
    )
    assert done.code == 2
    assert "holds a pixel_stats" in done.stderr


def effective(run_cli: Run, *arguments: Any) -> dict[str, Any]:
    done = run_cli("infer", *arguments, "--print-effective-config")
    assert done.code == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_the_effective_config_names_the_origin_of_every_value(
    run_cli: Run, document: Path
) -> None:
    chosen = ["--infer-config", document, "--infer-category", "bracket"]
    printed = effective(run_cli, *chosen, "--threshold", "4.5", "--engine", "torch")
    assert printed["thresholds"]["image"] == 4.5
    assert printed["thresholds"]["provenance"]["image"]["method"] == "fixed"
    assert printed["model"]["name"] == "pixel_stats"
    origins = printed["origins"]
    assert set(origins.values()) <= {"flag", "file", "default"}
    assert origins["thresholds.image"] == "flag"
    assert origins["thresholds.pixel"] == "file"
    assert origins["engine"] == "flag"
    assert origins["category"] == "flag"
    assert origins["device"] == "file"
    assert origins["checkpoint.sha256"] == "file"
    assert origins["adaptation.map_geometry.map_size"] == "file"
    assert set(origins) == set(leaves_of(printed, skip={"schema_version", "source"}))


def leaves_of(value: Any, at: str = "", skip: frozenset[str] | set[str] = frozenset()):
    if not isinstance(value, dict) or not value:
        yield at
        return
    for key, member in value.items():
        if key not in {*skip, "origins"}:
            yield from leaves_of(member, f"{at}.{key}" if at else key)


def test_the_effective_config_of_a_fit_is_known_before_the_fit(
    run_cli: Run, good: Path
) -> None:
    printed = effective(
        run_cli,
        *("--model", "patchcore", "--train-dir", good, "--preset", "fast"),
        *("--model-kwargs", '{"sigma_px": 2}'),
    )
    assert printed["model"]["options"]["image_size"] == [256, 256]
    assert printed["model"]["options"]["sigma_px"] == 2
    assert printed["thresholds"] is None
    assert printed["origins"]["model.options.image_size"] == "flag"  # by --preset
    assert printed["origins"]["model.options.sigma_px"] == "flag"
    assert printed["origins"]["model.options.neighbours"] == "default"


def test_the_effective_config_of_a_fit_shows_the_threshold_of_its_flag(
    run_cli: Run, good: Path
) -> None:
    fit = ["--model", "pixel_stats", "--train-dir", good]
    printed = effective(run_cli, *fit, "--threshold", "3")
    assert printed["thresholds"] == {"image": 3.0}
    assert printed["origins"]["thresholds.image"] == "flag"


@pytest.mark.parametrize(
    "wrong",
    [
        ["--engine", "onnx", "--device", "cuda"],
        ["--thresholds", "none.json"],
        ["--train-dir", "/none"],
    ],
    ids=lambda wrong: wrong[0],
)
def test_the_effective_config_of_a_fit_refuses_what_the_fit_would(
    run_cli: Run, good: Path, pictures: list[Path], wrong: list[str]
) -> None:
    fit = ["infer", "--model", "pixel_stats", "--train-dir", good, *wrong]
    printed = run_cli(*fit, "--print-effective-config")
    real = run_cli(*fit, *pictures)
    assert printed.code == real.code == 2
    assert printed.stderr == real.stderr
    assert printed.stdout == real.stdout == ""


def test_the_effective_config_of_a_bundle_names_its_graph(
    run_cli: Run, two_parts: Exported
) -> None:
    printed = effective(
        run_cli, "--infer-config", two_parts.bundle, "--infer-category", "connector"
    )
    assert printed["engine"] == "onnx"
    assert printed["origins"]["engine"] == "default"
    assert printed["graph"][0]["file"] == "models/connector.onnx"


CONTRADICTIONS = {
    "no source": ([], "expected exactly one, found none of them"),
    "two sources": (
        ["--from-run", "r", "--infer-config", "c"],
        "found --infer-config and --from-run",
    ),
    "model and config": (
        ["--infer-config", "c", "--model", "padim", "--train-dir", "d"],
        "found --infer-config and --model",
    ),
    "kwargs without model": (
        ["--from-run", "r", "--model-kwargs", "{}"],
        "--model-kwargs: goes with --model only",
    ),
    "preset without model": (
        ["--infer-config", "c", "--preset", "fast"],
        "--preset: goes with --model only",
    ),
    "a model alone": (["--model", "padim"], "either --train-dir DIR"),
    "fit and checkpoint": (
        ["--model", "padim", "--train-dir", "d", "--checkpoint", "f"],
        "either --train-dir DIR",
    ),
    "kwargs with a checkpoint": (
        *(
            ["--model", "p", "--checkpoint", "f", "--threshold", "1", "--preset", "x"],
            "--preset: has no effect with --checkpoint",
        ),
    ),
    "both thresholds": (
        ["--from-run", "r", "--threshold", "1", "--thresholds", "t.json"],
        "--threshold, --thresholds: give one of them",
    ),
    "a root without a document": (
        ["--model", "p", "--train-dir", "t", "--checkpoint-root", "d"],
        "--checkpoint-root: goes with --infer-config and --from-run only",
    ),
    "a thresholds file for a run": (
        ["--from-run", "r", "--thresholds", "t.json"],
        "belongs to a bundle's scores",
    ),
    "a threshold that float32 cannot hold": (
        ["--from-run", "r", "--threshold", "1e39"],
        "a number that float32 can hold",
    ),
    "a category of two lines": (
        ["--model", "p", "--train-dir", "t", "--infer-category", "a\nb"],
        "--infer-category: found the name",
    ),
    "a category without a name": (
        ["--from-run", "r", "--infer-category", ""],
        "--infer-category: found the name",
    ),
    "a threshold that is no number": (
        ["--from-run", "r", "--threshold", "nan"],
        "no finite number",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_flags_that_contradict_each_other_are_refused(name: str, run_cli: Run) -> None:
    arguments, sentence = CONTRADICTIONS[name]
    done = run_cli("infer", *arguments, "picture.png")
    assert done.code == 2
    assert sentence in done.stderr
    assert done.stdout == ""


def test_a_bundle_cannot_be_run_by_torch(
    run_cli: Run, two_parts: Exported, pictures: list[Path]
) -> None:
    done = run_cli(
        *("infer", "--infer-config", two_parts.bundle, "--infer-category", "bracket"),
        *("--engine", "torch", "--checkpoint", "x", *pictures),
    )
    assert done.code == 2
    assert "--engine torch" in done.stderr
    assert "--checkpoint:" in done.stderr
    assert "--from-run" in done.stderr


BAD_FITS = {
    "an unknown detector": (["--model", "patchcor"], 'did you mean "patchcore"'),
    "an unknown preset": (
        ["--model", "padim", "--preset", "fsat"],
        'no preset "fsat" (did you mean "fast"?)',
    ),
    "an unknown option": (
        ["--model", "padim", "--model-kwargs", '{"rnk": 3}'],
        'rnk: unknown key (did you mean "rank"?)',
    ),
    "options that are no object": (
        ["--model", "padim", "--model-kwargs", "[1]"],
        "expected a JSON object",
    ),
    "options that are no JSON": (
        ["--model", "padim", "--model-kwargs", "{rank: 3}"],
        "--model-kwargs: line 1",
    ),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_a_fit_that_cannot_be_is_refused(
    name: str, run_cli: Run, good: Path, pictures: list[Path]
) -> None:
    arguments, sentence = BAD_FITS[name]
    done = run_cli("infer", *arguments, "--train-dir", good, *pictures)
    assert done.code == 2
    assert sentence in done.stderr


def test_one_good_picture_takes_a_threshold(
    run_cli: Run, good: Path, pictures: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(next(good.iterdir()), folder)
    command = ["infer", "--model", "pixel_stats", "--train-dir", folder]
    refused = run_cli(*command, *pictures)
    assert refused.code == 2
    assert "one picture sets no threshold" in refused.stderr
    rows = rows_of(run_cli(*command, "--threshold", "2", *pictures))
    assert {row["threshold_source"] for row in rows} == {"--threshold"}


@pytest.mark.parametrize("content", ["empty", "missing", "broken"])
def test_a_folder_of_good_pictures_that_is_none_is_refused(
    content: str, run_cli: Run, good: Path, pictures: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    if content != "missing":
        folder.mkdir()
    if content == "broken":
        for path in list(good.iterdir())[:3]:
            shutil.copy(path, folder)
        corrupt_copy(folder / path.name)
    command = ["infer", "--model", "pixel_stats", "--train-dir", folder]
    done = run_cli(*command, *pictures)
    assert done.code == 2
    assert str(folder) in done.stderr
    assert done.stdout == ""


def test_no_input_is_refused(run_cli: Run, document: Path) -> None:
    done = run_cli("infer", "--infer-config", document, "--infer-category", "bracket")
    assert done.code == 2
    assert "no INPUT given" in done.stderr


def test_the_alias_is_the_same_command(
    document: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--infer-config", str(document), "--infer-category", "connector"]
    assert infer_main([*arguments, str(pictures[0])]) == 0
    assert json.loads(capsys.readouterr().out)["category"] == "connector"


def test_a_thresholds_file_of_the_device_is_used_with_its_bundle_only(
    run_cli: Run,
    two_parts: Exported,
    document: Path,
    good: Path,
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    file = tmp_path / "line 3.json"
    calibrate = ["calibrate", str(two_parts.bundle), str(good), "--output", str(file)]
    assert runtime_main([*calibrate, "--category", "bracket"]) == 0
    rest = ["--infer-category", "bracket", "--thresholds", file]
    command = ["infer", "--infer-config", two_parts.bundle, *rest]
    rows = rows_of(run_cli(*command, *pictures))
    assert {row["threshold_source"] for row in rows} == {"line 3.json: conformal"}
    printed = effective(run_cli, *command[1:])
    assert printed["thresholds"]["image"] == rows[0]["threshold"]
    assert printed["thresholds"]["provenance"]["image"]["source"] == "device"
    refused = run_cli("infer", "--infer-config", document, *rest, *pictures)
    assert refused.code == 2
    assert "belongs to a bundle's scores" in refused.stderr
