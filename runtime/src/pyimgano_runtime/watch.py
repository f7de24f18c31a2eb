"""Inputs from a folder that is watched: each file once it is complete.

There is no way to ask a file whether its writer is done. A file is taken at once when
its inode changed after its last byte was written (it was renamed in, or its times were
set, which comes last), and else when size and time of change have stood still for a
while.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Final

from .errors import ConfigError
from .inputs import FileState, Input
from .ledger import input_digest
from .path_list import LOOK_AROUND_S
from .quick_dataclass import dataclass

DEFAULT_SETTLE_S: Final = 1.0
DEFAULT_POLL_S: Final = 0.5
_Found = tuple[Path, FileState, bool]  # whether it was renamed in
SHARE_OF_TIME: Final = 4  # looking through a large folder takes at most 1/5 of a core


@dataclass(frozen=True, slots=True)
class Watched:
    """A folder, which of its files are wanted, and how patient to be."""

    folder: Path
    wanted: Callable[[Path], bool]  # by the path relative to the folder
    settle_s: float = DEFAULT_SETTLE_S
    poll_s: float = DEFAULT_POLL_S


def watched_inputs(
    watched: Watched, done: set[bytes], say: Callable[[str], None]
) -> Iterator[Input | None]:
    """Give the files of a folder as they become complete, without end.

    A file is known by path, size and time of change: one that was replaced comes again.

    Args:
        done: digests of inputs that are not wanted any more; those given are added.
        say: told when the folder goes away and when it is back.

    Raises:
        ConfigError: the folder is not there at the start.
    """
    if not watched.folder.is_dir():
        raise ConfigError(
            f"--watch {watched.folder}: is no folder; make it first, or name another"
        )
    return _watch(watched, done, say)


def _watch(
    watched: Watched, done: set[bytes], say: Callable[[str], None]
) -> Iterator[Input | None]:
    waiting: dict[Path, tuple[FileState, float]] = {}  # not complete; since when
    gone = False
    while True:
        start = time.monotonic()
        try:
            found = _files(watched, done)
        except OSError as cause:
            if not gone:
                say(f"{watched.folder}: {cause.strerror}; waiting until it is back")
            found, gone = [], True
        else:
            if gone:
                say(f"{watched.folder}: is back")
            gone = False
        ready, waiting = _sift(found, waiting, done, start - watched.settle_s)
        now = time.monotonic()
        yield from ready  # while these are judged, the time goes on
        yield from _pause(now + max(watched.poll_s, SHARE_OF_TIME * (now - start)))


def _sift(
    found: list[_Found],
    waiting: dict[Path, tuple[FileState, float]],
    done: set[bytes],
    settled_by: float,
) -> tuple[list[Input], dict[Path, tuple[FileState, float]]]:
    """Give the files that are complete, the oldest first, and those that may not be."""
    ready, still = [], {}
    now = time.monotonic()
    for path, state, renamed in sorted(found, key=lambda f: (f[1].mtime_us, f[0])):
        before, since = waiting.get(path, (None, now))
        since = since if before == state else now
        if renamed or since <= settled_by:
            done.add(input_digest(str(path), state))
            ready.append(Input(str(path), path, state=state))
        else:
            still[path] = (state, since)
    return ready, still


def _files(watched: Watched, done: set[bytes]) -> list[_Found]:
    """Give the wanted files of the folder: path, state, whether it was renamed in.

    Without those that are done, so that memory does not grow with what stays there.

    Raises:
        OSError: the folder itself cannot be listed; what goes away in it is passed by.
    """
    found: list[_Found] = []
    folders = [watched.folder]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    _note(entry, watched, done, found, folders)
        except OSError:
            if folder == watched.folder:
                raise
    return found


def _note(
    entry: os.DirEntry[str],
    watched: Watched,
    done: set[bytes],
    found: list[_Found],
    folders: list[Path],
) -> None:
    """Append a wanted file to what was found, or a folder to those to look through."""
    path = Path(entry.path)
    try:
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith("."):  # where files are made ready
                folders.append(path)
            return
        if not watched.wanted(path.relative_to(watched.folder)):
            return
        facts = entry.stat()
    except OSError:
        return  # it vanished
    state = FileState(facts.st_size, facts.st_mtime_ns // 1000)
    if S_ISREG(facts.st_mode) and input_digest(str(path), state) not in done:
        found.append((path, state, _was_renamed(facts)))


def _was_renamed(facts: os.stat_result) -> bool:
    """Whether an inode changed after its last byte was written."""
    whole_seconds = facts.st_mtime_ns % 1_000_000_000 == 0  # a coarse clock, like FAT's
    if os.name != "posix" or whole_seconds or facts.st_size == 0:
        return False
    return facts.st_ctime_ns > facts.st_mtime_ns


def _pause(end: float) -> Iterator[None]:
    """Wait until then, and give None again and again meanwhile."""
    yield None
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_AROUND_S))
        yield None
