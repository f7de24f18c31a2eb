"""Detectors of other packages: found by entry point, or named on the command line.

    [project.entry-points."pyimgano.detectors"]        in a package's pyproject.toml
    mean_colour = "my_package.mean_colour:MeanColour"

    pyimgano train --plugin my_package.mean_colour:MeanColour ...

Nothing of a package is imported before its detector's name is asked for, and nothing
that a file names is ever imported.
"""

from __future__ import annotations

import dataclasses
import errno
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from pyimgano.option_fields import options_schema, read_options
from pyimgano_runtime.errors import ConfigError, PluginError, PyimganoError, raise_all

GROUP: Final = "pyimgano.detectors"
HOW_TO_LOAD: Final = (
    "a detector of another package is found when that package is installed, or by "
    "--plugin package.module:Class"
)
_HOME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")

# (method, what it is called with) besides self or cls.
_METHODS: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "fit": (1, ("context",)),
    "forward": (1, ()),
    "preprocess_steps": (0, ()),
    "postprocess_steps": (0, ()),
    "map_size": (0, ()),
    "used_backbones": (0, ()),
    "hyper_parameters": (0, ()),
    "from_config": (1, ()),
    "from_state": (2, ()),
}
_FEATURE_PARTS: Final = {
    "fit": ("fit_features",),
    "forward": ("features", "score_features"),
}
_FACTS: Final = ("uses_defects", "needs_weights", "has_map", "trains")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A detector class of another package, checked."""

    name: str
    home: str  # "package.module:Class"
    origin: str  # how it was named, for messages
    cls: Any


_loaded: Final[dict[str, Plugin]] = {}


def load_plugins(homes: Iterable[str]) -> None:
    """Register detectors of `--plugin package.module:Class`.

    Raises:
        ConfigError: one cannot be imported, lacks a part of the interface, or has a
            name that is taken; all at once.
    """
    problems: list[str] = []
    for home in homes:
        where = f"--plugin {home}"
        try:
            cls = _import(home, where)
            _register(Plugin(_checked_name(cls, where), home, where, cls))
        except ConfigError as error:
            problems.append(str(error))
    raise_all(problems)


def loaded_homes() -> list[str]:
    """Give what `load_plugins` needs in another process to know the same names."""
    return [plugin.home for plugin in _loaded.values()]


def loaded_names() -> list[str]:
    """Give the names of plug-ins that were loaded."""
    return list(_loaded)


def plugin_names() -> list[str]:
    """Give the names of detectors of other packages; none of them is imported."""
    return sorted({*_loaded, *_registered()})


def home_of(name: str) -> str | None:
    """Give `package.module:Class` of a plug-in's name; None: not one, or not loaded."""
    return _loaded[name].home if name in _loaded else None


def plugin_class(name: str, where: str) -> Any:
    """Give the class of a detector of another package, None if there is none.

    Raises:
        ConfigError: two packages register the name, it is that of a detector of ours,
            or the package is broken.
    """
    found = _registered().get(name, ())
    homes = {point.value: _origin(point) for point in found}
    loaded = _loaded.get(name)
    if loaded is not None:
        homes.setdefault(loaded.home, loaded.origin)
    _refuse_taken(name, homes, where)
    if loaded is not None:
        return loaded.cls
    if not found:
        return None
    point = found[0]
    origin = f"{where}: {_origin(point)}"
    cls = _import(point.value, origin)
    own = _checked_name(cls, origin)
    if own != name:
        raise ConfigError(
            f'{origin} is registered as "{name}", but its class is called "{own}"; the '
            "entry point and Class.name must be the same"
        )
    _loaded[name] = Plugin(name, point.value, _origin(point), cls)
    return cls


