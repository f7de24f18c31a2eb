"""What holds for every test of the runtime."""

from __future__ import annotations

import os

# Some tests import onnxruntime themselves, past `quiet_onnxruntime`: no telemetry from
# there either. It works only before the first import of onnxruntime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
