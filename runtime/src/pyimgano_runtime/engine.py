"""Runs a category's models: uint8 pixels in, raw score and map out.

Most categories have one model. Where several share a backbone, its session gives the
features, and the category's own head makes score and map of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from .cores import usable_cores
from .errors import BundleError, ConfigError, ImageError
from .infer_config import ModelSpec
from .onnx_rules import check_graph
from .providers import (
    CPU,
    RECORD_PLACEMENT,
    Placement,
    no_provider,
    placement_of,
    provider_in_use,
    refused_by_provider,
    session_providers,
)
from .quiet_onnxruntime import load_onnxruntime

ImageBatch = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
Maps = npt.NDArray[np.float32]

_ONNX_TYPES: Final = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
FATAL: Final = 4  # onnxruntime's log level: what fails is raised and said by us
# A folder that cannot exist: onnxruntime would otherwise look for a model's external
# data in the current directory. It needs no writable place, as an empty one would.
_NO_FOLDER: Final = os.path.join(os.devnull, "none")  # noqa: PTH118 - no path of a file
# What onnxruntime's texts hold where an allocation failed, or was not even tried.
_MEMORY_SIGNS: Final = (
    *("bad_alloc", "bad allocation", "allocate", "would require more"),
    "resource temporarily unavailable",  # no room for another thread
)
_MORE_MEMORY: Final = (
    "use smaller pictures, allow more by --max-memory, or export the bundle again"
)


_ARENA_LOCK: Final = Lock()


class Engine(Protocol):
    """What a Predictor needs; onnxruntime here, torch on the training side."""

    name: str
    has_map: bool

    def run(
        self, images_u8: ImageBatch, *, with_map: bool
    ) -> tuple[Scores, Maps | None]:
        """Score a batch (N, H, W, 3) uint8 RGB: (N,) and (N, h, w) float32."""


class OnnxSession:
    """An onnxruntime session made from bytes that were read and hashed once."""

    placement: Placement

    def __init__(
        self,
        data: bytes,
        spec: ModelSpec,
        where: str,
        *,
        threads: int | None = None,
        providers: tuple[str, ...] = (CPU,),
    ) -> None:
        """Open it.

        Args:
            providers: full names, see `providers.resolve_providers`; those that
                cannot open the model are given up for the next one.

        Raises:
            BundleError: the model is refused.
            ConfigError: no provider could open it.
        """
        self.spec = spec
        self.where = where
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
        self._open_session(data, threads, providers)
        self._check_tensors(spec, where)

    def _open_session(
        self, data: bytes, threads: int | None, providers: tuple[str, ...]
    ) -> None:
        onnxruntime = load_onnxruntime()
        problems: list[str] = []
        for first, name in enumerate(providers):
            try:
                _share_arena()
                session = onnxruntime.InferenceSession(
                    data,
                    _session_options(threads, told=providers != (CPU,)),
                    providers=session_providers(providers[first:]),
                    enable_fallback=0,  # it would try again, and say so on our stdout
                )
                break
            except engine_errors() as cause:
                if _is_about_memory(cause) or name == CPU:
                    raise _refused(cause, self.where) from cause
                problems.append(refused_by_provider(name, _first_line(cause)))
        else:
            raise ConfigError(no_provider(problems[0]))
        # onnxruntime keeps the bytes, to begin anew on other devices: we never do, and
        # a second copy of every weight would stay in memory.
        session._model_bytes = None
        self._session = session
        self.placement = placement_of(session, providers, "".join(problems[:1]))
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True
        self._run_options.log_severity_level = FATAL

    def run(
        self, wanted: Sequence[str], feeds: dict[str, Any], image_shape: tuple[int, ...]
    ) -> list[npt.NDArray[np.float32]]:
        """Give the wanted outputs.

        Args:
            feeds: by name, arrays or what `pass_on` of another session gave.
            image_shape: of the pictures, to say which ones failed.
        """
        try:
            outputs: list[npt.NDArray[np.float32]] = self._session.run(
                wanted, feeds, self._run_options
            )
        except engine_errors() as cause:
            raise _image_error(cause, image_shape) from cause
        return outputs

    def pass_on(
        self, wanted: Sequence[str], feeds: dict[str, Any], image_shape: tuple[int, ...]
    ) -> list[Any]:
        """Give the wanted outputs as another session takes them, without a copy."""
        of_array = load_onnxruntime().OrtValue.ortvalue_from_numpy
        values = {
            name: of_array(feed) if isinstance(feed, np.ndarray) else feed
            for name, feed in feeds.items()
        }
        try:
            outputs: list[Any] = self._session.run_with_ort_values(
                wanted, values, self._run_options
            )
        except engine_errors() as cause:
            raise _image_error(cause, image_shape) from cause
        return outputs

    def _check_tensors(self, spec: ModelSpec, where: str) -> None:
        """Refuse a graph whose tensors are not what infer_config.json says."""
        found = [*self._session.get_inputs(), *self._session.get_outputs()]
        for tensor, told in zip(found, (*spec.inputs, *spec.outputs), strict=True):
            sides = list(tensor.shape)
            same_shape = len(sides) == len(told.shape) and all(
                side == wanted
                for side, wanted in zip(sides, told.shape, strict=True)
                if isinstance(side, int)  # a text or None: any size
            )
            if tensor.type != _ONNX_TYPES[told.dtype] or not same_shape:
                raise BundleError(
                    f"{where}: {told.name} is {tensor.type} {sides}, infer_config.json "
                    f"says {told.dtype} {list(told.shape)}; export the bundle again"
                )


def _session_options(threads: int | None, *, told: bool) -> Any:
    """Give the options of a session; `told`: note where each operator goes."""
    options = load_onnxruntime().SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Bytes that begin like onnxruntime's own format would pass check_graph by.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    if told:
        options.add_session_config_entry(RECORD_PLACEMENT, "1")
    return options


def _refused(cause: Exception, where: str) -> BundleError:
    if _is_about_memory(cause):
        return BundleError(
            f"{where}: the model asks for more memory than there is "
            f"({_first_line(cause)}); {_MORE_MEMORY}"
        )
    return BundleError(
        f"{where}: onnxruntime {load_onnxruntime().__version__} refuses the model "
        f"({_first_line(cause)}); export the bundle again"
    )


def _share_arena() -> None:
    """Let all sessions of this process compute in the same memory.

    Each would otherwise keep what its largest picture needed, for good: fifteen
    categories kept 382 MB, and keep 93 MB of one arena.
    """
    with _ARENA_LOCK:
        _register_arena()


@cache
def _register_arena() -> None:
    onnxruntime = load_onnxruntime()
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu",
        onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
        0,
        onnxruntime.OrtMemType.DEFAULT,
    )
    try:
        onnxruntime.create_and_register_allocator(memory, None)
    except engine_errors() as cause:
        # The program that we run in has one, and its arena serves as well.
        if "already registered" not in str(cause):
            raise


class ChainEngine:
    """A category's models in their order: pixels go in, the last gives the score."""

    def __init__(self, sessions: Sequence[OnnxSession]) -> None:
        """Take open sessions, which other categories' engines may use too.

        Raises:
            ConfigError: none of the providers that they were asked for computes.
        """
        self.name = f"onnxruntime {load_onnxruntime().__version__}"
        self.provider = provider_in_use([s.placement for s in sessions])
        *self._before, self._last = sessions
        score, map_spec = (self._last.spec.output(k) for k in ("score", "anomaly_map"))
        assert score is not None
        self.has_map = map_spec is not None
        self._wanted = [score.name, *([map_spec.name] if map_spec else [])]
        self._map_size = map_spec.shape[1:] if map_spec else ()
        taken = {i.name for session in sessions for i in session.spec.inputs}
        self._features = [
            [o.name for o in session.spec.outputs if o.name in taken]
            for session in self._before
        ]

    def run(
        self, images_u8: ImageBatch, *, with_map: bool
    ) -> tuple[Scores, Maps | None]:
        """Score a batch; see `Engine.run`."""
        known: dict[str, Any] = {}
        for session, names in zip(self._before, self._features, strict=True):
            feeds = _feeds(session.spec, images_u8, known)
            given = session.pass_on(names, feeds, images_u8.shape)
            known |= zip(names, given, strict=True)
        outputs = self._last.run(
            self._wanted if with_map else self._wanted[:1],
            _feeds(self._last.spec, images_u8, known),
            images_u8.shape,
        )
        n = len(images_u8)
        for output, shape in zip(outputs, ((n,), (n, *self._map_size)), strict=False):
            if output.shape != shape:
                raise ImageError(
                    f"the graph gave an output of shape {output.shape} for "
                    f"{n} pictures, expected {shape}; export the bundle again",
                    code="INFERENCE_FAILED",
                    stage="infer",
                )
        return outputs[0], outputs[1] if len(outputs) > 1 else None


