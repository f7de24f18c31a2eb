"""Keeps OpenCV's log lines off stderr while it decodes: the error row says it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0  # decodes that run now, in any thread
_level_before = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log for the block; the last one out restores its level."""
    global _inside, _level_before
    from cv2.utils import logging as log

    with _lock:
        if _inside == 0:
            _level_before = log.getLogLevel()
            log.setLogLevel(log.LOG_LEVEL_SILENT)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                log.setLogLevel(_level_before)