@contextmanager
def plugin_call(called: Any, what: str) -> Iterator[None]:
    """Turn what a plug-in raises into an error of ours that names it.

    Args:
        called: a detector or its class; what others raise is not touched.
        what: what was asked of it, such as "fit".

    Raises:
        PluginError: the traceback of the plug-in is its cause.
    """
    try:
        yield
    except PyimganoError:
        raise
    except Exception as cause:  # a plug-in is another's code: anything may come
        by_class = {plugin.cls: plugin for plugin in _loaded.values()}
        # A member of an ensemble may be the plug-in.
        used = [called] if isinstance(called, type) else map(type, called.modules())
        parts = [by_class[cls] for cls in used if cls in by_class]
        disk_full = isinstance(cause, OSError) and cause.errno == errno.ENOSPC
        if not parts or disk_full:
            raise
        names = ", ".join(dict.fromkeys(f"{p.name} ({p.home})" for p in parts))
        raise PluginError(f"plug-in {names}: {what} failed: {_words(cause)}") from cause


def load_hint(home: Any) -> str:
    """Say how a checkpoint's plug-in is loaded, if the checkpoint names one."""
    if not isinstance(home, str) or _HOME.fullmatch(home) is None:
        return ""
    return f"; it was trained by a plug-in: pass --plugin {home}"


def _register(plugin: Plugin) -> None:
    homes = {
        point.value: _origin(point) for point in _registered().get(plugin.name, ())
    }
    earlier = _loaded.get(plugin.name)
    if earlier is not None:
        homes.setdefault(earlier.home, earlier.origin)
    homes.setdefault(plugin.home, plugin.origin)
    _refuse_taken(plugin.name, homes, plugin.origin)
    _loaded[plugin.name] = plugin


def _refuse_taken(name: str, homes: Mapping[str, str], where: str) -> None:
    """Refuse a name that several classes claim.

    Args:
        homes: `package.module:Class` -> how it was named.
    """
    from . import DETECTORS

    if name in DETECTORS:
        claims = [f"{DETECTORS[name]} (of pyimgano itself)"] if homes else []
    else:
        claims = []
    claims += [
        home if home in origin else f"{home} ({origin})"
        for home, origin in homes.items()
    ]
    if len(claims) > 1:
        raise ConfigError(
            f'{where}: the detector name "{name}" is taken twice: by '
            f"{' and by '.join(claims)}; give one of the classes another name, or "
            "leave its package out"
        )


