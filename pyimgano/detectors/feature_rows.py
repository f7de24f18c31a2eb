"""Where the numbers of many pictures lie: in memory, or in a file read by rows."""

from __future__ import annotations

import math
import tempfile
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

FloatRows = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

FLOAT_BYTES: Final = 4


class Rows(Protocol):
    """Rows of equal shape, float32, one a picture."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""

    def write(self, start: int, values: FloatRows) -> None:
        """Set the rows from `start` on."""

    def read(self, indices: Indices) -> FloatRows:
        """Give a copy (k, ...) of k rows, in the order of `indices`."""

    def columns(self, start: int, end: int, shape: tuple[int, ...]) -> Rows:
        """Give the numbers start..end of each row, shaped; nothing is copied."""


@dataclass(frozen=True, slots=True)
class MemoryRows:
    """Rows in an array (n, ...)."""

    values: FloatRows

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows.shape`."""
        return self.values.shape

    def write(self, start: int, values: FloatRows) -> None:
        """See `Rows.write`."""
        self.values[start : start + len(values)] = values

    def read(self, indices: Indices) -> FloatRows:
        """See `Rows.read`."""
        return np.ascontiguousarray(self.values[indices])

    def columns(self, start: int, end: int, shape: tuple[int, ...]) -> MemoryRows:
        """See `Rows.columns`."""
        flat = self.values.reshape(len(self.values), -1)[:, start:end]
        return MemoryRows(flat.reshape(len(flat), *shape))


class ScratchFile:
    """A file without a name: gone when nobody holds it, after a kill too."""

    def __init__(self, folder: Path) -> None:
        self.file: BinaryIO = tempfile.TemporaryFile(  # noqa: SIM115 - closed below
            dir=folder, buffering=0
        )
        weakref.finalize(self, self.file.close)


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows in a file, read and written a few at a time.

    Not mapped into memory: mapped pages count as this process's until the system wants
    them back, so a budget would be neither kept nor seen to be kept.
    """

    scratch: ScratchFile
    shape: tuple[int, ...]  # (n, ...)
    stride: int  # bytes from one row to the next
    offset: int = 0  # bytes before the part of a row that is given

    @classmethod
    def empty(cls, folder: Path, shape: tuple[int, ...]) -> Self:
        """Give rows of zeros; the file grows as it is written."""
        return cls(ScratchFile(folder), shape, math.prod(shape[1:]) * FLOAT_BYTES)

    def write(self, start: int, values: FloatRows) -> None:
        """See `Rows.write`; of whole rows."""
        self.scratch.file.seek(start * self.stride)
        data = np.ascontiguousarray(values).data.cast("B")
        while data:  # an unbuffered file may take less than it is given
            data = data[self.scratch.file.write(data) :]

    def read(self, indices: Indices) -> FloatRows:
        """See `Rows.read`."""
        rows = np.empty((len(indices), *self.shape[1:]), dtype=np.float32)
        for row, index in zip(rows, indices.tolist(), strict=True):
            self.scratch.file.seek(index * self.stride + self.offset)
            data = row.data.cast("B")
            while data:
                n_bytes = self.scratch.file.readinto(data)  # type: ignore[attr-defined]
                if not n_bytes:
                    raise EOFError(f"row {index} was never written")
                data = data[n_bytes:]
        return rows

    def columns(self, start: int, end: int, shape: tuple[int, ...]) -> FileRows:
        """See `Rows.columns`."""
        if math.prod(shape) != end - start:
            raise ValueError(f"{end - start} numbers have not the shape {shape}")
        offset = self.offset + start * FLOAT_BYTES
        return replace(self, shape=(self.shape[0], *shape), offset=offset)
