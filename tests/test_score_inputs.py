"""What `--input` of `pyimgano score` takes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bundle_copies import copy_of
from conftest import CommandResult
from pyimgano.scoring.entries import (
    FileEntry,
    InputLost,
    ParquetEntry,
    from_line,
    to_line,
)
from pyimgano.scoring.listing import Listing
from pyimgano.scoring.places import fetch
from pyimgano.scoring.score_folder import ScoreFolder, _parts
from pyimgano_runtime.errors import ConfigError, ImageError
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.sources import list_inputs
from score_runs import DEMO, report_of, rows_of, write_photos

Run = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("archive") / "photos", 6)


@pytest.fixture(scope="module")
def scores(photos: list[Path]) -> list[float]:
    predictor = Predictor.open(DEMO)
    return [predictor.predict(predictor.read(path)).score for path in photos]


@pytest.fixture
def score(tmp_path: Path, run_cli: Run) -> Callable[..., list[dict[str, Any]]]:
    """Give a function that scores what is named, and gives the rows."""

    def run(*arguments: str | Path) -> list[dict[str, Any]]:
        output = tmp_path / "scores"
        command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
        result = run_cli(*command, *arguments)
        assert result.code in (0, 1), result.stderr
        return rows_of(output)

    return run


def listed(*arguments: str, category: str = "bracket", **options: Any) -> list[Any]:
    return list(Listing(arguments, category, **options).entries())


def test_a_folder_is_listed_as_infer_lists_it(tmp_path: Path) -> None:
    for name in (
        "b/2.png",
        "a.png",
        "b/1.jpg",
        "b.png",
        "a/z/3.tif",
        "notes.md",
        ".h.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    expected = [str(path) for path in list_inputs([str(tmp_path)])]
    assert [entry.name for entry in listed(str(tmp_path))] == expected


def test_relative_folders_keep_their_names_and_give_absolute_places(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos[0].parent.parent)
    (first, *_) = listed("photos")
    assert first == FileEntry("photos/0000.png", str(photos[0]))


def test_a_pattern_takes_what_fits(photos: list[Path]) -> None:
    found = listed(str(photos[0].parent / "000[2-4].png"))
    assert [Path(entry.name) for entry in found] == photos[2:5]


def test_a_list_of_paths_is_relative_to_its_folder(
    photos: list[Path], tmp_path: Path, score: Any, scores: list[float]
) -> None:
    listing = photos[0].parent / "list.txt"
    lines = ["0001.png", str(photos[0]), "", "missing.png\r", "0001.png"]
    listing.write_text("\n".join(lines), encoding="utf-8")
    try:
        rows = score("--input", listing)
    finally:
        listing.unlink()
    assert [row["score"] for row in rows] == [scores[1], scores[0], None, scores[1]]
    assert rows[2]["error"]["code"] == "IMAGE_MISSING"
    assert rows[2]["input"] == "missing.png"


def test_root_is_the_folder_of_relative_paths(
    photos: list[Path], tmp_path: Path, score: Any, scores: list[float]
) -> None:
    listing = tmp_path / "list.lst"
    listing.write_text("0003.png\n", encoding="utf-8")
    (row,) = score("--input", listing, "--root", photos[0].parent)
    assert row["score"] == scores[3]


def test_a_manifest_gives_the_pictures_of_the_category(
    photos: list[Path], tmp_path: Path, run_cli: Run, scores: list[float]
) -> None:
    category = Predictor.open(DEMO).category
    rows = [
        {"image_path": photos[0].name, "category": category, "label": 1},
        {"image_path": photos[1].name, "category": "something else"},
        {"image_path": photos[2].name},
    ]
    manifest = tmp_path / "manifest.jsonl"
    text = "# comment\n" + "".join(json.dumps(row) + "\n" for row in rows)
    manifest.write_text(text, encoding="utf-8")
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--input", manifest]
    result = run_cli(*command, "--root", photos[0].parent)
    assert [row["score"] for row in rows_of(output)] == [scores[0], scores[2]]
    assert "1 lines of category something else are passed by" in result.stderr


def test_all_wrong_lines_of_a_manifest_are_told(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"image_path": "a.png"}\n{"path": 1}\nno\n', "utf-8")
    with pytest.raises(ConfigError) as caught:
        listed(str(manifest))
    assert "jsonl:2" in str(caught.value)
    assert "jsonl:3" in str(caught.value)


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_encoded_pictures_of_parquet_files_are_scored(
    photos: list[Path], tmp_path: Path, score: Any, scores: list[float]
) -> None:
    data = [path.read_bytes() for path in photos]
    file = write_parquet(
        tmp_path / "a.parquet",
        {"id": [f"p{n}" for n in range(7)], "image": [*data, None]},
        row_group_size=3,
    )
    rows = score("--input", file, "--part-size", "2")
    assert [row["score"] for row in rows] == [*scores, None]
    assert [row["input"] for row in rows] == [f"p{n}" for n in range(7)]
    assert rows[6]["error"]["code"] == "IMAGE_MISSING"


def test_structs_of_bytes_and_path_are_scored(
    photos: list[Path], tmp_path: Path, score: Any, scores: list[float]
) -> None:
    images = [{"bytes": p.read_bytes(), "path": p.name} for p in photos[:2]]
    file = write_parquet(tmp_path / "a.parquet", {"image": images})
    rows = score("--input", file)
    assert [row["score"] for row in rows] == scores[:2]
    assert [row["input"] for row in rows] == ["0000.png", "0001.png"]


def test_paths_of_a_folder_of_parquet_files_are_scored(
    photos: list[Path], tmp_path: Path, score: Any, scores: list[float]
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    names = [path.name for path in photos]
    write_parquet(folder / "b.parquet", {"path": names[3:], "lot": [1, 2, 3]})
    write_parquet(folder / "a.parquet", {"path": names[:3], "lot": [1, 2, 3]})
    rows = score("--input", folder, "--root", photos[0].parent)
    assert [row["score"] for row in rows] == scores
    assert [row["input"] for row in rows] == names


def test_pictures_that_were_not_embedded_are_read_by_their_path(
    photos: list[Path], tmp_path: Path, score: Any, scores: list[float]
) -> None:
    data = photos[0].read_bytes()
    column = [
        {"bytes": data, "path": "first.png"},
        {"bytes": None, "path": str(photos[1])},
        {"bytes": None, "path": None},
        None,
    ]
    file = write_parquet(tmp_path / "a.parquet", {"image": column})
    rows = score("--input", file)
    assert [row["score"] for row in rows] == [scores[0], scores[1], None, None]
    assert [row["input"] for row in rows[:2]] == ["first.png", str(photos[1])]
    assert all("is null" in row["error"]["message"] for row in rows[2:])


def test_a_row_of_a_path_is_called_by_it_and_one_of_bytes_by_a_name(
    photos: list[Path], tmp_path: Path, score: Any
) -> None:
    paths = [str(path) for path in photos[:2]]
    by_path = write_parquet(tmp_path / "a.parquet", {"path": paths, "id": [7, 7]})
    encoded = [path.read_bytes() for path in photos[:2]]
    table = {"image": encoded, "file": encoded, "id": [7, 8]}
    by_bytes = write_parquet(tmp_path / "b.parquet", table)
    rows = score("--input", by_path, "--input", by_bytes)
    assert [row["input"] for row in rows] == [*paths, "7", "8"]


def test_dictionaries_and_odd_texts_are_paths_too(
    photos: list[Path], tmp_path: Path, score: Any, scores: list[float]
) -> None:
    odd = tmp_path / "p" / os.fsdecode(b"caf\xe9.png")
    odd.parent.mkdir()
    odd.write_bytes(photos[0].read_bytes())
    names = pa.array([os.fsencode(odd), os.fsencode(photos[1]), b""], pa.binary())
    # As files hold it that other programs wrote: text that is none.
    texts = pa.Array.from_buffers(pa.string(), 3, names.buffers())
    one = write_parquet(tmp_path / "a.parquet", {"path": texts})
    category = pa.array([str(photos[2])] * 2).dictionary_encode()
    two = write_parquet(tmp_path / "b.parquet", {"path": category})
    rows = score("--input", one, "--input", two)
    assert [row["score"] for row in rows] == [
        *(scores[0], scores[1], None, scores[2], scores[2])
    ]
    assert "is empty" in rows[2]["error"]["message"]


def test_a_url_that_nobody_can_read_is_a_row_and_not_the_end(
    photos: list[Path], tmp_path: Path, score: Any
) -> None:
    names = tmp_path / "names.txt"
    lines = [str(photos[0]), "nosuch://b/x.png", "zip://a.png::/b.zip", str(photos[1])]
    names.write_text("\n".join(lines), encoding="utf-8")
    first, unknown, chain, last = score("--input", names)
    assert first["ok"]
    assert last["ok"]
    assert unknown["error"]["code"] == "IMAGE_READ_FAILED"
    assert "Protocol not known: nosuch" in unknown["error"]["message"]
    assert "is a chain of URLs" in chain["error"]["message"]


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_package_that_is_missing_is_told_before_anything_is_scored(
    tmp_path: Path, run_cli: Run
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a.png\ngs://bucket/b.png\n", encoding="utf-8")
    output = tmp_path / "o"
    command = ["score", "--bundle", DEMO, "--output", output, "--input", names]
    result = run_cli(*command)
    assert result.code == 2
    assert "gs://bucket/b.png: cannot be opened" in result.stderr
    assert "install the package" in result.stderr
    assert not output.exists()


def test_one_damaged_table_does_not_keep_others_waiting(
    photos: list[Path], tmp_path: Path, run_cli: Run
) -> None:
    data = [path.read_bytes() for path in photos]
    file = write_parquet(tmp_path / "a.parquet", {"image": data})
    bytes_ = bytearray(file.read_bytes())
    bytes_[4:40] = b"\xff" * 36  # the first page; what says what is in it stays
    file.write_bytes(bytes_)
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    command += ["--part-size", "6", "--input", file, "--input", photos[0].parent]
    for _ in range(2):
        result = run_cli(*command)
        assert result.code == 1
        assert "part 0 is left out" in result.stderr
        assert [row["index"] for row in rows_of(output)] == [6, 7, 8, 9, 10, 11]
    report = report_of(output)
    assert report["state"] == "incomplete"
    assert "a.parquet: cannot be read" in report["parts"]["left_out"]["0"]


def test_links_to_nowhere_have_rows_and_links_to_folders_are_told(
    photos: list[Path], tmp_path: Path, run_cli: Run
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos[0], folder / "a.png")
    (folder / "b.png").symlink_to(photos[1])
    (folder / "c.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "d").symlink_to(photos[0].parent, target_is_directory=True)
    os.mkfifo(folder / "pipe.png")  # whoever reads it waits for ever
    names = ["a.png", "b.png", "c.png"]
    assert [Path(e.name).name for e in listed(str(folder))] == names
    assert [Path(e.name).name for e in listed(f"{folder}/*.png")] == names
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    result = run_cli(*command, "--input", folder)
    assert result.code == 1
    assert "not followed: 1 link to folders" in result.stderr
    assert [row["ok"] for row in rows_of(output)] == [True, True, False]


def test_odd_links_have_rows_and_end_nothing(
    photos: list[Path], tmp_path: Path, run_cli: Run
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos[0], folder / "a.png")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "file.png").symlink_to("a.png/b.png")
    (folder / "long.png").symlink_to("x" * 300)
    names = ["a.png", "circle.png", "file.png", "long.png"]
    assert [Path(e.name).name for e in listed(str(folder))] == names
    assert [Path(e.name).name for e in listed(f"{folder}/*.png")] == names
    assert len(listed(str(folder / "circle.png"))) == 1
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    result = run_cli(*command, "--input", folder)
    assert result.code == 1, result.stderr
    assert [row["ok"] for row in rows_of(output)] == [True, False, False, False]


def test_a_broken_picture_whose_name_is_no_text_is_reported(
    tmp_path: Path, run_cli: Run
) -> None:
    folder = tmp_path / os.fsdecode(b"d\xff")
    folder.mkdir()
    (folder / os.fsdecode(b"x\xff.jpg")).write_bytes(b"no picture")
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    for _ in range(2):
        result = run_cli(*command, "--input", folder)
        assert result.code == 1, result.stderr
    (error,) = report_of(output)["errors"]
    assert error["first_input"].endswith("x\udcff.jpg")


def test_one_host_that_does_not_answer_is_not_the_end(
    photos: list[Path], tmp_path: Path, score: Any
) -> None:
    paths = [str(photos[0]), "ftp://127.0.0.1:1/x.png", "zip://x.png", str(photos[1])]
    names = tmp_path / "names.txt"
    names.write_text("\n".join(paths), encoding="utf-8")
    file = write_parquet(tmp_path / "a.parquet", {"path": paths})
    rows = score("--input", names, "--input", file)
    assert [row["ok"] for row in rows] == [True, False, False, True] * 2
    assert {r["error"]["code"] for r in rows if not r["ok"]} == {"IMAGE_READ_FAILED"}


def test_an_error_of_a_packages_own_kind_is_a_row() -> None:
    """Such as the 403 of aiohttp or missing credentials of botocore: no OSError."""
    import fsspec

    class Forbidden(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "forbidden"

        def _open(self, path: str, *given: Any, **named: Any) -> Any:
            raise RuntimeError(f"403 for {path}\nand a page of HTML")

    fsspec.register_implementation("forbidden", Forbidden, clobber=True)
    with pytest.raises(ImageError, match=r"read \(403 for a.png\); check") as caught:
        fetch("forbidden://a.png", limit=100)
    assert caught.value.code == "IMAGE_READ_FAILED"


def test_a_table_that_is_written_to_while_it_is_read_gives_no_rows(
    photos: list[Path], tmp_path: Path
) -> None:
    data = [path.read_bytes() for path in photos] * 10
    file = write_parquet(tmp_path / "a.parquet", {"image": data})
    (entry,) = listed(str(file))
    inputs = entry.inputs(InputRules())
    next(inputs)
    os.utime(file)
    with pytest.raises(InputLost, match="changed since"):
        list(inputs)


def test_two_columns_of_one_name_are_not_chosen_from(tmp_path: Path) -> None:
    columns = [pa.array(["a.png"]), pa.array(["b.png"])]
    table = pa.Table.from_arrays(columns, names=["path", "path"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="which column holds the pictures"):
        listed(str(tmp_path / "a.parquet"))


def test_a_pattern_of_urls_takes_no_folders() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    for name in ("/pattern/a.png", "/pattern/sub/b.png"):
        files.pipe_file(name, b"x")
    names = [entry.name for entry in listed("memory://pattern/*")]
    assert names == ["memory:///pattern/a.png"]


def test_a_deep_tree_is_listed(tmp_path: Path) -> None:
    (tmp_path / "stays.txt").touch()
    deep = str(tmp_path)
    for _ in range(1200):
        deep += "/d"
        os.mkdir(deep)  # noqa: PTH102 - pathlib is slow in deep trees
    picture = f"{deep}/a.png"
    Path(picture).touch()
    try:
        (entry,) = listed(str(tmp_path))
        assert entry.place == picture
    finally:  # what deletes trees goes down by recursion
        os.unlink(picture)  # noqa: PTH108
        os.removedirs(deep)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png\r\n")
    row = b'{"image_path": "c.png"}'
    (tmp_path / "m.jsonl").write_bytes(b"\xef\xbb\xbf" + row)
    entries = listed(str(tmp_path / "l.txt"), str(tmp_path / "m.jsonl"))
    assert [entry.name for entry in entries] == ["a.png", "b.png", "c.png"]


def test_an_empty_folder_is_not_blamed_for_the_lines_of_a_manifest(
    tmp_path: Path,
) -> None:
    rows = ({"image_path": f"{c}.png", "category": c} for c in ("bracket", "other"))
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "m.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no pictures"):
        listed(str(tmp_path / "m.jsonl"), str(tmp_path / "empty"))


def test_a_list_of_urls_is_known_to_be_remote(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("memory://a/b.png\nc.png\n", encoding="utf-8")
    listing = Listing([str(tmp_path / "l.txt")], "bracket")
    assert len(list(listing.entries())) == 2
    assert listing.remote


def test_a_column_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"shot": ["a.png"], "n": [1]})
    with pytest.raises(ConfigError, match="Name it by --column"):
        listed(str(file))
    with pytest.raises(ConfigError, match="expected a column of bytes or of paths"):
        listed(str(file), column="n")
    (entry,) = listed(str(file), column="shot")
    assert entry.kind == "path"


def test_a_parquet_file_that_changed_since_is_told(
    photos: list[Path], tmp_path: Path, run_cli: Run
) -> None:
    names = [path.name for path in photos]
    file = write_parquet(tmp_path / "a.parquet", {"path": names})
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--input", file]
    command += ["--root", photos[0].parent, "--part-size", "3", "--workers", "1"]
    assert run_cli(*command).code == 0
    (output / "part-000001.parquet").unlink()
    for change in (
        lambda: write_parquet(file, {"path": names[:4]}),
        lambda: write_parquet(file, {"path": names[::-1]}),
        lambda: write_parquet(file, {"place": names}),
        lambda: file.write_bytes(b"no Parquet any more"),
    ):
        change()
        result = run_cli(*command)
        assert result.code == 1
        assert "has this Parquet file changed since?" in result.stderr
        assert "1 of 2 parts have no rows" in result.stderr
        assert len(rows_of(output)) == 3
    assert list(report_of(output)["parts"]["left_out"]) == ["1"]


@pytest.mark.parametrize("place", ["in", "bundle/scores", "in/deep/scores"])
def test_an_output_inside_of_what_is_read_is_refused(
    photos: list[Path], tmp_path: Path, run_cli: Run, place: str
) -> None:
    shutil.copytree(photos[0].parent, tmp_path / "in")
    bundle = copy_of(DEMO, tmp_path / "bundle")
    output = tmp_path / place
    command = ["score", "--bundle", bundle, "--output", output]
    result = run_cli(*command, "--input", tmp_path / "in")
    assert result.code == 2
    assert "which is read" in result.stderr
    assert not list(tmp_path.rglob("_score.json"))


def test_force_does_not_delete_the_inputs(
    photos: list[Path], tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    assert run_cli(*command, "--input", photos[0]).code == 0
    inside = output / "photos"
    shutil.copytree(photos[0].parent, inside)
    result = run_cli(*command, "--input", inside, "--force")
    assert result.code == 2
    assert f"--input {inside} lies in it" in result.stderr
    assert len(list(inside.iterdir())) == len(photos)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("nothing.png.d", None, "no such file or folder"),
        ("empty", "folder", "holds no pictures"),
        ("list.txt", "", "names no picture"),
        ("table.parquet", "no parquet", "cannot be read as Parquet"),
        ("clip.mp4", "x", "is none of the kinds"),
        ("*.png", None, "no file fits this pattern"),
    ],
)
def test_what_names_no_pictures_is_refused(
    tmp_path: Path, run_cli: Run, name: str, content: str | None, told: str
) -> None:
    place = tmp_path / name
    if content == "folder":
        place.mkdir()
    elif content is not None:
        place.write_text(content, encoding="utf-8")
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--input", place]
    result = run_cli(*command)
    assert result.code == 2
    assert told in result.stderr
    assert not output.exists()


def test_options_that_contradict_each_other_are_told_together(
    tmp_path: Path, run_cli: Run
) -> None:
    command = ["score", "--bundle", DEMO, "--output", tmp_path / "o", "--input", "x"]
    more = ["--ray-address", "auto", "--threshold", "1", "--thresholds", "t.json"]
    result = run_cli(*command, *more)
    assert result.code == 2
    assert "--ray-address" in result.stderr
    assert "--thresholds" in result.stderr


def test_a_name_that_is_no_text_has_its_row(
    photos: list[Path], tmp_path: Path, score: Any, scores: list[float]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = folder / os.fsdecode(b"caf\xe9.png")
    odd.write_bytes(photos[0].read_bytes())
    (row,) = score("--input", folder)
    assert row["score"] == scores[0]
    assert row["input"].endswith("caf\\xe9.png") or "udce9" in row["input"]


def test_entries_come_back_from_their_lines() -> None:
    for entry in (
        FileEntry("a.png", "/x/a.png"),
        FileEntry("/a.png", "/a.png"),
        FileEntry("caf\udce9", "caf\udce9"),
        ParquetEntry("/f", 3, 9, "image", "bytes", None, "f", "/", "9:1"),
    ):
        assert from_line(to_line(entry)) == entry


def test_parts_have_the_size_that_was_asked_for_across_files() -> None:
    table = ParquetEntry("/f", 0, 7, "image", "bytes", None, "f", "/", "9:1")
    files = [FileEntry(str(n), str(n)) for n in range(4)]
    found = list(_parts([*files, table, table], 5))
    assert [count for _, count in found] == [5, 5, 5, 3]
    spans = [from_line(line) for lines, _ in found for line in lines[-2:]]
    rows = [(e.start, e.stop) for e in spans if isinstance(e, ParquetEntry)]
    assert rows == [(0, 1), (1, 6), (6, 7), (0, 4), (4, 7)]


def test_an_index_that_was_not_finished_is_made_again(
    photos: list[Path], tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "scores"
    command = ["score", "--bundle", DEMO, "--output", output, "--workers", "1"]
    command += ["--input", photos[0].parent]
    assert run_cli(*command).code == 0
    for path in output.glob("part-*"):
        path.unlink()
    document = json.loads((output / "_score.json").read_text(encoding="utf-8"))
    document |= {"state": "listing"}  # as a kill while it is listed leaves it
    (output / "_score.json").write_text(json.dumps(document), encoding="utf-8")
    assert run_cli(*command).code == 0
    assert len(rows_of(output)) == 6
    assert len(ScoreFolder(str(output)).finished(part_size=1000, n_inputs=6)) == 1
