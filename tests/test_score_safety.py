"""`pyimgano score` never deletes or changes what it did not write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CommandResult
from pyimgano.scoring.order import ScoreOrder
from pyimgano.scoring.places import Folder
from pyimgano.scoring.run_score import ScoreOptions, run_score
from pyimgano.scoring.score_folder import ScoreFolder
from pyimgano_runtime.errors import ConfigError, OutputError
from score_runs import DEMO, rows_of, write_photos

Run = Callable[..., CommandResult]
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


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """A folder with three pictures in `photos` and nothing beside it."""
    write_photos(tmp_path / "plant" / "photos", 3)
    return tmp_path / "plant"


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
    plant: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    command += ["--input", plant / "photos"]
    assert run_cli(*command).code == 0
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
    folder.write_index(ORDER, [], listed=lambda count: None, facts=dict)
    folder.finish_part(0, b"rows", b"lines", {"rows": 0})
    assert list(folder.finished()) == [0]
    assert folder.begin(ORDER, force=True) is None
    assert folder.finished() == {}
    assert set(folder.files.sizes()) == {"_score.json"}
    folder.discard()
    for below in ("", "_index", "_jsonl"):
        assert folder.files.sizes(below) == {}


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
        folder.write_index(ORDER, [], listed=lambda count: None, facts=dict)
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
