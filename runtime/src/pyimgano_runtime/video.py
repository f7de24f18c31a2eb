"""Inputs from a video file or a camera, by OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ConfigError, ImageError
from .inputs import Input
from .quiet_opencv import quiet_opencv


def video_inputs(source: str) -> Iterator[Input | None]:
    """Give the frames of a video file, or of the camera with an index.

    A frame is called <file or camera-N>/frame-000000. A camera has no end: where it
    gives no more, that is an error of its own and the last input.

    Args:
        source: digits are a camera's index, anything else is a path.

    Raises:
        ConfigError: OpenCV is missing, or it cannot open the source.
    """
    try:
        import cv2
    except ImportError as cause:
        raise ConfigError(
            f"--video needs OpenCV ({cause}): pip install opencv-python-headless"
        ) from cause
    camera = source.isascii() and source.isdecimal()
    if not camera and not Path(source).exists():
        raise ConfigError(f"--video {source}: no such file; check the path")
    with quiet_opencv():
        capture = cv2.VideoCapture(int(source) if camera else source)
    if not capture.isOpened():
        what = "camera" if camera else "file"
        raise ConfigError(
            f"--video {source}: OpenCV {cv2.__version__} opens no such {what}; check "
            "that it is there, that it may be read, and its format"
        )
    name = f"camera-{source}" if camera else source
    return _frames(capture, name, endless=camera)


def _frames(capture: Any, name: str, *, endless: bool) -> Iterator[Input | None]:
    import cv2

    number = 0
    try:
        while True:
            frame_name = f"{name}/frame-{number:06}"
            start = time.perf_counter()
            there, bgr = capture.read()
            if not there:
                break
            pixels = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            ms = (time.perf_counter() - start) * 1000
            yield Input(frame_name, pixels=pixels, decode_ms=ms)
            yield None  # judge it now: a camera takes its time for the next one
            number += 1
    finally:
        capture.release()
    if endless or number == 0:
        error = ImageError(
            f"{frame_name}: the source gives no more frames; check the cable, or that "
            "the file is a whole video",
            code="VIDEO_ENDED",
            stage="read",
        )
        yield Input(frame_name, pixels=error)
