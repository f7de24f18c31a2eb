"""Imports onnxruntime without its telemetry.

From 1.29 on, onnxruntime's packages for Linux write an identifier of the machine into
the user's cache folder when they are imported, and send events to their maker. A box on
a line must do neither. The switch works only before the import.
"""

from __future__ import annotations

import os
from typing import Any, Final

SWITCH: Final = "ORT_DISABLE_TELEMETRY"


def load_onnxruntime() -> Any:
    """Give the module onnxruntime; a switch that the user set is left as it is."""
    os.environ.setdefault(SWITCH, "1")
    import onnxruntime

    return onnxruntime
