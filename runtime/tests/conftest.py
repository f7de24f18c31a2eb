"""What holds for every test of the runtime."""

from __future__ import annotations

import os
import signal

# Some tests import onnxruntime themselves, past `quiet_onnxruntime`: no telemetry from
# there either. It works only before the first import of onnxruntime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A script's `pytest &` and `nohup` leave SIGINT ignored, here and in every process that
# a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
