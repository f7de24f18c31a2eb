"""Whether a candidate is better than a reference, on the same pictures.

compare_runs -> refuse_other_pictures -> (category) numbers, paired intervals,
who is right where -> gates -> what changed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pyimgano_runtime.errors import ConfigError, raise_all

from ..metrics import auroc, average_precision, bootstrap_difference
from ..metrics.paired import sign_test
from ..metrics.report_keys import ReportKey, value_of
from .changed_settings import changed_config, changed_environment
from .regression_gates import RegressionGate, refuse_idle_gates
from .result_folder import ResultFolder, common_categories, measured

COMPARISON_SCHEMA_VERSION: Final = "1.0"
SIGNIFICANT: Final = 0.05  # the p value that goes with a 95 % interval

_RESAMPLED: Final = {"image_auroc": auroc, "image_ap": average_precision}
# Which pictures a rate counts, and which label is right there.
_COUNTED: Final = {"recall": (1, "anomaly"), "false_alarm_rate": (0, "normal")}

Pictures = Mapping[str, Mapping[str, Any]]


def compare_runs(
    a: ResultFolder,
    b: ResultFolder,
    *,
    categories: Sequence[str] = (),
    engine: str | None = None,
    gates: Sequence[RegressionGate] = (),
    allow_other_training_data: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Give how candidate B differs from reference A as a JSON object.

    Args:
        categories: only these; all common ones if empty.
        engine: which of a benchmark's engines; None: onnx, else its first.
        gates: how much worse B may be; a category that B lacks is worse, unless
            `categories` leaves it out.

    Raises:
        ConfigError: no common category, other pictures, an engine that was not
            measured, a gate that nothing was measured for, or damaged rows.
    """
    if engine is not None and "benchmark" not in (a.kind, b.kind):
        raise ConfigError(
            f"--engine {engine}: both are training runs, which torch measured; only "
            "benchmarks have engines"
        )
    names = common_categories(a, b, categories)
    refuse_other_pictures(a, b, names, allow_other_training_data)
    lost = [] if categories else [name for name in a.categories if name not in names]
    compared = {name: _category(name, a, b, engine, seed) for name in names}
    judged = [
        gate.judge(
            name,
            a.numbers(name, a.engine(name, engine)),
            None if name in lost else b.numbers(name, b.engine(name, engine)),
        )
        for name in (*names, *lost)
        for gate in gates
    ]
    refuse_idle_gates(judged)
    return {
        "schema_version": COMPARISON_SCHEMA_VERSION,
        "kind": "comparison",
        "a": _identity(a),
        "b": _identity(b),
        "only_in_a": [name for name in a.categories if name not in b.categories],
        "only_in_b": [name for name in b.categories if name not in a.categories],
        "notes": _notes(a, b),
        "categories": compared,
        "changed": {
            "config": changed_config(a, b, names),
            "environment": changed_environment(a, b),
        },
        "gates": judged,
        "passed": all(result["met"] is not False for result in judged),
    }


def refuse_other_pictures(
    a: ResultFolder,
    b: ResultFolder,
    names: Sequence[str],
    allow_other_training_data: bool = False,
) -> None:
    """Refuse a comparison whose numbers were measured on different pictures.

    Raises:
        ConfigError: a fingerprint is missing or differs; all categories at once.
    """
    problems = []
    for name in names:
        facts_a, facts_b = a.categories[name], b.categories[name]
        unnamed = [
            result.folder
            for result in (a, b)
            for keys in [result.categories[name]]
            if not (keys.get("split_fingerprint") and keys.get("test_fingerprint"))
        ]
        if unnamed:
            problems += [
                f"{folder}: {name}: the report does not name its pictures (no "
                "split_fingerprint; it was made by an earlier version); make it again"
                for folder in unnamed
            ]
        elif facts_a["test_fingerprint"] != facts_b["test_fingerprint"]:
            problems.append(
                f"{name}: A and B were tested on other pictures, or pictures with "
                "other labels, so their numbers cannot be compared; make both from "
                "the same data and split"
            )
        elif (
            facts_a["split_fingerprint"] != facts_b["split_fingerprint"]
            and not allow_other_training_data
        ):
            problems.append(
                f"{name}: same test pictures, but {_other_part(facts_a, facts_b)}; "
                "pass --allow-other-training-data to compare them all the same"
            )
    raise_all(problems)


