"""Lets several engines judge the same pictures in turn, and measures each.

All run in one process, so that their times share the machine's moods; the order turns
from picture to picture, so that no engine always goes first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pyimgano_exporters.parity import ParityMeter
from pyimgano_runtime.errors import DatasetError, ImageError
from pyimgano_runtime.predictor import Prediction, Predictor
from pyimgano_runtime.rows import scored_row

from ..datasets.images import Image, read_training_image, row_prefix
from ..datasets.rows import ManifestRow
from ..detectors.interface import Progress
from ..inference.evaluation import Evaluation, PixelTruth, latency
from ..metrics import auroc, average_precision, bootstrap_difference
from ..metrics.differences import EngineDifferences
from .engine_process import PICTURES, measure_process
from .engines import REFERENCE, OpenEngine

WARM_UP: Final = 3  # pictures scored before the clock counts
_COMPARED: Final = {"image_auroc": auroc, "image_ap": average_precision}


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How much is measured."""

    pixel_metrics: bool = True
    bootstrap_resamples: int = 1000
    seed: int = 0
    processes: bool = True  # start and memory of each engine, alone in a process


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the engines said and what it is worth."""

    engines: dict[str, dict[str, Any]]  # report of each, by name
    per_image: list[dict[str, Any]]  # a row for each picture and engine
    decode_ms: list[float]
    truth: PixelTruth
    parity: ParityMeter | None  # torch against onnx, where both ran


def compare_engines(
    rows: Sequence[ManifestRow],
    engines: Sequence[OpenEngine],
    options: MeasureOptions,
    *,
    progress: Progress,
) -> Comparison:
    """Judge every picture by every engine.

    Args:
        rows: test pictures of one category, at least one.
        engines: of that category; all judge by the same thresholds.

    Raises:
        DatasetError: a picture cannot be read or scored; names it.
    """
    first = engines[0].predictor
    truth = PixelTruth(rows, wanted=options.pixel_metrics, has_map=first.engine.has_map)
    meters = {engine.name: _Meter(engine, truth, options) for engine in engines}
    against = {
        name: EngineDifferences(first.threshold)
        for name in meters
        if name != REFERENCE and REFERENCE in meters
    }
    parity = ParityMeter(first.threshold, "test") if "onnx" in against else None
    per_image, decode_ms = [], []
    for done, row in enumerate(rows, start=1):
        start = time.perf_counter()
        image = read_training_image(row, first.rules)
        decode_ms.append((time.perf_counter() - start) * 1000)
        if done == 1:
            for meter in meters.values():
                meter.warm_up(row, image)
        mask = truth.mask(row, image, first.rules)
        order = list(meters) if done % 2 else list(reversed(meters))
        found = {name: meters[name].predict(row, image) for name in order}
        for name, meter in meters.items():
            meter.evaluation.add(row, found[name], mask)
            per_image.append(labelled_row(row, meter.predictor, found[name], name))
        for name, differences in against.items():
            differences.add(row.image, _pair(found[REFERENCE]), _pair(found[name]))
        if parity is not None:
            parity.add(row.image, _pair(found[REFERENCE]), _pair(found["onnx"]))
        progress(f"{first.category}: benchmark", done, len(rows))
    reports = {
        name: meter.report() | (against[name].to_json() if name in against else {})
        for name, meter in meters.items()
    }
    for name in against:
        reports[name]["difference_ci95"] = _difference_intervals(
            meters[REFERENCE].evaluation, meters[name].evaluation, options
        )
    if options.processes:
        _measure_processes(rows, engines, reports, progress)
    return Comparison(reports, per_image, decode_ms, truth, parity)


class _Meter:
    """One engine's predictions and times."""

    def __init__(
        self, engine: OpenEngine, truth: PixelTruth, options: MeasureOptions
    ) -> None:
        self.engine = engine
        self.predictor = engine.predictor
        self.evaluation = Evaluation(
            truth,
            self.predictor.settings.thresholds,
            n_resamples=options.bootstrap_resamples,
            seed=options.seed,
        )
        self.cpu_ms: list[float] = []
        self.warm_up_ms: list[float] = []

    def warm_up(self, row: ManifestRow, image: Image) -> None:
        """Score a picture a few times, counted apart."""
        for _ in range(WARM_UP):
            self.warm_up_ms.append(self._judged(row, image).ms["infer"])

    def predict(self, row: ManifestRow, image: Image) -> Prediction:
        """Judge a picture; processor time is that of all threads."""
        start = time.process_time()
        prediction = self._judged(row, image)
        self.cpu_ms.append((time.process_time() - start) * 1000)
        return prediction

    def report(self) -> dict[str, Any]:
        """Give the engine's part of the report."""
        return {
            "engine": self.predictor.engine.name,
            "precision": self.engine.precision,
            "file_mb": self.engine.file_mb,
            "warm_up_ms": self.warm_up_ms,
            "cpu_ms": latency(self.cpu_ms),
            "start": None,
            "peak_rss_mb": None,
        } | self.evaluation.report()

    def _judged(self, row: ManifestRow, image: Image) -> Prediction:
        try:
            return self.predictor.predict(image)
        except ImageError as cause:
            raise DatasetError(
                f"{row_prefix(row)}{row.image}: {self.engine.name}: {cause}"
            ) from cause


def labelled_row(
    row: ManifestRow, predictor: Predictor, prediction: Prediction, engine: str
) -> dict[str, Any]:
    """Give the JSON row of a picture, with the truth and what the manifest says."""
    return scored_row(row.image, predictor, prediction, prediction.ms) | {
        "engine": engine,
        "label_true": row.label,
        "group_id": row.group_id,
        "meta": row.meta,
    }


def _pair(prediction: Prediction) -> tuple[float, Any]:
    return prediction.score, prediction.anomaly_map


def _difference_intervals(
    reference: Evaluation, candidate: Evaluation, options: MeasureOptions
) -> dict[str, list[float] | None]:
    """95 % intervals of candidate minus reference, on the same resamples."""
    labels = reference.labels
    if len(set(labels)) < 2 or not options.bootstrap_resamples:
        return dict.fromkeys(_COMPARED)
    return {
        key: list(
            bootstrap_difference(
                metric,
                reference.scores,
                candidate.scores,
                labels,
                generator=np.random.default_rng(options.seed),
                n_resamples=options.bootstrap_resamples,
            )
        )
        for key, metric in _COMPARED.items()
    }


def _measure_processes(
    rows: Sequence[ManifestRow],
    engines: Sequence[OpenEngine],
    reports: dict[str, dict[str, Any]],
    progress: Progress,
) -> None:
    """Add start and memory of each engine, alone in a process of its own."""
    places = np.linspace(0, len(rows) - 1, min(PICTURES, len(rows)))
    images = [rows[place].image_path for place in places.round().astype(int)]
    for done, engine in enumerate(engines):
        step = f"{engine.predictor.category}: each engine alone"
        progress(step, done, len(engines))
        measured = measure_process(engine.source, images)
        report, reason = reports[engine.name], measured.pop("reason")
        report["peak_rss_mb"] = measured.pop("peak_rss_mb")
        report["start"] = measured if reason is None else None
        if reason is not None:
            report["reasons"] |= {"peak_rss_mb": reason, "start": reason}
        progress(step, done + 1, len(engines))