def _registered() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Give the entry points of installed packages, by name."""
    return _registered_on(tuple(sys.path))


@lru_cache(maxsize=4)
def _registered_on(path: tuple[str, ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        # A distribution may be seen twice, such as an editable one.
        found.setdefault(point.name, {}).setdefault(point.value, point)
    return {name: tuple(points.values()) for name, points in found.items()}


def _origin(point: EntryPoint) -> str:
    package = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"entry point{package}"


def _import(home: str, where: str) -> Any:
    """Give what `package.module:Class` names."""
    if _HOME.fullmatch(home) is None:
        raise ConfigError(
            f'{where}: "{home}": expected package.module:Class, such as '
            "my_package.detector:MyDetector"
        )
    module, _, attribute = home.partition(":")
    try:
        found = import_module(module)
    except Exception as cause:  # another's code runs here: anything may come
        missing = isinstance(cause, ModuleNotFoundError) and module.startswith(
            str(cause.name)
        )
        hint = (
            "; looked in the installed packages, on PYTHONPATH and in the current "
            "folder"
            if missing
            else ""
        )
        raise ConfigError(
            f"{where}: {home} cannot be imported ({_words(cause)}){hint}"
        ) from cause
    cls = getattr(found, attribute, None)
    if not isinstance(cls, type):
        known = [name for name, value in vars(found).items() if isinstance(value, type)]
        own = [name for name in known if vars(found)[name].__module__ == module]
        raise ConfigError(
            f"{where}: {home}: {module} ({found.__file__}) has no class "
            f'"{attribute}"; its classes: {", ".join(own) or "none"}'
        )
    return cls


def _checked_name(cls: type, where: str) -> str:
    problems = interface_problems(cls)
    if problems:
        raise ConfigError(
            f"{where}: {cls.__module__}:{cls.__qualname__} is not a detector yet: "
            f"{'; '.join(problems)}. docs/plugins.md says what each part is"
        )
    name: str = cls.name  # type: ignore[attr-defined]
    return name


def interface_problems(cls: Any) -> list[str]:
    """Say all that a class lacks of the detector interface; empty: it honours it."""
    from torch import nn

    if not issubclass(cls, nn.Module):
        return [
            "it is not an nn.Module (subclass pyimgano.detectors.interface:Detector)"
        ]
    problems = []
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        problems.append(
            f'name: found {name!r}, expected a text such as "mean_colour" (lower-case '
            "letters, digits, _)"
        )
    for fact in _FACTS:
        if not isinstance(getattr(cls, fact, None), bool):
            found = repr(getattr(cls, fact, None))
            problems.append(f"{fact}: found {found}, expected True or False")
    problems += [
        problem
        for method, call in _METHODS.items()
        if (problem := _method_problem(cls, method, call)) is not None
    ]
    return problems + (_config_problems(cls) or _preset_problems(cls))


def _method_problem(
    cls: Any, method: str, call: tuple[int, tuple[str, ...]]
) -> str | None:
    from torch import nn

    from .feature_detector import FeatureDetector
    from .interface import Detector

    found = getattr(cls, method, None)
    promised = method in ("fit", "forward", "preprocess_steps", "map_size")
    only_promised = promised and found is getattr(Detector, method)
    if not callable(found) or only_promised or found is getattr(nn.Module, method, 0):
        return f"{method}: missing"
    count, keywords = call
    # A class method is bound already; of the others `self` is an argument too.
    arguments = [None] * (count + (0 if inspect.ismethod(found) else 1))
    try:
        inspect.signature(found).bind(*arguments, **dict.fromkeys(keywords))
    except TypeError as cause:
        return f"{method}: cannot be called as the interface says ({cause})"
    if found is getattr(FeatureDetector, method, None):
        # Its fit and forward stand on three methods of the subclass.
        lacking = [
            part
            for part in _FEATURE_PARTS.get(method, ())
            if getattr(cls, part) is getattr(FeatureDetector, part)
        ]
        return f"{', '.join(lacking)}: missing" if lacking else None
    return None


def _config_problems(cls: Any) -> list[str]:
    config = getattr(cls, "Config", None)
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        return [f"Config: found {config!r}, expected a frozen dataclass of its options"]
    problems = []
    if not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        problems.append("Config: expected @dataclass(frozen=True, kw_only=True)")
    for item in dataclasses.fields(config):
        if not {"doc", "low", "high", "choices"} <= item.metadata.keys():
            problems.append(
                f"Config.{item.name}: expected pyimgano.option_fields.option(default, "
                "what it does)"
            )
    if problems:
        return problems
    try:
        options_schema(config)
    except (KeyError, NameError, TypeError) as cause:
        return [f"Config: holds an option of a type that JSON has not ({cause})"]
    names = {item.name for item in dataclasses.fields(config)}
    needed = {"backbone", "taps", "weights_file"} - names
    if cls.needs_weights is True and needed and not _makes_itself(cls):
        problems.append(
            f"Config: needs_weights is True, but it has no {', '.join(sorted(needed))}"
        )
    return problems


def _makes_itself(cls: Any) -> bool:
    """Whether it makes its own backbones, so that their options are its own affair."""
    from .interface import Detector

    own = getattr(cls, "unfitted", None)
    return getattr(own, "__func__", None) is not Detector.unfitted.__func__  # type: ignore[attr-defined]


def _preset_problems(cls: Any) -> list[str]:
    presets = getattr(cls, "presets", None)
    if not isinstance(presets, Mapping):
        return [f"presets: found {presets!r}, expected an object; {{}} for none"]
    problems: list[str] = []
    for name, values in presets.items():
        try:
            read_options(cls.Config, dict(values), "presets", problems, at=f"{name}.")
        except ValueError as cause:  # from the class's own check of options together
            problems.append(f"presets: {name}: {cause}")
    return problems


def _words(cause: BaseException) -> str:
    text = (str(cause).splitlines() or [""])[0]
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
