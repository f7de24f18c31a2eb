"""The table of detectors, and how one is made, saved and loaded by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pyimgano.option_fields import read_options
from pyimgano_runtime._reader import Fields, closest, parse_json
from pyimgano_runtime.atomic import write_bytes
from pyimgano_runtime.errors import ConfigError, raise_all

from .plugins import (
    HOW_TO_LOAD,
    home_of,
    load_hint,
    plugin_call,
    plugin_class,
    plugin_names,
)

CHECKPOINT_FORMAT: Final = "pyimgano.detector.1"
# safetensors writes several metadata keys in random order; one keeps bytes repeatable.
METADATA_KEY: Final = "pyimgano"

DETECTORS: Final[dict[str, str]] = {
    "anomaly_dino": "pyimgano.detectors.anomaly_dino:AnomalyDino",
    "dfm": "pyimgano.detectors.dfm:Dfm",
    "efficientad": "pyimgano.detectors.efficientad:EfficientAD",
    "knn": "pyimgano.detectors.knn:Knn",
    "ensemble": "pyimgano.detectors.ensemble:Ensemble",
    "padim": "pyimgano.detectors.padim:PaDiM",
    "patchcore": "pyimgano.detectors.patchcore:PatchCore",
    "pixel_stats": "pyimgano.detectors.pixel_stats:PixelStats",
    "reverse_distillation": (
        "pyimgano.detectors.reverse_distillation:ReverseDistillation"
    ),
    "stfpm": "pyimgano.detectors.stfpm:STFPM",
    "supersimplenet": "pyimgano.detectors.supersimplenet:SuperSimpleNet",
}


def detector_class(name: str, where: str = "detector") -> Any:
    """Give the class of a registered detector, ours or a plug-in's.

    Raises:
        ConfigError: unknown name; lists the known ones and the closest. Or a plug-in
            that is broken, or whose name is taken.
    """
    plugin = plugin_class(name, where)
    if plugin is not None:
        return plugin
    home = DETECTORS.get(name)
    if home is None:
        known = sorted({*DETECTORS, *plugin_names()})
        raise ConfigError(
            f'{where}: no detector "{name}" ({closest(name, known)}); '
            f"known: {', '.join(known)}; {HOW_TO_LOAD}"
        )
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute)


def create_detector(
    name: str, options: Mapping[str, Any] | None = None, *, preset: str | None = None
) -> Any:
    """Give an unfitted detector: options before preset before default.

    Raises:
        ConfigError: unknown detector, preset or option, or a value out of range.
    """
    cls = detector_class(name)
    config = detector_config(cls, options or {}, "detector options", preset=preset)
    with plugin_call(cls, "making it"):
        return cls.from_config(config)


def detector_config(
    cls: Any, options: Mapping[str, Any], where: str, *, preset: str | None = None
) -> Any:
    """Give the checked hyper-parameters of a detector class.

    Raises:
        ConfigError: unknown preset or options, wrong types, values out of range; all
            at once.
    """
    problems: list[str] = []
    config = read_detector_config(cls, options, where, problems, preset=preset)
    raise_all(problems)
    return config


def read_detector_config(
    cls: Any,
    options: Mapping[str, Any],
    where: str,
    problems: list[str],
    *,
    preset: str | None = None,
) -> Any:
    """Give the hyper-parameters; what is wrong is appended to `problems`."""
    if preset is not None and preset not in cls.presets:
        problems.append(
            f'{where}: preset: {cls.name} has no preset "{preset}" '
            f"({closest(preset, cls.presets)})"
        )
    merged = {**cls.presets.get(preset, {}), **options}
    try:
        return read_options(cls.Config, merged, where, problems)
    except ValueError as cause:  # from the class's own check of options together
        problems.append(f"{where}: {cause}")
        return None


def save_detector(detector: Any, path: Path) -> None:
    """Write a fitted detector as safetensors: every tensor, and what it is.

    The metadata names the detector, its hyper-parameters, and origin, licence and
    sha256 of the backbone weights it was fitted on.
    """
    from safetensors.torch import save

    # One object for one backbone, as always; a list for an ensemble's several.
    infos = [dataclasses.asdict(b.weights) for b in detector.used_backbones()]
    weights = infos[0] if len(infos) == 1 else infos or None
    facts = {
        "format": CHECKPOINT_FORMAT,
        "detector": detector.name,
        "config": detector.hyper_parameters(),
        "weights": weights,
    }
    home = home_of(detector.name)
    if home is not None:
        facts["plugin"] = home  # named in messages, never imported
    tensors = {
        # A clone: the members of an ensemble may share a backbone's tensors.
        k: v.detach().cpu().contiguous().clone()
        for k, v in detector.state_dict().items()
    }
    write_bytes(path, save(tensors, {METADATA_KEY: json.dumps(facts, sort_keys=True)}))


def checkpoint_sha256(path: Path) -> str:
    """Give the digest of a checkpoint, to name it in a document.

    Raises:
        ConfigError: it cannot be read.
    """
    return hashlib.sha256(_read_checkpoint(path)).hexdigest()


def load_detector(path: Path, *, sha256: str | None = None) -> Any:
    """Give the fitted detector of a checkpoint, without any other file.

    The file is read once: what is hashed is what is loaded.

    Args:
        sha256: lower-case hex digest that a document promises; None: not compared.

    Raises:
        ConfigError: no such file, another hash, not a checkpoint of ours, or tensors
            that do not fit the detector.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from pyimgano.backbones.interface import WeightsInfo

    data = _read_checkpoint(path)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise ConfigError(
            f"{path}: sha256 is {found[:16]}..., expected {sha256[:16]}...; the "
            "checkpoint was changed after infer_config.json was written: write it again"
        )
    try:
        tensors = load(data)
    except SafetensorError as cause:
        raise ConfigError(
            f"{path}: is not a readable safetensors checkpoint ({cause}); train again"
        ) from cause
    problems: list[str] = []
    fields = Fields(_metadata(data, path), str(path), problems)
    if fields.payload.get("format") != CHECKPOINT_FORMAT:
        raise ConfigError(
            f"{path}: format is {fields.payload.get('format')!r}, expected "
            f"{CHECKPOINT_FORMAT!r}; train again with this version"
        )
    fields.raw("format")
    name = fields.text("detector")
    options, weights = fields.raw("config"), fields.raw("weights")
    hint = load_hint(fields.raw("plugin") if fields.has("plugin") else None)
    fields.finish()
    raise_all(problems)
    try:
        cls = detector_class(name, str(path))
    except ConfigError as error:
        raise ConfigError(f"{error}{hint}") from error
    with plugin_call(cls, f"rebuilding it from {path}"):
        try:
            detector = cls.from_state(detector_config(cls, options, str(path)), tensors)
            infos = (
                weights if isinstance(weights, list) else [weights] if weights else []
            )
            for backbone, info in zip(detector.used_backbones(), infos, strict=True):
                backbone.weights = WeightsInfo(**info)
            return detector
        except (RuntimeError, AttributeError, TypeError, ValueError) as cause:
            raise ConfigError(
                f"{path}: its tensors do not fit {name} ({cause})"
            ) from cause


def _read_checkpoint(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise ConfigError(
            f"{path}: the checkpoint cannot be read ({cause.strerror}); expected a "
            "model.safetensors of a run: check the path, or train again"
        ) from cause


def _metadata(data: bytes, path: Path) -> Any:
    """Give what `save_detector` wrote about a file that safetensors accepted.

    The format: 8 bytes little-endian length, then that much JSON, whose
    "__metadata__" is an object of texts.
    """
    length = int.from_bytes(data[:8], "little")
    header = parse_json(data[8 : 8 + length], str(path))
    text = header.get("__metadata__", {}).get(METADATA_KEY, "{}")
    return parse_json(text.encode(), str(path))
