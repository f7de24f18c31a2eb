"""Inputs on stdin: raw frames of one size, one after the other and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .errors import ConfigError, ImageError
from .inputs import Input
from .path_list import arriving
from .quick_dataclass import dataclass

_SPELLING: Final = r"(\d{1,6})[xX](\d{1,6})[xX](\d{1,2})(?::(\w+))?"


@dataclass(frozen=True, slots=True)
class FrameShape:
    """What one raw frame is: uint8, rows from the top, pixels of 1 or 3 bytes."""

    height: int
    width: int
    channels: int  # 1 grey, 3 RGB

    @property
    def n_bytes(self) -> int:
        return self.height * self.width * self.channels


def parse_frames(text: str) -> FrameShape:
    """Give the shape that "HxWxC" or "HxWxC:uint8" spells.

    Raises:
        ValueError: another spelling, other channels or another type.
    """
    match = re.fullmatch(_SPELLING, text)
    if match is None or int(match[1]) == 0 or int(match[2]) == 0:
        raise ValueError(
            f'found "{text}", expected height x width x channels, such as '
            "480x640x3 or 480x640x1:uint8"
        )
    if match[3] not in ("1", "3"):
        raise ValueError(f"found {match[3]} channels, expected 1 (grey) or 3 (RGB)")
    if match[4] not in (None, "uint8"):
        raise ValueError(
            f"found {match[4]}, expected uint8; convert the frames by one fixed scale, "
            "such as pixel // 256, in training and in use alike"
        )
    return FrameShape(int(match[1]), int(match[2]), int(match[3]))


def frame_inputs(
    file: int, shape: FrameShape, *, max_pixels: int
) -> Iterator[Input | None]:
    """Give the frames that arrive at a descriptor: frame-000000, frame-000001, ...

    What is left at the end and is no whole frame becomes an error of its own.

    Args:
        max_pixels: of the bundle's input rules; a larger frame is not read at all.

    Raises:
        ConfigError: the frames are larger than that.
    """
    if shape.height * shape.width > max_pixels:
        raise ConfigError(
            f"--frames: {shape.height} x {shape.width} pixels (height x width), "
            f"expected at most {max_pixels:,} in all; crop or shrink the frames"
        )
    return _frames(file, shape)


def _frames(file: int, shape: FrameShape) -> Iterator[Input | None]:
    import numpy as np

    sides = (shape.height, shape.width, 3)[: 3 if shape.channels == 3 else 2]
    number = 0
    frame = bytearray()
    for data in arriving(file):
        if data is None:
            yield None
            continue
        left = memoryview(data)
        while left:
            taken = left[: shape.n_bytes - len(frame)]
            frame += taken
            left = left[len(taken) :]
            if len(frame) == shape.n_bytes:
                pixels = np.frombuffer(frame, np.uint8).reshape(sides)
                yield Input(f"frame-{number:06}", pixels=pixels)
                frame = bytearray()
                number += 1
    if frame:
        name = f"frame-{number:06}"
        error = ImageError(
            f"{name}: {len(frame):,} bytes, expected {shape.n_bytes:,}; stdin ended "
            "inside of a frame, or --frames names another size",
            code="FRAME_TRUNCATED",
            stage="read",
        )
        yield Input(name, pixels=error)
