"""`pyimgano score` on one machine: one row an input, whatever is killed."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundle_copies import copy_of, edit_document
from conftest import CommandResult
from pyimgano.scoring.local_workers import score_locally
from pyimgano.scoring.one_by_one import rows_one_by_one
from pyimgano.scoring.part_worker import PartJob, PartWorker
from pyimgano.scoring.places import Folder
from pyimgano.scoring.run_score import ScoreOptions, choose_team
from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.errors import BundleError, OutputError
from pyimgano_runtime.inputs import file_inputs
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.rows import predict_files
from score_runs import (
    DEMO,
    children_of,
    finish,
    n_parts,
    parts_of,
    report_of,
    rows_of,
    start,
    wait_for,
    write_photos,
)

Run = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures, one of them cut off."""
    found = write_photos(tmp_path_factory.mktemp("archive") / "photos", 24)
    found[5].write_bytes(found[5].read_bytes()[:300])
    return found


@pytest.fixture(scope="module")
def scored(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the pictures in parts of four, from a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("scored") / "scores"
    code, said = finish(start(*arguments(photos, output)))
    assert code == 1, said  # one picture is cut off
    return output


def arguments(photos: list[Path], output: Path, *more: str | Path) -> list[Any]:
    folder = photos[0].parent
    command: list[Any] = ["--bundle", DEMO, "--input", folder, "--output", output]
    return [*command, "--part-size", "4", "--workers", "2", *more]


def test_rows_are_those_of_the_runtime_without_their_times(
    photos: list[Path], scored: Path
) -> None:
    predictor = Predictor.open(DEMO)
    expected = [row for row, _, _ in predict_files(predictor, photos, with_map=False)]
    found = rows_of(scored)
    assert [row["index"] for row in found] == list(range(24))
    for row, one in zip(found, expected, strict=True):
        assert row["score"] == one["score"]
        known = {name: row[name] for name in one if name not in ("ms", "regions")}
        assert known == {n: one[n] for n in one if n not in ("ms", "regions")}


def test_the_report_counts_what_the_rows_say(scored: Path) -> None:
    report, rows = report_of(scored), rows_of(scored)
    assert report["state"] == "finished"
    counts = report["counts"]
    assert counts["inputs"] == counts["rows"] == len(rows) == 24
    assert counts["ok"] == sum(row["ok"] for row in rows) == 23
    for label in ("anomaly", "normal"):
        assert counts[label] == sum(row["decision"] == label for row in rows)
    (error,) = report["errors"]
    assert (error["code"], error["count"]) == ("IMAGE_TRUNCATED", 1)
    assert error["first_input"].endswith("0005.png")


def test_no_other_parquet_lies_in_the_output(scored: Path) -> None:
    found = {path.parent for path in scored.rglob("*.parquet")}
    assert found == {scored}


def test_a_killed_command_goes_on_and_nothing_is_lost_or_doubled(
    photos: list[Path], scored: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    process = start(*arguments(photos, output))
    wait_for(lambda: n_parts(output) >= 1)
    workers = children_of(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{one}").exists() for one in workers))
    before = {name: _mtime(output / name) for name in parts_of(output)}
    code, said = finish(start(*arguments(photos, output)))
    assert code == 1
    assert "are scored already" in said
    assert parts_of(output) == parts_of(scored)
    kept = [name for name, at in before.items() if _mtime(output / name) == at]
    assert kept, "a part that was complete is not scored again"


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_a_command_that_is_asked_to_end_tells_what_is_finished(
    photos: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    process = start(*arguments(photos, output))
    wait_for(lambda: list(output.glob("_index/*.done")))
    process.terminate()
    code, _ = finish(process)
    # 1 or the signal itself: it was done by then, or even about to end.
    assert code in (143, 1, -signal.SIGTERM)
    parts = report_of(output)["parts"]
    assert parts["finished"] >= 1
    assert parts["planned"] == 6


def test_a_killed_worker_is_replaced_and_its_part_scored_again(
    photos: list[Path], scored: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    process = start(*arguments(photos, output))
    wait_for(lambda: list(output.glob("_index/*.attempts")))
    victims = [one for one in children_of(process.pid) if "spawn_main" in _line(one)]
    os.kill(victims[0], signal.SIGKILL)
    code, said = finish(process)
    assert code == 1
    assert f"worker {victims[0]} ended over part" in said
    assert "SIGKILL" in said
    assert parts_of(output) == parts_of(scored)
    assert len(report_of(output)["this_start"]["lost_workers"]) == 1


def _line(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8")


def test_workers_that_always_end_are_not_started_for_ever() -> None:
    job = replace(job_of(Predictor.open(DEMO)), predictor=b"no pickle")
    lost: list[str] = []
    with pytest.raises(OutputError, match="ended one after another"):
        list(score_locally(job, [0, 1], workers=1, lost=lost.append))
    assert lost[0].endswith("(exit code 1); another one scores it again")


def test_one_picture_that_ends_its_process_becomes_an_error_row(
    photos: list[Path],
) -> None:
    predictor = Predictor.open(DEMO)
    rows = rows_one_by_one(job_of(predictor), file_inputs(photos[:4]), predictor)
    first = next(rows)
    (child,) = [one for one in children_of(os.getpid()) if "one_by_one" in _line(one)]
    os.kill(child, signal.SIGKILL)
    killed, *others = rows
    alone = [row for row, _, _ in predict_files(predictor, photos, with_map=False)]
    assert first["score"] == alone[0]["score"]
    assert killed["error"]["code"] == "WORKER_DIED"
    assert "SIGKILL" in killed["error"]["message"]
    assert [row["score"] for row in others] == [row["score"] for row in alone[2:4]]


def job_of(predictor: Predictor, output: Path = Path("unused")) -> PartJob:
    import pickle

    return PartJob(
        output=str(output),
        start="this one",
        predictor=pickle.dumps(predictor),
        review_band=None,
        part_size=4,
        n_inputs=24,
        jsonl=False,
        decode_workers=0,
    )


def begun(output: Path, part: int, times: int, start: str) -> None:
    """Note that a start of the command began a part so often and did not end it."""
    path = output / "_index" / f"part-{part:06}.attempts"
    known = {"start": start, "now": times, "all": times}
    path.write_text(json.dumps(known), encoding="utf-8")


def test_a_part_that_its_workers_did_not_survive_is_scored_one_by_one(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyimgano.scoring import part_worker

    asked: list[int] = []
    real = part_worker.rows_one_by_one

    def noted(*given: Any) -> Any:
        asked.append(1)
        return real(*given)

    monkeypatch.setattr(part_worker, "rows_one_by_one", noted)
    output = copy_of(scored, tmp_path / "scores")
    (output / "part-000001.parquet").unlink()
    begun(output, 1, 3, "this one")
    outcome = PartWorker(job_of(Predictor.open(DEMO), output)).score(1)
    assert outcome["begun_before"] == 3
    assert asked == [1]
    assert parts_of(output) == parts_of(scored)
    assert not list(output.glob("_index/*.attempts"))


def test_a_part_that_is_lost_again_and_again_is_left_out(
    scored: Path, tmp_path: Path
) -> None:
    output = copy_of(scored, tmp_path / "scores")
    (output / "part-000002.parquet").unlink()
    begun(output, 2, 6, "this one")
    outcome = PartWorker(job_of(Predictor.open(DEMO), output)).score(2)
    assert outcome["lost"].startswith("part 2 was begun 6 times")


@pytest.mark.parametrize("times", [1, 9])
def test_a_command_that_was_killed_often_goes_on(
    photos: list[Path], scored: Path, tmp_path: Path, run_cli: Run, times: int
) -> None:
    """It is not the part that ended it."""
    output = copy_of(scored, tmp_path / "scores")
    (output / "part-000001.parquet").unlink()
    (output / "part-000002.parquet").unlink()
    begun(output, 1, times, "an earlier one")
    (output / "_index" / "part-000002.attempts").write_bytes(b"")  # damaged
    assert run_cli("score", *arguments(photos, output)).code == 1  # an error row
    assert parts_of(output) == parts_of(scored)
    again = report_of(output)["this_start"]["parts_begun_again"]
    assert again == [{"part": 1, "begun_before": times}]


@pytest.mark.parametrize("damage", ["shorter", "missing", "record", "no record"])
def test_a_damaged_part_is_scored_again(
    photos: list[Path], scored: Path, tmp_path: Path, damage: str, run_cli: Run
) -> None:
    output = copy_of(scored, tmp_path / "scores")
    path = output / "part-000003.parquet"
    data = path.read_bytes()
    record = output / "_index" / "part-000003.done"
    if damage == "missing":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(data[:100])
    elif damage == "record":
        record.write_bytes(b"")
    else:
        record.unlink()
    assert run_cli("score", *arguments(photos, output)).code == 1
    assert path.read_bytes() == data


def test_pictures_that_came_since_the_first_start_are_not_scored(
    photos: list[Path], scored: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = copy_of(scored, tmp_path / "scores")
    (output / "part-000005.parquet").unlink()
    late = photos[0].with_name("0000-late.png")
    late.write_bytes(photos[0].read_bytes())
    try:
        run_cli("score", *arguments(photos, output))
    finally:
        late.unlink()
    assert parts_of(output) == parts_of(scored)


@pytest.mark.parametrize(
    ("more", "flag"),
    [
        (["--threshold", "3"], "--threshold"),
        (["--part-size", "5"], "--part-size"),
        (["--review-band", "0.5"], "--review-band"),
        (["--jsonl"], "--jsonl"),
    ],
)
def test_rows_of_other_settings_are_not_mixed(
    photos: list[Path], scored: Path, run_cli: Run, more: list[str], flag: str
) -> None:
    before = parts_of(scored)
    result = run_cli("score", *arguments(photos, scored, *more))
    assert result.code == 2
    assert flag in result.stderr
    assert parts_of(scored) == before


def test_a_bundle_that_was_replaced_since_is_refused_by_workers(
    photos: list[Path], tmp_path: Path
) -> None:
    bundle = copy_of(DEMO, tmp_path / "bundle")
    job = job_of(Predictor.open(bundle))
    edit_document(bundle, lambda document: document.update(created="2020-01-01"))
    (outcome,) = score_locally(job, [0], workers=1, lost=lambda line: None)
    assert outcome["kind"] == "BundleError"
    assert "expected" in outcome["refused"]


def test_a_bundle_that_was_replaced_ends_a_part_that_is_scored_one_by_one(
    photos: list[Path], tmp_path: Path
) -> None:
    """Not a row of it: no picture has ended its process."""
    bundle = copy_of(DEMO, tmp_path / "bundle")
    predictor = Predictor.open(bundle)
    job = job_of(predictor)
    edit_document(bundle, lambda document: document.update(created="2020-01-01"))
    with pytest.raises(BundleError, match="expected"):
        list(rows_one_by_one(job, file_inputs(photos[:2]), predictor))


def test_a_process_that_cannot_start_is_no_pictures_fault(photos: list[Path]) -> None:
    predictor = Predictor.open(DEMO)
    job = replace(job_of(predictor), predictor=b"no pickle")
    with pytest.raises(OSError, match="before it had opened the bundle"):
        list(rows_one_by_one(job, file_inputs(photos[:2]), predictor))


def test_ctrl_c_reaches_no_process_that_scores_one_by_one(photos: list[Path]) -> None:
    predictor = Predictor.open(DEMO)
    rows = rows_one_by_one(job_of(predictor), file_inputs(photos[:2]), predictor)
    next(rows)
    (child,) = [one for one in children_of(os.getpid()) if "one_by_one" in _line(one)]
    assert os.getpgid(child) == child  # a terminal signals the command's group
    rows.close()


def test_json_lines_hold_the_same_rows(
    photos: list[Path], scored: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "scores"
    run_cli("score", *arguments(photos, output, "--jsonl"))
    lines = "".join(
        path.read_text("utf-8") for path in sorted(output.glob("_jsonl/part-*.jsonl"))
    )
    found = [json.loads(line) for line in lines.splitlines()]
    assert [(r["index"], r["input"], r["score"]) for r in found] == [
        (r["index"], r["input"], r["score"]) for r in rows_of(scored)
    ]
    assert len(rows_of(output)) == 24


def test_a_full_disk_loses_nothing_that_was_finished(
    photos: list[Path], scored: Path, tmp_path: Path
) -> None:
    # A limit on the size of files is what a full disk is to the one who writes.
    output = copy_of(scored, tmp_path / "scores")
    (output / "part-000004.parquet").unlink()

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    command = [sys.executable, "-m", "pyimgano.cli", "score"]
    command += map(str, arguments(photos, output))
    result = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=small_files_only
    )
    assert result.returncode == 1, result.stderr
    assert os.strerror(errno.EFBIG) in result.stderr
    assert n_parts(output) == 5
    assert not list(output.rglob("*.new"))
    assert finish(start(*arguments(photos, output)))[0] == 1
    assert parts_of(output) == parts_of(scored)


def test_threads_and_workers_never_ask_for_more_than_the_cores() -> None:
    def team(**options: Any) -> tuple[int | None, int]:
        base = {"bundle": DEMO, "inputs": ("a",), "output": "b"}
        found = choose_team(ScoreOptions(**base, **options))
        return found.workers, found.threads

    cores = usable_cores()
    assert team() == (cores, 1)
    assert team(workers=1) == (1, cores)
    assert team(threads=cores) == (1, cores)
    assert team(engine="ray") == (None, 1)


def test_a_folder_of_something_else_is_left_alone(
    photos: list[Path], tmp_path: Path, run_cli: Run
) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for more in ([], ["--force"]):
        result = run_cli("score", *arguments(photos, tmp_path, *more))
        assert result.code == 2, result.stderr
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_force_begins_anew(
    photos: list[Path], scored: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = copy_of(scored, tmp_path / "scores")
    result = run_cli("score", *arguments(photos, output, "--threshold", "3", "--force"))
    assert result.code == 1
    assert {row["threshold"] for row in rows_of(output)} == {3.0}


def test_two_commands_do_not_write_to_one_folder(
    photos: list[Path], tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "scores"
    process = start(*arguments(photos, output))
    wait_for(lambda: (output / "_score.json").exists())
    result = run_cli("score", *arguments(photos, output))
    assert result.code == 2
    assert "another process is writing" in result.stderr
    assert finish(process)[0] == 1


def test_a_folder_at_a_url_is_written_and_gone_on_with(
    photos: list[Path], scored: Path, tmp_path: Path, run_cli: Run
) -> None:
    url = f"file://{tmp_path}/scores"
    assert run_cli("score", *arguments(photos, url)).code == 1
    output = tmp_path / "scores"
    assert parts_of(output) == parts_of(scored)
    (output / "part-000000.parquet").unlink()
    result = run_cli("score", *arguments(photos, url))
    assert "20 of 24 inputs are scored already" in result.stderr
    assert parts_of(output) == parts_of(scored)
    assert Folder(url).sizes()["part-000000.parquet"]
