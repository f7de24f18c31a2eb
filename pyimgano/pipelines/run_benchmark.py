"""Sets a run's checkpoint and a bundle side by side on the same test pictures.

run_benchmark -> load_benchmark_splits -> (category) engines -> compare_engines
-> categories/<folder>/per_image.jsonl, gallery/ -> report.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pyimgano_exporters.parity import ParityMeter
from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.errors import BundleError, DatasetError, ExportError
from pyimgano_runtime.paths import plain_name

from ..datasets.fingerprints import (
    picture_digests,
    split_fingerprint,
    test_fingerprint,
)
from ..datasets.splits import CategorySplit
from ..datasets.summary import dataset_summary
from ..detectors.interface import Progress
from ..inference.evaluation import latency
from ..reporting.case_gallery import write_cases
from ..source_date import timestamp
from ..workbench.artifacts import (
    RUN_SCHEMA_VERSION,
    Run,
    environment,
    write_json,
    write_jsonl,
)
from ..workbench.config import LoadedConfig
from .compare_engines import Comparison, MeasureOptions, compare_engines
from .engines import OpenEngine, int8_twin, open_onnx, open_torch
from .mvtec_visa import load_benchmark_splits
from .robustness import measure_robustness
from .same_run import differences_from_run


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRequest:
    """What is compared, on which pictures."""

    loaded: LoadedConfig  # data set, split, model, seed
    dataset_name: str  # what people call the data
    model: str  # what people call the model
    engines: tuple[str, ...]
    threads: int
    options: MeasureOptions
    robustness_images: int | None = None  # of each class; None: not measured


def run_benchmark(
    run: Run,
    bundle: Bundle,
    request: BenchmarkRequest,
    folder: Path,
    *,
    progress: Progress,
) -> dict[str, Any]:
    """Compare a run's checkpoints with a bundle on the test rows of a data set.

    Writes report.json, per-image rows and galleries into `folder`.

    Raises:
        ConfigError, DatasetError, BundleError: refused before anything is written.
    """
    splits = load_benchmark_splits(request.loaded, trains=False)
    _refuse_unmatched(splits, run, bundle)
    names: set[str] = set()
    categories = {}
    with torch_threads(request.threads):
        for split in splits:
            stem = plain_name(split.category, names)
            place = folder / "categories" / stem
            report = _category(split, run, bundle, request, place, progress)
            categories[split.category] = {"folder": stem} | report
    source = request.loaded.source
    payload = {
        "schema_version": RUN_SCHEMA_VERSION,
        "kind": "benchmark",
        "dataset": source.dataset,
        "dataset_name": request.dataset_name,
        "manifest": _text(source.manifest_path),
        "root": _text(source.root),
        "model": request.model,
        "seed": request.loaded.config.seed,
        "bundle_sha256": bundle.sha256,
        "threads": request.threads,
        "finished": timestamp(),
        "environment": environment(),
        "categories": categories,
    }
    write_json(folder / "report.json", payload)
    return payload


def parity_problems(report: dict[str, Any]) -> list[str]:
    """Give each category whose bundle does not score like its checkpoint."""
    return [
        f"{name}: {problem}"
        for name, category in report["categories"].items()
        for problem in (category.get("parity") or {}).get("problems", [])
    ]


def _category(
    split: CategorySplit,
    run: Run,
    bundle: Bundle,
    request: BenchmarkRequest,
    place: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Compare the engines on one category, write its files, give its report."""
    place.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=place) as scratch:
        engines, missing = _engines(split, run, bundle, request, Path(scratch))
        found = compare_engines(split.test, engines, request.options, progress=progress)
    write_jsonl(place / "per_image.jsonl", found.per_image)
    shown = next((e for e in engines if e.name == "onnx"), engines[0])
    rows = [row for row in found.per_image if row["engine"] == shown.name]
    write_cases(place / "gallery", split.test, rows, shown.predictor)
    report = _facts(split, run, shown, found) | {"engines_missing": missing}
    if request.robustness_images is not None:
        report["robustness"] = measure_robustness(
            shown.predictor,
            split.test,
            max_images=request.robustness_images,
            seed=request.options.seed,
            progress=progress,
        )
    return report


def _engines(
    split: CategorySplit,
    run: Run,
    bundle: Bundle,
    request: BenchmarkRequest,
    scratch: Path,
) -> tuple[list[OpenEngine], dict[str, str]]:
    """Give the engines that were asked for, and why one of them is missing."""
    name, threads = split.category, request.threads
    opened, missing = [], {}
    if "torch" in request.engines:
        opened.append(open_torch(run, bundle, name, threads))
    if "onnx" in request.engines:
        opened.append(open_onnx(bundle, name, threads))
    if "onnx-int8" in request.engines:
        try:
            twin = int8_twin(bundle, split, scratch / "bundle")
        except ExportError as error:
            missing["onnx-int8"] = str(error)
        else:
            opened.append(open_onnx(twin, name, threads, name="onnx-int8"))
    if not opened:
        raise ExportError(f"{name}: no engine to run: {missing['onnx-int8']}")
    return opened, missing


def _facts(
    split: CategorySplit, run: Run, shown: OpenEngine, found: Comparison
) -> dict[str, Any]:
    """Give a category's report."""
    trained = run.report["categories"][split.category]
    n_anomalies = sum(row.label == 1 for row in split.test)
    counts = {
        "test_normals": len(split.test) - n_anomalies,
        "test_anomalies": n_anomalies,
    }
    # Runs of before it was recorded have none.
    learned, tested = trained.get("training_fingerprint"), test_fingerprint(split)
    thresholds = shown.predictor.settings.thresholds
    provenance = thresholds.provenance["image"]
    report: dict[str, Any] = {
        "counts": counts,
        "dataset_summary": dataset_summary(
            train=trained["counts"]["train_normals"],
            calibration=trained["counts"]["calibration"],
            pixel_metrics=found.truth.to_json(),
            **counts,
        ),
        "detector": trained["detector"],
        "hyper_parameters": trained["hyper_parameters"],
        "fit_seconds": trained["fit_seconds"],
        # What the run learned from, whatever data it is judged by here.
        "split_fingerprint": learned and split_fingerprint(learned, tested),
        "training_fingerprint": learned,
        "test_fingerprint": tested,
        "threshold": shown.predictor.threshold,
        "pixel_threshold": thresholds.pixel,
        "promised_false_alarm_rate": provenance.used_false_alarm_rate,
        "promise_approximate": provenance.approximate,
        "pixel_metrics": found.truth.to_json(),
        "decode_ms": latency(found.decode_ms),
        "warnings": [
            *found.truth.warnings(),
            *(found.parity.warnings() if found.parity is not None else ()),
        ],
        "engines": found.engines,
    }
    if found.parity is not None:
        report["parity"] = _parity(found.parity)
    return report


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
        "problems": meter.problems(),
    }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