class OnnxEngine(ChainEngine):
    """The engine of one whole graph."""

    def __init__(
        self, data: bytes, spec: ModelSpec, where: str, *, threads: int | None = None
    ) -> None:
        super().__init__([OnnxSession(data, spec, where, threads=threads)])


def _feeds(
    spec: ModelSpec, images_u8: ImageBatch, known: dict[str, Any]
) -> dict[str, Any]:
    return {
        i.name: images_u8 if i.kind == "image" else known[i.name] for i in spec.inputs
    }


def _image_error(cause: Exception, shape: tuple[int, ...]) -> ImageError:
    if _is_about_memory(cause):
        return ImageError(
            "the model asks for more memory than there is for an image of "
            f"shape {shape}; {_MORE_MEMORY}",
            code="OUT_OF_MEMORY",
            stage="infer",
        )
    return ImageError(
        f"onnxruntime could not score an image of shape {shape} ({_first_line(cause)})",
        code="INFERENCE_FAILED",
        stage="infer",
    )


def _is_about_memory(cause: Exception) -> bool:
    said = str(cause).lower()
    return isinstance(cause, MemoryError) or any(sign in said for sign in _MEMORY_SIGNS)


def _first_line(cause: Exception) -> str:
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def engine_errors() -> tuple[type[Exception], ...]:
    """The exception classes of onnxruntime, which have no common base of their own.

    With those that its C++ exceptions become: std::bad_alloc, system_error (no more
    threads), length_error, out_of_range, overflow_error.
    """
    load_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    from_cpp = (MemoryError, RuntimeError, ValueError, IndexError, OverflowError)
    return from_cpp + tuple(
        member
        for member in vars(state).values()
        if isinstance(member, type) and issubclass(member, Exception)
    )
