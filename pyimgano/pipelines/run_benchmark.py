"""Runs torch and the exported bundle side by side on the same pictures.

Both engines judge each picture in turn, in one process, so that their times share the
machine's moods; the ONNX side is the runtime's own Predictor on the bundle folder,
exactly as a device would run it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from pyimgano_exporters.parity import ParityMeter
from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.errors import BundleError, ConfigError, DatasetError
from pyimgano_runtime.paths import plain_name
from pyimgano_runtime.predictor import Prediction, Predictor
from pyimgano_runtime.rows import scored_row

from ..datasets.catalog import DataSource, read_dataset
from ..datasets.fingerprints import fingerprint, picture_digests
from ..datasets.images import read_training_image
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit, split_manifest
from ..datasets.summary import dataset_summary
from ..detectors.interface import Progress
from ..inference.evaluation import Evaluation, PixelTruth, latency
from ..inference.torch_predictor import torch_predictor
from ..workbench.artifacts import (
    RUN_SCHEMA_VERSION,
    Run,
    environment,
    write_json,
    write_jsonl,
)
from ..workbench.trained import load_trained
from .same_run import differences_from_run

WARM_UP: Final = 3  # pictures scored before the clock counts

ENGINES: Final = ("torch", "onnx")


@dataclass(frozen=True, slots=True)
class BenchmarkRequest:
    """What is compared, on which pictures."""

    source: DataSource
    categories: tuple[str, ...]
    test_normal_fraction: float
    split_seed: int
    engines: tuple[str, ...]
    pixel_metrics: bool
    bootstrap_resamples: int
    seed: int
    threads: int


def run_benchmark(
    run: Run,
    bundle: Bundle,
    request: BenchmarkRequest,
    folder: Path,
    *,
    progress: Progress,
) -> dict[str, Any]:
    """Compare a run's checkpoints with a bundle on the test rows of a manifest.

    Writes report.json and categories/<name>/per_image.jsonl into `folder`.

    Raises:
        ConfigError, DatasetError, BundleError: refused before anything is written.
    """
    rows = read_dataset(request.source, categories=request.categories)
    splits = split_manifest(
        rows,
        categories=request.categories,
        test_normal_fraction=request.test_normal_fraction,
        seed=request.split_seed,
    )
    _refuse_unmatched(splits, run, bundle)
    names: set[str] = set()
    torch_threads = torch.get_num_threads()
    categories = {}
    torch.set_num_threads(request.threads)
    try:
        for split in splits:
            stem = plain_name(split.category, names)
            report, per_image = _compare(split, run, bundle, request, progress)
            write_jsonl(folder / "categories" / stem / "per_image.jsonl", per_image)
            categories[split.category] = {"folder": stem} | report
    finally:
        torch.set_num_threads(torch_threads)
    payload = {
        "schema_version": RUN_SCHEMA_VERSION,
        "kind": "benchmark",
        "dataset": request.source.dataset,
        "manifest": _text(request.source.manifest_path),
        "root": _text(request.source.root),
        "bundle_sha256": bundle.sha256,
        "threads": request.threads,
        "environment": environment(),
        "categories": categories,
    }
    write_json(folder / "report.json", payload)
    return payload


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _refuse_unmatched(
    splits: Sequence[CategorySplit], run: Run, bundle: Bundle
) -> None:
    problems = []
    for split in splits:
        name = split.category
        if name not in run.categories:
            problems.append(f'{run.folder}: the run has no category "{name}"')
        if name not in bundle.config.categories:
            problems.append(f'{bundle.root}: the bundle has no category "{name}"')
        if not split.test:
            problems.append(f"{name}: the manifest gives no test rows to compare on")
    if problems:
        raise DatasetError("\n".join([*problems, "train and export these categories"]))
    for split in splits:
        _refuse_other_model(split.category, run, bundle)
        _refuse_trained_pictures(split, run)


def _refuse_other_model(category: str, run: Run, bundle: Bundle) -> None:
    """The bundle must come from this very run."""
    found = differences_from_run(category, run, bundle)
    if found:
        raise BundleError(
            f"{bundle.root}: {category} was exported from another run than "
            f"{run.folder} ({', '.join(found)}); export this run again"
        )


def _refuse_trained_pictures(split: CategorySplit, run: Run) -> None:
    """A picture that trained or calibrated says nothing as a test."""
    learned = run.digests(split.category)
    known = {digest for part in learned.values() for digest in part.values()}
    seen = [n for n, d in picture_digests(split.test).items() if d in known]
    if seen:
        raise DatasetError(
            f"{split.category}: {len(seen)} test pictures were trained or calibrated "
            f"on ({', '.join(seen[:3])}); take the run's manifest, or other pictures"
        )


def _compare(
    split: CategorySplit,
    run: Run,
    bundle: Bundle,
    request: BenchmarkRequest,
    progress: Progress,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    predictors = _predictors(split.category, run, bundle, request)
    first = next(iter(predictors.values()))
    truth = PixelTruth(
        split.test, wanted=request.pixel_metrics, has_map=first.engine.has_map
    )
    evaluations = {name: Evaluation(truth) for name in predictors}
    meter = ParityMeter(first.threshold, "test")
    per_image, decode_ms = [], []
    for done, row in enumerate(split.test, start=1):
        start = time.perf_counter()
        image = read_training_image(row, first.rules)
        decode_ms.append((time.perf_counter() - start) * 1000)
        if done == 1:
            for predictor in predictors.values():
                for _ in range(WARM_UP):
                    predictor.predict(image)
        mask = truth.mask(row, image, first.rules)
        # The order changes from picture to picture: neither engine always goes first.
        order = list(predictors) if done % 2 else list(reversed(predictors))
        predictions = {name: predictors[name].predict(image) for name in order}
        for name, prediction in predictions.items():
            evaluations[name].add(row, prediction, mask)
            per_image.append(_row(row, name, predictors[name], prediction))
        if len(predictions) == 2:
            reference, candidate = (predictions[name] for name in ENGINES)
            meter.add(
                row.image,
                (reference.score, reference.anomaly_map),
                (candidate.score, candidate.anomaly_map),
            )
        progress(f"{split.category}: benchmark", done, len(split.test))
    trained = run.report["categories"][split.category]
    n_anomalies = sum(row.label == 1 for row in split.test)
    counts = {
        "test_normals": len(split.test) - n_anomalies,
        "test_anomalies": n_anomalies,
    }
    provenance = first.settings.thresholds.provenance["image"]
    report: dict[str, Any] = {
        "counts": counts,
        "dataset_summary": dataset_summary(
            train=trained["counts"]["train_normals"],
            calibration=trained["counts"]["calibration"],
            pixel_metrics=truth.to_json(),
            **counts,
        ),
        "detector": trained["detector"],
        "fit_seconds": trained["fit_seconds"],
        "test_fingerprint": fingerprint(picture_digests(split.test)),
        "threshold": first.threshold,
        "promised_false_alarm_rate": provenance.used_false_alarm_rate,
        "promise_approximate": provenance.approximate,
        "pixel_metrics": truth.to_json(),
        "decode_ms": latency(decode_ms),
        "engines": {
            name: evaluation.report(
                first.threshold,
                seed=request.seed,
                n_resamples=request.bootstrap_resamples,
            )
            | {"engine": predictors[name].engine.name}
            for name, evaluation in evaluations.items()
        },
    }
    if len(predictors) == 2:
        report["parity"] = _parity(meter)
    return report, per_image


def _predictors(
    category: str, run: Run, bundle: Bundle, request: BenchmarkRequest
) -> dict[str, Predictor]:
    onnx = Predictor.open(bundle, category=category, threads=request.threads)
    made = {}
    if "torch" in request.engines:
        detector = load_trained(run, category)
        made["torch"] = torch_predictor(
            detector, category, onnx.settings, onnx.rules, bundle=bundle
        )
    if "onnx" in request.engines:
        made["onnx"] = onnx
    return made


def _parity(meter: ParityMeter) -> dict[str, Any]:
    result = meter.result()
    return {
        "max_abs_score_diff": result.max_abs_score_diff,
        "max_rel_score_diff": result.max_rel_score_diff,
        "max_abs_map_diff": result.max_abs_map_diff,
        "max_map_diff_of_range": result.max_map_diff_of_range,
        "label_flips": result.label_flips,
        "flipped_images": list(meter.flipped),
        "min_threshold_distance": result.min_threshold_distance,
    }


def _row(
    row: ManifestRow, engine: str, predictor: Predictor, prediction: Prediction
) -> dict[str, Any]:
    return scored_row(row.image, predictor, prediction, prediction.ms) | {
        "engine": engine,
        "label_true": row.label,
        "group_id": row.group_id,
        "meta": row.meta,
    }


def parse_engines(text: str) -> tuple[str, ...]:
    """Give the engines of `--compare torch,onnx`.

    Raises:
        ConfigError: an unknown or repeated engine.
    """
    engines = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in engines if name not in ENGINES]
    if unknown or not engines or len(set(engines)) != len(engines):
        raise ConfigError(
            f'--compare: found "{text}", expected {",".join(ENGINES)} or one of them'
        )
    return engines
