"""Runs one graph: uint8 pixels in, raw score and map out."""

from __future__ import annotations

import os
import tempfile
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .errors import BundleError, ImageError
from .infer_config import ModelSpec
from .onnx_rules import check_graph

ImageBatch = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
Maps = npt.NDArray[np.float32]


class Engine(Protocol):
    """What a Predictor needs; onnxruntime here, torch on the training side."""

    name: str
    has_map: bool

    def run(
        self, images_u8: ImageBatch, *, with_map: bool
    ) -> tuple[Scores, Maps | None]:
        """Score a batch (N, H, W, 3) uint8 RGB: (N,) and (N, h, w) float32."""


class OnnxEngine:
    """An onnxruntime session made from bytes that were read and hashed once."""

    def __init__(
        self, data: bytes, spec: ModelSpec, where: str, *, threads: int | None = None
    ) -> None:
        self.has_map = spec.output("anomaly_map") is not None
        facts = check_graph(data, where)
        if facts.opset != spec.opset:
            raise BundleError(
                f"{where}: opset is {facts.opset}, infer_config.json says {spec.opset}"
            )
        declared = ([i.name for i in spec.inputs], [o.name for o in spec.outputs])
        if (facts.inputs, facts.outputs) != declared:
            raise BundleError(
                f"{where}: has inputs {facts.inputs} and outputs {facts.outputs}, "
                f"infer_config.json says {declared[0]} and {declared[1]}"
            )
        self._input = spec.inputs[0].name
        self._score = next(o.name for o in spec.outputs if o.kind == "score")
        map_spec = spec.output("anomaly_map")
        self._map = map_spec.name if map_spec is not None else None
        self._open_session(data, where, threads)

    def _open_session(self, data: bytes, where: str, threads: int | None) -> None:
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with tempfile.TemporaryDirectory(prefix="pyimgano-empty-") as empty:
            # External data would otherwise be looked for in the current directory.
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", empty
            )
            try:
                self._session = onnxruntime.InferenceSession(
                    data, options, providers=["CPUExecutionProvider"]
                )
            except engine_errors() as cause:
                raise BundleError(
                    f"{where}: onnxruntime {onnxruntime.__version__} refuses the model "
                    f"({str(cause).splitlines()[0]}); export the bundle again"
                ) from cause
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True

    def run(
        self, images_u8: ImageBatch, *, with_map: bool
    ) -> tuple[Scores, Maps | None]:
        """Score a batch; see `Engine.run`."""
        wanted = [self._score]
        if with_map and self._map is not None:
            wanted.append(self._map)
        try:
            outputs = self._session.run(
                wanted, {self._input: images_u8}, self._run_options
            )
        except engine_errors() as cause:
            raise ImageError(
                f"onnxruntime could not score an image of shape {images_u8.shape} "
                f"({str(cause).splitlines()[0]})",
                code="INFERENCE_FAILED",
                stage="infer",
            ) from cause
        return outputs[0], outputs[1] if len(outputs) > 1 else None


def engine_errors() -> tuple[type[Exception], ...]:
    """The exception classes of onnxruntime, which have no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(
        member
        for member in vars(state).values()
        if isinstance(member, type) and issubclass(member, Exception)
    )


def usable_cores() -> int:
    """Cores this process may use: its affinity, within the container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as stream:  # noqa: PTH123 - no pathlib at start-up
            quota, period = stream.read().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 quota here
    return max(1, cores)
