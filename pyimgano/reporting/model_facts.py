"""What a report says of the model and where it was made: the facts of a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.infer_config import InferConfig
from pyimgano_runtime.tiling import Tiling

from .report_facts import mapping_of

Facts = tuple[tuple[str, str], ...]


def model_facts(
    training: Mapping[str, Any], tiling: Tiling | None, regions: str = ""
) -> Facts:
    """Give detector, options, backbone and its licence, tiles and data fingerprint.

    Args:
        training: what documents say of a category's training.
        regions: how defect regions are found, in words; empty: none are.
    """
    facts = [("Detector", str(training.get("detector", "not stated")))]
    options = mapping_of(training, "hyper_parameters")
    if options:
        shown = ", ".join(f"{key} {_short(value)}" for key, value in options.items())
        facts.append(("Its options", shown))
    facts += [("Backbone", _backbone(one)) for one in _backbones(training)]
    if tiling is not None:
        height, width = tiling.size
        facts.append(
            (
                "Tiles",
                f"pictures are cut into {height} x {width} pixels, which share at "
                f"least {tiling.overlap:.0%} of a side; a picture's score is the "
                f"{tiling.score} of its tiles' scores",
            )
        )
    if regions:
        facts.append(("Defect regions", regions))
    fingerprint = training.get("data_fingerprint")
    if isinstance(fingerprint, str):
        facts.append(("Fingerprint of the training pictures", fingerprint))
    return tuple(facts)


def _backbones(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    several = training.get("backbones")
    found = several if isinstance(several, list) else [training.get("backbone")]
    return [one for one in found if isinstance(one, dict)]


def _backbone(backbone: Mapping[str, Any]) -> str:
    def stated(key: str) -> str:
        return str(backbone.get(key) or "not stated")

    return (
        f"{stated('name')}, weights from {stated('source')}, licence "
        f"{stated('licence')}, sha256 {stated('sha256')}"
    )


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_short(one) for one in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def run_facts(
    report: Mapping[str, Any],
    environment: Mapping[str, Any],
    bundle: Bundle | None,
) -> Facts:
    """Give when, where and with what a run was made, and its bundle."""
    versions = {
        "pyimgano": environment.get("pyimgano"),
        "python": environment.get("python"),
        **mapping_of(environment, "packages"),
    }
    facts = [
        ("Recipe", report.get("recipe")),
        ("Finished", report.get("finished")),
        ("Machine", environment.get("machine")),
        ("Device", report.get("device")),
        ("Made with", ", ".join(f"{k} {v}" for k, v in versions.items() if v)),
        ("Pictures read by", report.get("reference_decoder")),
    ]
    named = [(what, str(text)) for what, text in facts if text]
    return (*named, *(() if bundle is None else _release(bundle)))


def bundle_facts(bundle: Bundle) -> Facts:
    """Give release, makers, size and hash of a bundle."""
    config = bundle.config
    producer = ", ".join(f"{k} {v}" for k, v in config.bundle.producer.items())
    licence = config.training.get("image_licence")
    facts = [
        ("Created", config.bundle.created),
        ("Made with", producer),
        ("Compared on", config.parity.machine),
        ("Pictures read by", config.input.reference_decoder),
        ("Licence of the training pictures", licence),
    ]
    named = [(what, str(text)) for what, text in facts if text]
    return (*_release(bundle), *named)


def _release(bundle: Bundle) -> Facts:
    info, files = bundle.config.bundle, bundle.config.files
    size = sum(entry.size for entry in files) / 1e6
    goldens = [golden.kind for golden in bundle.config.parity.goldens]
    kinds = " and ".join(sorted(set(goldens)))
    return (
        (
            "Bundle",
            f"{info.name} {info.version}, {size:.1f} MB in {len(files) + 1} files",
        ),
        ("sha256 of its infer_config.json", bundle.sha256),
        (
            "Goldens",
            f"{len(goldens)} {kinds}: pyimgano-runtime check replays them on a device"
            if goldens
            else "none: no device can prove that it computes the same",
        ),
    )


def graph_facts(config: InferConfig, category: str) -> Facts:
    """Give the model files of a category of a bundle, in the order they run."""
    specs = [config.models[model] for model in config.categories[category].graph]
    return tuple(
        ("Model file", f"{spec.file}, ONNX opset {spec.opset}, {spec.precision}")
        for spec in specs
    )
