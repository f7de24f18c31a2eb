"""Exports a finished run as a bundle: gathers what the exporter takes as arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from pyimgano_exporters.bundle_writer import (
    BundleRequest,
    CategoryExport,
    Progress,
    write_bundle,
)
from pyimgano_runtime._version import __version__
from pyimgano_runtime.errors import DatasetError
from pyimgano_runtime.infer_config import InferConfig, InputRules

from ..datasets.fingerprints import changes, picture_digests
from ..datasets.images import read_ahead
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from ..detectors import load_detector
from ..workbench.artifacts import Run, machine_name
from ..workbench.config import load_config
from ..workbench.runner import input_rules, load_splits

Image = npt.NDArray[np.uint8]

PARITY_IMAGES: Final = 200  # spread evenly over the held-out rows

# What a model card tells of a category's report.
_METRIC_KEYS: Final = (
    "image_auroc", "image_ap", "image_f1", "recall", "false_alarm_rate",
    "pixel_auroc", "aupro_0.3", "aupro_0.05",
)  # fmt: skip


def export_run(
    run: Run,
    output: Path,
    *,
    name: str,
    version: str,
    created: str | None,
    goldens: str,
    image_licence: str | None,
    parity_images: int | None,
    force: bool,
    progress: Progress,
) -> InferConfig:
    """Write the bundle of a run; every category becomes one graph.

    Args:
        created: ISO 8601; None: when the training run ended.
        parity_images: how many held-out pictures are compared; None: all.

    Raises:
        ConfigError, DatasetError: the run or its pictures are refused.
        ExportError, ParityError: see `write_bundle`.
    """
    loaded = load_config(run.config_path)
    splits = load_splits(loaded)
    _refuse_changed_data(run, splits)
    rules = input_rules()
    categories = [_category(run, split, rules, parity_images) for split in splits]
    request = BundleRequest(
        name=name,
        version=version,
        created=created or run.report["finished"],
        producer={
            "pyimgano": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        machine=machine_name(),
        rules=rules,
        goldens=goldens,
        image_licence=image_licence,
        seed=loaded.config.seed,
    )
    return write_bundle(
        output,
        request,
        categories,
        force=force,
        progress=progress,
        keep=[run.folder, *loaded.source.needed],
    )


def _refuse_changed_data(run: Run, splits: Sequence[CategorySplit]) -> None:
    """The pictures must be those that trained: parity is measured on the others."""
    problems = []
    by_name = {split.category: split for split in splits}
    for name in run.categories:
        split = by_name.get(name)
        if split is None:
            problems.append(
                f"{name}: the manifest does not hold this category any more"
            )
            continue
        recorded = run.digests(name)
        for part, rows in (("train", split.train), ("val", split.val)):
            found = changes(recorded[part], picture_digests(rows))
            if found:
                shown = "; ".join(found[:3]) + ("; ..." if len(found) > 3 else "")
                problems.append(
                    f"{name}: {len(found)} {part} pictures changed: {shown}"
                )
    if problems:
        raise DatasetError(
            "\n".join(problems)
            + f"\n{run.folder} was trained on other data; restore it or train again"
        )


def held_out_rows(split: CategorySplit) -> tuple[list[ManifestRow], str]:
    """Give the pictures that the model was not fitted on, or the train ones."""
    rows = [*split.test, *split.val]
    return (rows, "test+val") if rows else (split.train_normals(), "train")


def _category(
    run: Run, split: CategorySplit, rules: InputRules, parity_images: int | None
) -> CategoryExport:
    detector = load_detector(run.checkpoint(split.category))
    thresholds, calibration = run.calibration(split.category)
    rows, which = held_out_rows(split)
    chosen = rows if parity_images is None else _spread(rows, parity_images)
    return CategoryExport(
        name=split.category,
        detector=detector,
        thresholds=thresholds,
        calibration=calibration,
        held_out=partial(_named_images, chosen, rules),
        held_out_rows=which,
        normals=partial(_images, split.train_normals(), rules),
        training=_training(run.report["categories"][split.category], detector),
    )


def _training(report: dict[str, Any], detector: Any) -> dict[str, Any]:
    weights = detector.backbone.weights if detector.backbone is not None else None
    metrics: dict[str, Any] = {}
    for key in _METRIC_KEYS:
        for name in (key, f"{key}_ci95"):
            if report.get(name) is not None:
                metrics[name] = report[name]
    metrics["reasons"] = report["reasons"]
    return {
        "detector": detector.name,
        "hyper_parameters": detector.hyper_parameters(),
        "backbone": None
        if weights is None
        else {
            "name": detector.backbone.name,
            "source": weights.source,
            "licence": weights.licence,
            "sha256": weights.sha256,
        },
        "counts": report["counts"],
        "data_fingerprint": report["data_fingerprint"],
        "metrics": metrics,
        "warnings": report["warnings"],
    }


def _spread(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    """Give at most `count` rows, evenly spaced from the first to the last."""
    if len(rows) <= count:
        return list(rows)
    places = np.linspace(0, len(rows) - 1, count).round().astype(int)
    return [rows[place] for place in places]


def _images(rows: Sequence[ManifestRow], rules: InputRules) -> Iterable[Image]:
    return read_ahead(rows, rules)


def _named_images(
    rows: Sequence[ManifestRow], rules: InputRules
) -> Iterable[tuple[str, Image]]:
    for row, image in zip(rows, read_ahead(rows, rules), strict=True):
        yield row.image, image
