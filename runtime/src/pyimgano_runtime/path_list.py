"""Inputs on stdin: a list of paths, one a line, read as it comes."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import ConfigError
from .inputs import Input

STDIN: Final = 0
CHUNK: Final = 1 << 16  # bytes, as much as a pipe holds
LONGEST_PATH: Final = 1 << 16  # bytes; Linux knows 4,096
LOOK_AROUND_S: Final = 0.1  # how long a source that has nothing waits at once


def listed_inputs(file: int, *, null: bool) -> Iterator[Input | None]:
    """Give the files of a list of paths, one a line, as the lines come.

    Empty lines are passed by; a carriage return at a line's end is no part of it.

    Args:
        file: descriptor to read from.
        null: the paths end with NUL instead, and may hold anything else.

    Raises:
        ConfigError: a line that is too long for a path.
    """
    end = b"\0" if null else b"\n"
    begun = b""
    for data in arriving(file):
        if data is None:
            yield None
            continue
        *whole, begun = (begun + data).split(end)
        for line in whole:
            yield from _input(line, null=null)
        if len(begun) > LONGEST_PATH:
            raise ConfigError(
                f"stdin: a line of more than {LONGEST_PATH:,} bytes, expected one "
                "path a line; for paths that end with NUL give --null"
            )
    yield from _input(begun, null=null)


def arriving(file: int) -> Iterator[bytes | None]:
    """Give what arrives at a descriptor until its end; None while there is nothing."""
    patience = 0.0
    while True:
        # Windows can wait for sockets only: there a read waits for as long as it takes.
        if os.name == "posix" and not select.select([file], [], [], patience)[0]:
            patience = LOOK_AROUND_S
            yield None
            continue
        patience = 0.0
        data = os.read(file, CHUNK)
        if not data:
            return
        yield data


def _input(line: bytes, *, null: bool) -> Iterator[Input]:
    if not null:
        line = line.removesuffix(b"\r")
    if line:
        path = Path(os.fsdecode(line))
        yield Input(str(path), path)
