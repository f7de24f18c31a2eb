"""A training run as `infer_config.json` of kind "run": what `pyimgano infer` reads.

Checkpoints are named relative to the document, so that a run folder may be moved or
mounted elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import dump_json
from pyimgano_runtime.atomic import write_text
from pyimgano_runtime.infer_config import (
    FILE_NAME,
    Checkpoint,
    ModelChoice,
    RunCategory,
    RunConfig,
    RunInfo,
    version_facts,
)

from ..detectors import load_detector
from .artifacts import Run
from .config import load_config
from .runner import category_settings, run_rules
from .trained import trained_sha256

ARTIFACTS: Final = "artifacts"  # folder of a run that holds what it exports

# What a document tells of a category's report.
_METRIC_KEYS: Final = (
    "image_auroc", "image_ap", "image_f1", "recall", "false_alarm_rate",
    "pixel_auroc", "aupro_0.3", "aupro_0.05",
)  # fmt: skip


def document_path(run: Run) -> Path:
    """Where a run's own document lies, or would lie."""
    return run.folder / ARTIFACTS / FILE_NAME


def run_document(run: Run, *, categories: Sequence[str] = ()) -> RunConfig:
    """Give the document of a run, its paths relative to `document_path`.

    Args:
        categories: which of the run's; empty: all.

    Raises:
        ConfigError: a checkpoint or calibration of the run cannot be read.
    """
    config = load_config(run.config_path).config
    blocks, training = {}, {}
    detector: Any = None
    for name in categories or run.categories:
        path = run.checkpoint(name)
        digest = trained_sha256(run, name)
        detector = load_detector(path, sha256=digest)
        settings = category_settings(
            *(detector, name, *run.calibration(name)),
            tiling=config.tiles,
            defects=config.defects,
            reference=run.reference(name),
        )
        blocks[name] = RunCategory(
            checkpoint=Checkpoint(
                f"../{path.relative_to(run.folder).as_posix()}", digest
            ),
            thresholds=settings.thresholds,
            calibration=settings.calibration,
            map_geometry=settings.map_geometry,
            roi=settings.roi,
            tiling=settings.tiling,
            regions=settings.regions,
            reference=settings.reference,
        )
        training[name] = training_facts(run.report["categories"][name], detector)
    return RunConfig(
        kind="run",
        run=RunInfo(run.folder.name, run.report["finished"], run.versions()),
        model=ModelChoice(
            config.model.name, config.model.preset, detector.hyper_parameters()
        ),
        device=config.device,
        input=run_rules(run),
        preprocess=tuple(detector.preprocess_steps()),
        postprocess=tuple(detector.postprocess_steps()),
        categories=blocks,
        training={"categories": training},
        **version_facts(blocks.values()),
    )


def write_run_document(run: Run) -> Path:
    """Write `artifacts/infer_config.json` into a run folder, complete or absent."""
    path = document_path(run)
    payload = run_document(run).to_dict()
    RunConfig.from_dict(payload, str(path))
    path.parent.mkdir(exist_ok=True)
    write_text(path, dump_json(payload))
    return path


def training_facts(report: dict[str, Any], detector: Any) -> dict[str, Any]:
    """Give what documents say of a category's training."""
    backbones = [
        {
            "name": backbone.name,
            "source": backbone.weights.source,
            "licence": backbone.weights.licence,
            "sha256": backbone.weights.sha256,
        }
        for backbone in detector.used_backbones()
        if backbone.weights is not None
    ]
    metrics: dict[str, Any] = {}
    for key in _METRIC_KEYS:
        for name in (key, f"{key}_ci95"):
            if report.get(name) is not None:
                metrics[name] = report[name]
    metrics["reasons"] = report["reasons"]
    return {
        "detector": detector.name,
        "hyper_parameters": detector.hyper_parameters(),
        "backbone": backbones[0] if backbones else None,
        "counts": report["counts"],
        **{key: report[key] for key in ("learned_from",) if key in report},
        "data_fingerprint": report["data_fingerprint"],
        "metrics": metrics,
        "warnings": report["warnings"],
    } | ({"backbones": backbones} if len(backbones) > 1 else {})
