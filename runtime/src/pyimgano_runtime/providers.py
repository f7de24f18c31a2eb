"""Which of onnxruntime's execution providers computes a model, and which really does.

onnxruntime goes on with the CPU, and says nothing to a program, where a provider's
libraries do not load or where a provider takes none of a model's operators. Here the
order that was asked for is compared with what came of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .errors import ConfigError
from .quick_dataclass import dataclass
from .quiet_onnxruntime import load_onnxruntime

CPU: Final = "CPUExecutionProvider"
RECORD_PLACEMENT: Final = "session.record_ep_graph_assignment_info"
# Some of its texts begin with "/path/of/file.cc:729 void a_function(its, types) ".
_SOURCE_LINE: Final = re.compile(r"^\S+\.(?:cc|h):\d+ [^()]*\([^()]*\) ")
_SUFFIX: Final = "executionprovider"
_ALIASES: Final = {"directml": "dml", "trt": "tensorrt", "gpu": "cuda"}
# The package whose build has it; it takes the place of any other build.
_PACKAGES: Final = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "dml": "onnxruntime-directml",
    "migraphx": "onnxruntime-migraphx",
    "qnn": "onnxruntime-qnn",
}
# Convolutions on NVIDIA's tensor cores keep 10 bits of each number by default; scores
# would differ from the trained model's by about 1e-3.
_OPTIONS: Final = {"CUDAExecutionProvider": {"use_tf32": "0"}}


@dataclass(frozen=True, slots=True)
class Placement:
    """What came of the providers that one session was asked for."""

    asked: tuple[str, ...]  # full names, the preferred one first
    started: tuple[str, ...]  # those that onnxruntime registered
    operators: Mapping[str, int] | None  # by provider; None: this version does not tell
    problem: str = ""  # why preferred ones were given up when the session was made


@dataclass(frozen=True, slots=True)
class ProviderInUse:
    """The provider of a category's models."""

    name: str  # as onnxruntime has it: "CUDAExecutionProvider"
    operators: Mapping[str, int] | None  # of all models, by provider
    fallback: str = ""  # a sentence, where it is not the one that was asked for first

    def describe(self) -> str:
        """Give its name and, where another one helps, its share of the operators."""
        if self.operators is None or len(self.operators) < 2:
            return self.name
        of_all = sum(self.operators.values())
        return f"{self.name} ({self.operators[self.name]} of {of_all} operators)"


def resolve_providers(asked: Sequence[str] | None) -> tuple[str, ...]:
    """Give the full names of providers, all of which this onnxruntime has.

    Args:
        asked: as onnxruntime names them or short, in any case: "cuda", "openvino",
            "CoreMLExecutionProvider"; the preferred one first. One text may hold
            several: "cuda,cpu". None: the CPU.

    Raises:
        ConfigError: one is unknown, or this build of onnxruntime does not have it.
    """
    if not asked:
        return (CPU,)
    if isinstance(asked, str):
        asked = asked.split(",")
    onnxruntime = load_onnxruntime()
    available = {_short(name): name for name in onnxruntime.get_available_providers()}
    found: list[str] = []
    for text in asked:
        name = available.get(_short(text))
        if name is None:
            raise ConfigError(_not_there(text, list(available.values())))
        if name not in found:
            found.append(name)
    return tuple(found)


def session_providers(names: Sequence[str]) -> list[str | tuple[str, dict[str, str]]]:
    """Give the names with the options that we set, as a session takes them."""
    return [(n, _OPTIONS[n]) if n in _OPTIONS else n for n in names]


def placement_of(session: Any, asked: tuple[str, ...], problem: str) -> Placement:
    """Say what came of a session's providers."""
    operators: dict[str, int] | None = None
    if asked == (CPU,):
        return Placement(asked, asked, None, problem)
    if hasattr(session, "get_provider_graph_assignment_info"):  # from 1.24 on
        operators = {}
        for part in session.get_provider_graph_assignment_info():
            count = operators.get(part.ep_name, 0) + len(part.get_nodes())
            operators[part.ep_name] = count
    return Placement(asked, tuple(session.get_providers()), operators, problem)


def provider_in_use(placements: Sequence[Placement]) -> ProviderInUse:
    """Give the provider that computes, of those asked for the preferred one.

    Raises:
        ConfigError: none of them does, so that the CPU would in their place.
    """
    asked = placements[0].asked
    operators: dict[str, int] | None = {}
    for placement in placements:
        if operators is None or placement.operators is None:
            operators = None
        else:
            for name, count in placement.operators.items():
                operators[name] = operators.get(name, 0) + count
    for name in asked:
        if name == CPU or any(_computes(name, p) for p in placements):
            why = "" if name == asked[0] else _why_not(asked[0], placements)
            fallback = f"{why}; {name} computes in its place" if why else ""
            return ProviderInUse(name, operators, fallback)
    raise ConfigError(no_provider(_why_not(asked[0], placements)))


def no_provider(why: str) -> str:
    """Say why nothing computes, and what to do."""
    return (
        f'--provider: {why}; install what it needs, name another one, or add ",cpu" to '
        "let the CPU compute in its place"
    )


def refused_by_provider(name: str, cause: str) -> str:
    """Say that a provider could not make a session."""
    said = _SOURCE_LINE.sub("", cause)
    return f"{name} could not open the model here ({said})"


def _computes(name: str, placement: Placement) -> bool:
    if name not in placement.started:
        return False
    return placement.operators is None or placement.operators.get(name, 0) > 0


def _why_not(name: str, placements: Sequence[Placement]) -> str:
    for placement in placements:
        if placement.problem:
            return placement.problem
        if name not in placement.started:
            return (
                f"{name} could not be started on this machine (what onnxruntime says "
                "of it stands on stderr)"
            )
    return f"{name} takes none of this model's operators"


def _not_there(text: str, available: list[str]) -> str:
    short = _short(text)
    known = [_short(name) for name in load_onnxruntime().get_all_providers()]
    has = f"this onnxruntime has {', '.join(available)}"
    if short not in known:
        from difflib import get_close_matches

        close = get_close_matches(short, known, n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        return f'--provider: found "{text}"{hint}; {has}'
    package = _PACKAGES.get(short)
    advice = (
        f"install {package} in place of the build that is here"
        if package
        else "install a build of onnxruntime that has it in place of this one"
    )
    return f"--provider {text}: {has}; name one of them, or {advice}"


def _short(name: str) -> str:
    short = name.strip().lower().removesuffix(_SUFFIX)
    return _ALIASES.get(short, short)