def _other_part(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Name the part of the split that differs, as far as it is known."""
    trained = (a.get("data_fingerprint"), b.get("data_fingerprint"))
    if None in trained:  # of a benchmark
        return "other pictures in train or val"
    if trained[0] != trained[1]:
        return "other pictures in train"
    return "other pictures in val, or other labels in train"


def _category(
    name: str, a: ResultFolder, b: ResultFolder, engine: str | None, seed: int
) -> dict[str, Any]:
    engines = a.engine(name, engine), b.engine(name, engine)
    numbers_a, numbers_b = a.numbers(name, engines[0]), b.numbers(name, engines[1])
    pictures_a, pictures_b = a.pictures(name, engines[0]), b.pictures(name, engines[1])
    _refuse_other_rows(name, pictures_a, pictures_b)
    intervals = _intervals(pictures_a, pictures_b, seed)
    thresholds_a, thresholds_b = a.thresholds(name), b.thresholds(name)
    facts_a, facts_b = a.categories[name], b.categories[name]
    labels = [row["label_true"] for row in pictures_a.values()]
    return {
        "engine_a": engines[0],
        "engine_b": engines[1],
        "same_training_data": (
            facts_a["split_fingerprint"] == facts_b["split_fingerprint"]
        ),
        "test_normals": labels.count(0),
        "test_anomalies": labels.count(1),
        "metrics": [
            _metric(key, numbers_a, numbers_b, intervals)
            for key in measured([numbers_a, numbers_b])
        ],
        "paired": {
            key: _paired(pictures_a, pictures_b, *counted)
            for key, counted in _COUNTED.items()
            if counted[0] in labels
        },
        "thresholds": {
            kind: {"a": thresholds_a[kind], "b": thresholds_b[kind]}
            for kind in ("image", "pixel")
        },
        "threshold_words": {
            "a": a.threshold_words(name),
            "b": b.threshold_words(name),
        },
    }


def _metric(
    key: ReportKey,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    intervals: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    before, now = value_of(a, key.name), value_of(b, key.name)
    difference = None if before is None or now is None else now - before
    interval = intervals.get(key.name)
    return {
        "key": key.name,
        "a": before,
        "b": now,
        "difference": difference,
        "verdict": _verdict(difference, key),
        "difference_ci95": interval,
        "distinguishable": (
            None if interval is None else interval[0] > 0 or interval[1] < 0
        ),
    }


def _verdict(difference: float | None, key: ReportKey) -> str | None:
    if difference is None:
        return None
    if difference == 0:
        return "same"
    return "better" if (difference > 0) == (key.better == "higher") else "worse"


def _refuse_other_rows(name: str, a: Pictures, b: Pictures) -> None:
    """The fingerprints were equal: what differs now was changed afterwards."""
    other = sorted(set(a) ^ set(b))
    other += [n for n in a if n in b and a[n]["label_true"] != b[n]["label_true"]]
    if other:
        raise ConfigError(
            f"{name}: {len(other)} pictures of per_image.jsonl are in one folder only "
            f"or labelled otherwise ({', '.join(other[:3])}) although the fingerprints "
            "are equal; make the damaged one again"
        )


def _intervals(a: Pictures, b: Pictures, seed: int) -> dict[str, list[float]]:
    """Give the paired 95 % interval of B - A of what the scores alone decide."""
    labels = np.asarray([row["label_true"] for row in a.values()])
    if len(set(labels.tolist())) < 2:
        return {}
    scores_a = np.asarray([row["score"] for row in a.values()], dtype=np.float32)
    scores_b = np.asarray([b[name]["score"] for name in a], dtype=np.float32)
    return {
        key: list(
            bootstrap_difference(
                metric,
                scores_a,
                scores_b,
                labels,
                generator=np.random.default_rng(seed),
            )
        )
        for key, metric in _RESAMPLED.items()
    }


def _paired(a: Pictures, b: Pictures, truth: int, right: str) -> dict[str, Any]:
    """Count the pictures of one class that only A, or only B, judges rightly."""
    names = [name for name, row in a.items() if row["label_true"] == truth]
    only_a = [n for n in names if a[n]["label"] == right != b[n]["label"]]
    only_b = [n for n in names if b[n]["label"] == right != a[n]["label"]]
    p_value = sign_test(len(only_a), len(only_b))
    return {
        "pictures": len(names),
        "right_in_both": sum(a[n]["label"] == b[n]["label"] == right for n in names),
        "right_in_a_only": only_a,
        "right_in_b_only": only_b,
        "p_value": p_value,
        "distinguishable": p_value < SIGNIFICANT,
    }


def _identity(result: ResultFolder) -> dict[str, Any]:
    return {
        "path": str(result.folder),
        "kind": result.kind,
        "model": result.title,
        "finished": result.finished,
    }


def _notes(a: ResultFolder, b: ResultFolder) -> list[str]:
    """Say what a reader must know before trusting a time."""
    notes = []
    if a.kind != b.kind:
        notes.append(
            "one is a training run and the other a benchmark: their times were taken "
            "in different ways"
        )
    threads = {result.report.get("threads") for result in (a, b)}
    if a.kind == b.kind == "benchmark" and len(threads) > 1:
        notes.append(
            f"A ran with {a.report.get('threads')} threads, B with "
            f"{b.report.get('threads')}: do not compare their times"
        )
    if a.environment().get("machine") != b.environment().get("machine"):
        notes.append("made on different machines: do not compare their times")
    return notes
