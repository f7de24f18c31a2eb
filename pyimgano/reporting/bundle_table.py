"""What a bundle is and how it was judged, for a person at a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.infer_config import CategoryParity, TensorSpec
from pyimgano_runtime.int8_words import int8_sentence
from pyimgano_runtime.region_words import region_sentence
from pyimgano_runtime.threshold_words import describe_threshold

from .tables import open_console, open_table


def print_bundle(bundle: Bundle) -> None:
    """Print what was exported and how it compares with torch."""
    console = open_console()
    config = bundle.config
    table = open_table(f"bundle {config.bundle.name} {config.bundle.version}")
    table.add_column("category")
    for title in ("images", "score rel diff", "map diff of range", "label flips"):
        table.add_column(title, justify="right")
    for name, parity in config.parity.categories.items():
        share = parity.max_map_diff_of_range
        table.add_row(
            name,
            f"{parity.n_images} {parity.images}",
            f"{parity.max_rel_score_diff:.1e}",
            "-" if share is None else f"{share:.1e}",
            str(parity.label_flips),
        )
    console.print(table)
    for name, training in config.training["categories"].items():
        in_int8 = int8_sentence(training, config.parity.categories[name])
        if in_int8:
            console.print(f"int8: {name}: {in_int8}", highlight=False)
        for warning in training["warnings"]:
            console.print(f"warning: {name}: {warning}", highlight=False)
    if not config.parity.goldens:
        console.print("warning: no goldens: check cannot prove this bundle on a device")
    size = sum(entry.size for entry in config.files) / 1e6
    lines = [
        f"{size:.1f} MB in {len(config.files) + 1} files",
        f"sha256 of infer_config.json: {bundle.sha256}",
        f"bundle: {bundle.root}",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def print_verification(report: dict[str, Any]) -> None:
    """Print the judgement about a bundle: one line a finding."""
    console = open_console()
    _say(console, f"bundle {report['bundle']}")
    for finding in report["findings"]:
        # One line each, whatever the message holds: a script can count them.
        details = " ".join(finding["details"].split())
        _say(console, f"{finding['verdict']:<8} {finding['what']:<10} {details}")
    if report["goldens"] is not None and report["run"] is None:
        _say(console, "note     not compared with the trained checkpoint (--run does)")
    known = {finding["what"] for finding in report["findings"]}
    if not known & {"run", "sha256", "signature"}:
        _say(
            console,
            "note     thresholds in infer_config.json may be edited, and its own hash "
            "is not listed: --expect-sha256, --signature or --run notice it",
        )
    if report["sha256"] is not None:
        _say(console, f"sha256 of infer_config.json: {report['sha256']}")
    failed = sum(finding["verdict"] == "FAILED" for finding in report["findings"])
    verdict = f"not verified, {failed} FAILED" if failed else "verified"
    _say(console, f"verdict: {verdict}")


def print_inspection(bundle: Bundle, signature: Path | None) -> None:
    """Print what a bundle holds and where its numbers come from.

    Args:
        signature: the file beside the bundle, if there is one.
    """
    console = open_console()
    config = bundle.config
    size = sum(entry.size for entry in config.files)
    _field(console, "bundle", f"{config.bundle.name} {config.bundle.version}")
    _field(console, "created", config.bundle.created)
    producer = ", ".join(f"{k} {v}" for k, v in config.bundle.producer.items())
    _field(console, "made with", producer or "not stated")
    _field(console, "sha256", f"{bundle.sha256} (of infer_config.json)")
    _field(
        console,
        "signature",
        "none beside the bundle"
        if signature is None
        else f"{signature} (not checked here: pyimgano bundle verify --signature)",
    )
    _field(console, "folder", f"{bundle.root}, {size / 1e6:.1f} MB")
    table = open_table("files")
    table.add_column("role")
    table.add_column("file", overflow="fold")
    table.add_column("bytes", justify="right")
    for entry in config.files:
        table.add_row(entry.role, entry.path, f"{entry.size:,}")
    console.print(table)
    for name in config.categories:
        _print_category(console, bundle, name)


def _print_category(console: Console, bundle: Bundle, name: str) -> None:
    config, settings = bundle.config, bundle.config.categories[name]
    training = _mapping(_mapping(config.training.get("categories")).get(name))
    _field(console, "category", name)
    options = _mapping(training.get("hyper_parameters"))
    shown = ", ".join(f"{key} {_short(value)}" for key, value in options.items())
    detector = str(training.get("detector", "not stated"))
    _field(console, "  detector", f"{detector} ({shown})" if shown else detector)
    _field(console, "  backbone", _backbone(_mapping(training.get("backbone"))))
    _field(console, "  data", _data(training))
    for model in settings.graph:
        spec = config.models[model]
        _field(
            console,
            "  model",
            f"{spec.file}, opset {spec.opset}, {spec.precision}: "
            f"{'; '.join(map(_tensor, spec.inputs))} -> "
            f"{'; '.join(map(_tensor, spec.outputs))}",
        )
    for kind, provenance in settings.thresholds.provenance.items():
        value = getattr(settings.thresholds, kind)
        _field(
            console,
            "  threshold",
            f"{kind} {value:.6g}: {describe_threshold(provenance)}",
        )
    regions = region_sentence(settings)
    if regions:
        _field(console, "  regions", regions)
    parity = config.parity.categories.get(name)
    _field(console, "  parity", "not measured" if parity is None else _parity(parity))
    in_int8 = int8_sentence(training, parity)
    if in_int8:
        _field(console, "  int8", in_int8)
    goldens = [g.kind for g in config.parity.goldens if g.category == name]
    kinds = " and ".join(sorted(set(goldens)))
    _field(
        console,
        "  goldens",
        f"{len(goldens)} {kinds}"
        if goldens
        else "none: no device can prove this model",
    )
    warnings = training.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        _field(console, "  warning", str(warning))
    _print_metrics(console, _mapping(training.get("metrics")))


def _print_metrics(console: Console, metrics: dict[str, Any]) -> None:
    table = open_table("")
    table.title = None
    table.add_column("metric on the test pictures")
    for title in ("value", "95 % interval"):
        table.add_column(title, justify="right")
    for key, value in metrics.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            interval = interval_text(metrics.get(f"{key}_ci95"))
            table.add_row(key, f"{value:.4f}", interval)
    for key, reason in _mapping(metrics.get("reasons")).items():
        table.add_row(key, "-", f"not measured: {reason}")
    if table.row_count:
        console.print(table)


def interval_text(interval: Any) -> str:
    """Give `[0.880, 0.941]`; nothing for anything but two numbers."""
    numbers = isinstance(interval, list) and all(
        isinstance(side, (int, float)) for side in interval
    )
    if not numbers or len(interval) != 2:
        return ""
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _backbone(backbone: dict[str, Any]) -> str:
    if not backbone:
        return "none"
    return (
        f"{backbone.get('name', 'not stated')}, weights from "
        f"{backbone.get('source', 'not stated')}, licence "
        f"{backbone.get('licence', 'not stated')}"
    )


def _data(training: dict[str, Any]) -> str:
    counts = _mapping(training.get("counts"))
    text = ", ".join(
        f"{value} {key.replace('_', ' ')}" for key, value in counts.items()
    )
    return f"{text or 'not stated'}; fingerprint {training.get('data_fingerprint')}"


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]"


def _parity(parity: CategoryParity) -> str:
    share = parity.max_map_diff_of_range
    maps = "" if share is None else f", maps by {share:.1e} of their range"
    return (
        f"{parity.n_images} {parity.images} pictures: torch and onnxruntime differ by "
        f"at most {parity.max_rel_score_diff:.1e} of a score{maps}; "
        f"{parity.label_flips} label flips, closest score to the threshold "
        f"{parity.min_threshold_distance:.3g} away"
    )


def _short(value: Any) -> str:
    if isinstance(value, list):
        numbers = all(isinstance(item, int) for item in value)
        return (" x " if numbers else " + ").join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _mapping(value: Any) -> dict[str, Any]:
    """Give an object of the free part of a document; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _field(console: Console, name: str, text: str) -> None:
    _say(console, f"{name:<13} {text}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
