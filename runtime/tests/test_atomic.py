"""Complete or absent: whatever interrupts a write, the old state or the new is found.

The kills are real: a child process ends itself by SIGKILL just before its k-th change
of the file system, for every k until it comes through.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyimgano_runtime import ConfigError
from pyimgano_runtime.atomic import (
    finish_swap,
    new_folder,
    refuse_existing,
    refuse_existing_file,
    refuse_replacing,
    write_bytes,
    write_text,
)

# Audit events name every change before it happens, on every Python.
KILLER = """
import os, signal, sys
from pathlib import Path
from pyimgano_runtime.atomic import new_folder, write_bytes
count, at = 0, int(sys.argv[2])
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}
def audit(event, arguments):
    global count
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
    if event in CHANGES or writes:
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
target = Path(sys.argv[1])
sys.addaudithook(audit)
"""
FILL = """
with new_folder(target, force=True) as folder:
    for name in ("a", "b", "report.json"):
        (folder / name).write_text("new")
    (folder / "sub").mkdir()
    (folder / "sub" / "d").write_text("new")
"""
WRITE = "write_bytes(target, b'new' * 1000)"


def killed_at(code: str, target: Path, step: int) -> bool:
    command = [sys.executable, "-c", KILLER + code, str(target), str(step)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def state(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


OLD = {"a": "old", "only_old": "old", "report.json": "old"}
NEW = {name: "new" for name in ("a", "b", "report.json", "sub/d")}


@pytest.mark.parametrize("before", [{}, OLD])
def test_a_folder_is_old_or_new_after_a_kill_at_any_moment(
    tmp_path: Path, before: dict[str, str]
) -> None:
    seen = []
    for step in range(1, 100):
        target = tmp_path / str(step) / "out"
        for name, text in before.items():
            target.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(text)
        target.parent.mkdir(exist_ok=True)
        killed = killed_at(FILL, target, step)

        finish_swap(target)
        found = state(target) if target.exists() else {}
        assert found in (before, NEW), f"killed before change {step}"
        seen.append(found == NEW)
        if not killed:
            break
    assert len(seen) > 8, "the kills did not happen"
    assert seen == sorted(seen), "once new, always new"
    assert seen[-1]
    assert not seen[0]


def test_a_swap_is_completed_not_undone(tmp_path: Path) -> None:
    # Killed between the two renames: what was moved away is old, the new is complete.
    for name, text in ((".out.old", "old"), (".out.new", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(text)
    finish_swap(tmp_path / "out")
    assert state(tmp_path) == {".out.old/a": "old", "out/a": "new"}  # nothing deleted


def test_the_next_write_completes_what_was_interrupted(tmp_path: Path) -> None:
    for step in range(1, 100):
        target = tmp_path / str(step) / "out"
        target.mkdir(parents=True)
        (target / "report.json").write_text("old")
        if not killed_at(FILL, target, step):
            return
        with new_folder(target, force=True) as folder:
            (folder / "z").write_text("newest")
        assert state(target) == {"z": "newest"}
        assert [p.name for p in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_file_is_old_or_new_after_a_kill_at_any_moment(
    tmp_path: Path, before: bytes | None
) -> None:
    steps = 0
    for step in range(1, 20):
        target = tmp_path / f"{step}.txt"
        if before is not None:
            target.write_bytes(before)
        killed = killed_at(WRITE, target, step)
        found = target.read_bytes() if target.exists() else None
        if not killed:
            assert found == b"new" * 1000
            break
        assert found == before
        steps += 1
    assert steps >= 2


def fill_and_raise(folder: Path, error: type[BaseException]) -> None:
    (folder / "a").write_text("new")
    raise error


def test_an_error_in_the_block_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "report.json").write_text("old")
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), new_folder(target, force=True) as folder:
            fill_and_raise(folder, error)
        assert state(target) == {"report.json": "old"}
        assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_existing_folder_is_refused_without_force_unless_it_is_empty(
    tmp_path: Path,
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with new_folder(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(ConfigError, match="--force"), new_folder(target):
        pass
    assert state(target) == {"a": "1"}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_link_in_the_place_is_never_replaced(
    tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "out"
    (tmp_path / "real").mkdir()
    target.write_text("x") if kind == "file" else target.symlink_to(tmp_path / "real")
    with (
        pytest.raises(ConfigError, match="is a file or a link"),
        new_folder(target, force=True),
    ):
        pass
    assert target.exists()


def test_places_that_cannot_be_written_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        new_folder(tmp_path / "file" / "out").__enter__()
    with pytest.raises(ConfigError, match="has no name"):
        new_folder(Path("/")).__enter__()


def test_a_failed_write_leaves_no_litter(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_bytes(tmp_path / "folder", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_text_is_written_as_utf8_with_its_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "ä\n")
    assert (tmp_path / "t").read_bytes() == b"\xc3\xa4\n"


# --- what force may not delete ------------------------------------------------------


def folder_of_ours(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "report.json").write_text("ours")
    return path


@pytest.mark.parametrize("name", ["report.json", "infer_config.json", "overview.html"])
def test_force_replaces_a_folder_of_ours(tmp_path: Path, name: str) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / name).write_text("old")
    with new_folder(target, force=True) as folder:
        (folder / "a").write_text("new")
    assert state(tmp_path) == {"out/a": "new"}


def test_force_does_not_replace_a_folder_of_others(tmp_path: Path) -> None:
    target = tmp_path / "out"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "report.json").write_text("not at the top")
    with pytest.raises(ConfigError, match="not a folder that this program wrote"):
        new_folder(target, force=True).__enter__()
    refuse_existing(target, force=True)  # writing into it deletes nothing
    assert state(tmp_path) == {"out/sub/report.json": "not at the top"}


@pytest.mark.parametrize("needed", [".", "data", "data/rows", "link/rows"])
def test_force_does_not_replace_what_is_needed(tmp_path: Path, needed: str) -> None:
    target = folder_of_ours(tmp_path / "out")
    (target / "data").mkdir()
    (target / "data" / "rows").write_text("x")
    (target / "link").symlink_to(target / "data")
    (tmp_path / "elsewhere").symlink_to(target)
    for above in (target, tmp_path / "elsewhere"):
        with pytest.raises(ConfigError, match=r"would delete .*still needed"):
            refuse_replacing(target, force=True, keep=[above / needed])
    refuse_replacing(target, force=True, keep=[tmp_path, tmp_path / "missing"])


def test_a_link_out_of_the_folder_is_needed_too(tmp_path: Path) -> None:
    target = folder_of_ours(tmp_path / "out")
    (tmp_path / "rows").write_text("x")
    (target / "rows").symlink_to(tmp_path / "rows")
    with pytest.raises(ConfigError, match="still needed"):
        refuse_replacing(target, force=True, keep=[target / "rows"])


@pytest.mark.parametrize("written", [".", "sub/..", "../out"])
def test_the_working_directory_is_never_replaced(
    tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = folder_of_ours(tmp_path / "out")
    (target / "sub").mkdir()
    monkeypatch.chdir(target)
    with pytest.raises(ConfigError, match="still needed"):
        new_folder(Path(written), force=True).__enter__()
    assert state(tmp_path) == {"out/report.json": "ours"}


def fill_while_another_appears(folder: Path, target: Path) -> None:
    (folder / "a").write_text("hours of work")
    target.mkdir()
    (target / "mine").write_text("x")


@pytest.mark.parametrize("force", [False, True])
def test_what_appears_in_the_place_meanwhile_is_kept(
    tmp_path: Path, force: bool
) -> None:
    target = tmp_path / "out"
    with (
        pytest.raises(ConfigError, match=r"complete in .*move it"),
        new_folder(target, force=force) as folder,
    ):
        fill_while_another_appears(folder, target)
    assert state(tmp_path) == {".out.new/a": "hours of work", "out/mine": "x"}


# --- readers, and two writers -------------------------------------------------------


def test_a_reader_leaves_a_writer_alone(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_folder(target) as folder:
        (folder / "a").write_text("new")
        finish_swap(target)
    assert state(tmp_path) == {"out/a": "new"}


def test_a_reader_does_not_finish_the_swap_of_a_writer_at_work(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_folder(target) as folder:
        (folder / "a").write_text("new")
        (tmp_path / ".out.old").mkdir()  # as between the two renames
        finish_swap(target)
        assert not target.exists()
        (tmp_path / ".out.old").rmdir()
    assert state(tmp_path) == {"out/a": "new"}


def test_a_second_writer_is_refused_and_the_first_one_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_folder(target) as folder:
        (folder / "a").write_text("first")
        command = [sys.executable, "-c", KILLER + FILL, str(target), "0"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "ConfigError" in done.stderr
        assert "another process is writing to this output folder" in done.stderr
        with pytest.raises(ConfigError, match="another process"):
            new_folder(target).__enter__()
    assert state(tmp_path) == {"out/a": "first"}


def test_a_folder_deleted_by_hand_does_not_come_back_in_half(tmp_path: Path) -> None:
    came_back = set()
    for step in range(1, 100):
        target = tmp_path / str(step) / "out"
        target.mkdir(parents=True)
        for name, text in OLD.items():
            (target / name).write_text(text)
        killed = killed_at(FILL, target, step)
        if target.exists() and state(target) == NEW:
            shutil.rmtree(target)
            finish_swap(target)
            found = state(target) if target.exists() else {}
            assert found in ({}, OLD), f"killed before change {step}"
            came_back.add(bool(found))
        if not killed:
            break
    assert came_back == {True, False}


@pytest.mark.parametrize("length", [252, 300])
def test_a_name_that_is_too_long_is_refused_in_words(
    tmp_path: Path, length: int
) -> None:
    target = tmp_path / ("x" * length)
    with pytest.raises(ConfigError, match="cannot be written"):
        refuse_replacing(target, force=True)
    with pytest.raises(ConfigError, match="cannot be written"):
        new_folder(target, force=True).__enter__()
    assert list(tmp_path.iterdir()) == []


# --- one file -------------------------------------------------------------------------


def is_page(head: bytes) -> bool:
    return head.startswith(b"<html>")


def test_a_new_file_is_allowed(tmp_path: Path) -> None:
    refuse_existing_file(tmp_path / "new.html", force=False, is_ours=is_page)
    assert not (tmp_path / "new.html").exists()  # only looked at


def test_an_existing_file_is_replaced_only_when_forced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"<html>old")
    with pytest.raises(ConfigError, match="already exists"):
        refuse_existing_file(path, force=False, is_ours=is_page)
    refuse_existing_file(path, force=True, is_ours=is_page)


def test_a_file_of_another_kind_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match="a file of another kind"):
        refuse_existing_file(path, force=True, is_ours=is_page)


def test_a_folder_a_link_and_a_place_without_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for name, reason in (
        (".", "expected a file"),
        ("link", "expected a file"),
        ("gone/page.html", "is no folder"),
    ):
        with pytest.raises(ConfigError, match=reason):
            refuse_existing_file(tmp_path / name, force=True, is_ours=is_page)
