"""`pyimgano score` never deletes or changes what it did not write."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult
from pyimgano.scoring.order import ScoreOrder
from pyimgano.scoring.places import Folder
from pyimgano.scoring.run_score import ScoreOptions, run_score
from pyimgano.scoring.score_folder import ScoreFolder
from pyimgano_runtime.atomic import only_writer
from pyimgano_runtime.errors import ConfigError, OutputError
from score_runs import DEMO, rows_of, write_photos

Run = Callable[..., CommandResult]
Finished = tuple[Path, list[Any]]
ORDER = ScoreOrder(
    inputs=("/photos",),
    root=None,
    column=None,
    bundle_sha256="0" * 64,
    category="bracket",
    threshold=1.0,
    threshold_source="bundle",
    thresholds_sha256=None,
    review_band=None,
    part_size=1000,
    jsonl=False,
)
FACTS: dict[str, Any] = {"skipped": {}, "links": 0, "remote": False}
NO_ROWS: dict[str, Any] = dict.fromkeys(
    ("rows", "ok", "anomaly", "normal", "review"), 0
) | {
    "errors": {},
    "peak_rss_mb": None,
}


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """A folder with three pictures in `photos` and nothing beside it."""
    write_photos(tmp_path / "plant" / "photos", 3)
    return tmp_path / "plant"


@pytest.fixture
def finished(plant: Path, tmp_path: Path, run_cli: Run) -> Finished:
    """Rows of the three pictures, and the command that made them."""
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    command += ["--input", plant / "photos"]
    assert run_cli(*command).code == 0
    return output, command


def pictures(plant: Path) -> int:
    return len(list((plant / "photos").iterdir()))


@pytest.mark.parametrize("prefix", ["", "file://"])
@pytest.mark.parametrize("more", [(), ("--force",)])
def test_a_folder_that_holds_only_folders_is_not_taken(
    plant: Path, run_cli: Run, prefix: str, more: tuple[str, ...]
) -> None:
    command = ["score", "--bundle", DEMO, "--output", f"{prefix}{plant}", *more]
    for place in (plant.parent / "typo", DEMO / "golden"):
        result = run_cli(*command, "--input", place)
        assert result.code == 2
        assert "already holds photos, which this command did not write" in result.stderr
    assert [path.name for path in plant.iterdir()] == ["photos"]
    assert pictures(plant) == 3


@pytest.mark.parametrize("place", ["{}/photos", "file://{}/photos", "{}/photos/*.png"])
@pytest.mark.parametrize("output", ["{}", "file://{}"])
def test_inputs_inside_of_the_output_are_refused(
    plant: Path, run_cli: Run, place: str, output: str
) -> None:
    command = ["score", "--bundle", DEMO, "--output", output.format(plant)]
    result = run_cli(*command, "--input", place.format(plant), "--force")
    assert result.code == 2
    assert "lies in it, which is read" in result.stderr
    assert pictures(plant) == 3


def test_root_and_thresholds_inside_of_the_output_are_refused_together(
    plant: Path, tmp_path: Path, run_cli: Run
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("0000.png\n", encoding="utf-8")
    command = ["score", "--bundle", DEMO, "--output", plant, "--input", names]
    result = run_cli(*command, "--root", plant / "photos", "--force")
    assert result.code == 2
    assert f"--root {plant}/photos lies in it" in result.stderr
    assert pictures(plant) == 3


def test_rows_that_are_the_input_are_not_replaced_by_force(
    plant: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    assert run_cli(*command, "--input", plant / "photos").code == 0
    for place in (output / "part-000000.parquet", f"{output}/part-*.parquet", output):
        result = run_cli(*command, "--input", place, "--force")
        assert result.code == 2, place
        assert "which is read" in result.stderr
    assert len(rows_of(output)) == 3


def test_force_refuses_a_folder_with_something_else_beside_the_rows(
    finished: Finished, run_cli: Run
) -> None:
    output, command = finished
    (output / "_index" / "notes.txt").write_text("mine", encoding="utf-8")
    (output / "letter.txt").write_text("mine", encoding="utf-8")
    result = run_cli(*command, "--force")
    assert result.code == 2
    assert "already holds letter.txt and 1 more" in result.stderr
    assert "--force does not delete" in result.stderr
    assert (output / "part-000000.parquet").is_file()


@pytest.mark.parametrize("there", [True, False])
def test_a_mistyped_input_leaves_the_place_as_it_was(
    tmp_path: Path, run_cli: Run, there: bool
) -> None:
    """An empty folder may be a mounted volume: it is not moved or deleted."""
    output = tmp_path / "scores"
    if there:
        output.mkdir()
        before = output.stat().st_ino
    command = ["score", "--bundle", DEMO, "--output", output]
    result = run_cli(*command, "--input", tmp_path / "typo")
    assert result.code == 2
    assert "no such file or folder" in result.stderr
    assert output.exists() == there
    if there:
        assert output.stat().st_ino == before
        assert list(output.iterdir()) == []


def test_a_bucket_with_something_in_it_is_not_taken() -> None:
    files = Folder("memory://plant")
    files.write("photos/0.png", b"x")
    folder = ScoreFolder("memory://plant")
    for force in (False, True):
        with pytest.raises(ConfigError, match="already holds photos"):
            folder.begin(ORDER, force=force)
    assert files.read("photos/0.png") == b"x"


def test_force_on_a_url_deletes_rows_and_nothing_else() -> None:
    folder = ScoreFolder("memory://scores")
    assert folder.begin(ORDER, force=False) is None
    folder.write_index(ORDER, [], listed=lambda count: None, facts=lambda: FACTS)
    folder.finish_part(0, b"rows", b"lines", NO_ROWS)
    assert list(folder.finished(part_size=4, n_inputs=0)) == [0]
    assert folder.begin(ORDER, force=True) is None
    assert folder.finished(part_size=4, n_inputs=0) == {}
    assert set(folder.files.sizes()) == {"_score.json"}
    folder.discard()
    for below in ("", "_index", "_jsonl"):
        assert folder.files.sizes(below) == {}


@pytest.mark.parametrize("left", [0, 1, 3])
def test_force_that_is_cut_short_is_no_start_to_go_on_with(
    finished: Finished, run_cli: Run, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Whatever was deleted by then, rows and lists of before count no more."""
    output, command = finished
    real_unlink, deleted = os.unlink, iter(range(left))

    def unlink(path: Any, **options: Any) -> None:
        if str(path).startswith(str(output)) and next(deleted, None) is None:
            raise KeyboardInterrupt
        real_unlink(path, **options)

    photo = next(command[-1].iterdir())
    shutil.copy(photo, photo.with_name("new.png"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        assert run_cli(*command, "--force").code == 130
    result = run_cli(*command)
    assert result.code == 0, result.stderr
    assert "new.png" in {Path(row["input"]).name for row in rows_of(output)}


def test_a_url_with_a_pattern_in_it_is_no_output() -> None:
    """fsspec would delete the rows of scores1 for those of scores[1]."""
    with pytest.raises(ConfigError, match="takes for a pattern"):
        ScoreFolder("memory://scores[1]")


def test_what_is_not_ours_stays_when_a_start_goes_on(
    finished: Finished, run_cli: Run
) -> None:
    output, command = finished
    mine = [output / ".mine.new", output / "_index" / ".draft.new"]
    ours = output / "_index" / ".part-000000.done.77.new"
    for path in (*mine, ours):
        path.write_text("x", encoding="utf-8")
    assert run_cli(*command).code == 0
    assert [path.exists() for path in (*mine, ours)] == [True, True, False]
    (output / "extra.parquet").write_bytes(b"x")
    result = run_cli(*command)
    assert result.code == 2
    assert "extra.parquet, which would be read as rows" in result.stderr


@pytest.mark.parametrize("mistake", ["pisc", "names.txt", "m.jsonl"])
def test_force_with_a_mistake_in_the_inputs_keeps_the_rows(
    plant: Path, tmp_path: Path, run_cli: Run, mistake: str
) -> None:
    output = tmp_path / "scores"
    (tmp_path / "names.txt").touch()
    (tmp_path / "m.jsonl").write_text('{"image_path": "a.png"}\n{', encoding="utf-8")
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    assert run_cli(*command, "--input", plant / "photos").code == 0
    result = run_cli(*command, "--input", tmp_path / mistake, "--force")
    assert result.code == 2
    assert len(rows_of(output)) == 3


def test_a_kill_in_the_first_write_is_no_refusal(
    plant: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "scores"
    output.mkdir()
    (output / "._score.json.123.new").write_text("{", encoding="utf-8")
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    assert run_cli(*command, "--input", plant / "photos").code == 0
    assert not list(output.glob("*.new"))


@pytest.mark.parametrize("left", [0, 1])
def test_a_damaged_list_loses_no_row_in_silence(
    plant: Path, tmp_path: Path, run_cli: Run, left: int
) -> None:
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    command += ["--input", plant / "photos", "--part-size", "2"]
    assert run_cli(*command).code == 0
    listed = output / "_index" / "part-000000.list"
    lines = listed.read_bytes().splitlines(keepends=True)
    listed.write_bytes(b"".join(lines[:left]))
    (output / "part-000000.parquet").unlink()
    for _ in range(2):
        result = run_cli(*command)
        assert result.code == 1
        assert f"is damaged: {left} inputs, expected 2" in result.stderr


@pytest.mark.parametrize("key", ["rows", "errors", "peak_rss_mb", "ok"])
def test_a_damaged_record_is_scored_again(
    finished: Finished, run_cli: Run, key: str
) -> None:
    output, command = finished
    record = output / "_index" / "part-000000.done"
    done = json.loads(record.read_text(encoding="utf-8"))
    del done[key]
    record.write_text(json.dumps(done), encoding="utf-8")
    assert run_cli(*command).code == 0
    report = json.loads((output / "_report.json").read_text(encoding="utf-8"))
    assert report["this_start"]["scored"] == 3


def test_another_version_of_the_format_is_refused_by_name(
    finished: Finished, run_cli: Run
) -> None:
    output, command = finished
    path = output / "_score.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"schema_version": "9.9"}), encoding="utf-8")
    result = run_cli(*command)
    assert result.code == 2
    assert "schema_version 9.9, expected 1.0" in result.stderr


def test_a_pattern_that_fits_the_output_is_refused(plant: Path, run_cli: Run) -> None:
    command = ["score", "--bundle", DEMO, "--output", plant / "photos" / "scores"]
    result = run_cli(*command, "--input", f"{plant}/photos/**/*")
    assert result.code == 2
    assert "lies in --output" in result.stderr
    assert pictures(plant) == 3


def test_a_root_around_the_output_is_no_matter(
    plant: Path, tmp_path: Path, run_cli: Run
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("plant/photos/0000.png\n", encoding="utf-8")
    command = ["score", "--bundle", DEMO, "--output", tmp_path / "o", "--workers", "1"]
    assert run_cli(*command, "--input", names, "--root", tmp_path).code == 0


def test_a_link_to_the_output_is_the_same_output(
    plant: Path, tmp_path: Path, run_cli: Run
) -> None:
    output, link = tmp_path / "scores", tmp_path / "link"
    output.mkdir()
    link.symlink_to(output, target_is_directory=True)
    command = ["score", "--bundle", DEMO, "--output", link, "--workers", "1"]
    with only_writer(output):
        result = run_cli(*command, "--input", plant / "photos")
    assert result.code == 2
    assert "another process is writing" in result.stderr


def test_an_output_inside_of_a_url_that_is_read_is_refused() -> None:
    options = ScoreOptions(
        bundle=DEMO, inputs=("memory://plant2/photos",), output="memory://plant2"
    )
    for inputs, output in (
        ("memory://plant2/photos", "memory://plant2"),
        ("memory://plant2", "memory://plant2/scores"),
    ):
        options = ScoreOptions(bundle=DEMO, inputs=(inputs,), output=output)
        with pytest.raises(ConfigError, match="which is read"):
            run_score(options, progress=lambda *_: None, say=lambda _: None)


def test_an_index_that_cannot_be_written_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import pyimgano.scoring.places as places

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = ScoreFolder(str(tmp_path / "scores"))
    assert folder.begin(ORDER, force=False) is None
    monkeypatch.setattr(places, "write_bytes", full)
    with pytest.raises(OutputError) as caught:
        folder.write_index(ORDER, [], listed=lambda count: None, facts=lambda: FACTS)
    assert f"{tmp_path}/scores/_score.json: No space left" in str(caught.value)


def test_a_read_only_place_is_refused_in_words(
    plant: Path, run_cli: Run, tmp_path: Path
) -> None:
    output = tmp_path / "file" / "scores"
    output.parent.write_text("a file", encoding="utf-8")
    command = ["score", "--bundle", DEMO, "--output", output]
    result = run_cli(*command, "--input", plant / "photos")
    assert result.code == 2
    assert "name a folder in a place you may write to" in result.stderr


def test_rows_of_somebody_else_are_not_taken_for_ours(
    plant: Path, tmp_path: Path, run_cli: Run
) -> None:
    """Other programs write part-....parquet too."""
    output = tmp_path / "scores"
    output.mkdir()
    (output / "part-000000.parquet").write_bytes(b"of Spark")
    command = ["score", "--bundle", DEMO, "--output", output]
    result = run_cli(*command, "--input", plant / "photos", "--force")
    assert result.code == 2
    assert (output / "part-000000.parquet").read_bytes() == b"of Spark"


def test_a_copied_folder_of_rows_is_gone_on_with(
    plant: Path, tmp_path: Path, run_cli: Run
) -> None:
    output, copy = tmp_path / "scores", tmp_path / "copy"
    command = ["score", "--bundle", DEMO, "--workers", "1", "--input", plant / "photos"]
    assert run_cli(*command, "--output", output).code == 0
    shutil.copytree(output, copy)
    assert run_cli(*command, "--output", copy).code == 0
    report = json.loads((copy / "_report.json").read_text(encoding="utf-8"))
    assert report["this_start"]["scored"] == 0
