"""Made-up cells of a leaderboard on disk, as a benchmark writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pyimgano.metrics.bootstrap import wilson_interval
from pyimgano.metrics.image import auroc, average_precision
from pyimgano.reporting.leaderboard import Cell
from pyimgano_runtime.png_writer import encode_png

THRESHOLD = 10.0
SPREAD = {"patchcore": 6.0, "padim": 3.0, "pixel_stats": 1.0}  # of the anomalies
MS = {"patchcore": 41.5, "padim": 18.25, "pixel_stats": 1.75}


def write_cell(
    folder: Path,
    *,
    model: str = "patchcore",
    dataset_name: str = "bolts",
    category: str = "thread",
    seed: int = 0,
    n_normals: int = 40,
    n_anomalies: int = 40,
    pixels: bool = True,
    robustness: dict[str, Any] | None = None,
) -> Cell:
    """A finished benchmark of drawn scores, with rows and two pictures of each kind."""
    rng = np.random.default_rng([seed, sum(map(ord, model + category))])
    labels = np.array([0] * n_normals + [1] * n_anomalies)
    scores = 7 + rng.normal(0, 1.4, len(labels)) + labels * SPREAD[model]
    scores = scores.astype(np.float32).astype(float)
    place = folder / "categories" / "cell"
    place.mkdir(parents=True)
    rows = [
        _row(f"images/{n:03d}.png", category, int(label), float(score), engine)
        for engine in ("torch", "onnx")
        for n, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "per_image.jsonl").write_text(lines, encoding="utf-8")
    _write_gallery(place / "gallery", rows[: len(labels)], rng)

    engines = {
        engine: _measured(labels, scores, model, engine, pixels)
        for engine in ("torch", "onnx")
    }
    facts: dict[str, Any] = {
        "folder": "cell",
        "counts": {"test_normals": n_normals, "test_anomalies": n_anomalies},
        "detector": model,
        "fit_seconds": 12.5,
        "test_fingerprint": "f" * 8,
        "threshold": THRESHOLD,
        "promised_false_alarm_rate": 0.02,
        "decode_ms": {"p50": 1.5, "p95": 2.0, "p99": 2.5},
        "engines": engines,
        "warnings": [],
    }
    if robustness is not None:
        facts["robustness"] = robustness
    report = {
        "schema_version": "1.0",
        "kind": "benchmark",
        "model": model,
        "seed": seed,
        "threads": 2,
        "finished": "2026-05-04T03:02:01Z",
        "environment": {
            "pyimgano": "0.9.0",
            "python": "3.11.9",
            "platform": "Linux-6.1",
            "machine": "a processor, 2 cores",
            "packages": {"onnxruntime": "1.20.0"},
        },
        "categories": {category: facts},
    }
    return Cell(model, "manifest", dataset_name, category, seed, folder, report)


def comparison(first: str, second: str, **changes: Any) -> dict[str, Any]:
    """A paired comparison of two models on the default cell, told apart."""
    return {
        "dataset": "manifest",
        "dataset_name": "bolts",
        "category": "thread",
        "seed": 0,
        "precision": "fp32",
        "engine": "onnx",
        "model_a": first,
        "model_b": second,
        "image_auroc_difference": -0.0625,  # of the second minus the first
        "low": -0.09375,
        "high": -0.03125,
        "distinguishable": True,
        "found_by_a_only": 1,
        "found_by_b_only": 9,
        "found_p_value": 0.021,
        **changes,
    }


def _row(
    name: str, category: str, label: int, score: float, engine: str
) -> dict[str, Any]:
    return {
        "input": name,
        "category": category,
        "ok": True,
        "score": score,
        "threshold": THRESHOLD,
        "label": "anomaly" if score >= THRESHOLD else "normal",
        "engine": engine,
        "label_true": label,
    }


def _measured(
    labels: Any, scores: Any, model: str, engine: str, pixels: bool
) -> dict[str, Any]:
    flagged, defective = scores >= THRESHOLD, labels == 1
    n_good, n_bad = int((~defective).sum()), int(defective.sum())
    both = bool(n_good and n_bad)
    found, alarms = int(flagged[defective].sum()), int(flagged[~defective].sum())
    value = auroc(scores, labels) if both else None
    interval = None if value is None else [max(0.0, value - 0.03), min(1, value + 0.02)]
    speed = MS[model] * (1.5 if engine == "torch" else 1)
    report: dict[str, Any] = {
        "engine": f"{engine} 1.0",
        "precision": "fp32",
        "image_auroc": value,
        "image_auroc_ci95": interval,
        "image_ap": average_precision(scores, labels) if both else None,
        "image_ap_ci95": interval,
        "image_f1": 0.875 if both else None,
        "image_f1_ci95": [0.75, 0.9375] if both else None,
        "recall": found / n_bad if n_bad else None,
        "recall_ci95": list(wilson_interval(found, n_bad)) if n_bad else None,
        "false_alarm_rate": alarms / n_good if n_good else None,
        "false_alarm_rate_ci95": (
            list(wilson_interval(alarms, n_good)) if n_good else None
        ),
        "pixel_auroc": 0.96875 if pixels else None,
        "aupro_0.3": 0.90625 if pixels else None,
        "aupro_0.05": 0.71875 if pixels else None,
        "seg_f1": 0.53125 if pixels else None,
        "oracle_image_f1": 0.9375 if both else None,
        "latency_ms": {"p50": speed, "p95": speed * 1.5, "p99": speed * 2},
        "cpu_ms": {"p50": speed * 1.9, "p95": speed * 2, "p99": speed * 3},
        "start": {"import_ms": 90.0, "open_ms": 45.0, "first_ms": 60.0},
        "peak_rss_mb": 212.5,
        "file_mb": 27.25,
        "reasons": {},
    }
    if not both:
        report["reasons"]["image_auroc"] = "one class only"
    if not pixels:
        report["reasons"]["pixel_auroc"] = "no masks"
    if engine != "torch":
        report |= {
            "label_flips": 0,
            "flipped_images": [],
            "min_threshold_distance": 0.0078125,
            "max_abs_score_diff": 3e-06,
            "p99_abs_score_diff": 2e-06,
            "score_spearman": 1.0,
        }
    return report


def _write_gallery(folder: Path, rows: list[dict[str, Any]], rng: Any) -> None:
    folder.mkdir()
    wrong = [r for r in rows if (r["label"] == "anomaly") != (r["label_true"] == 1)]
    right = [r for r in rows if r not in wrong]
    groups = []
    number = 0
    for title, chosen in (("Mistakes", wrong[:2]), ("Found", right[-2:])):
        cases = []
        for row in chosen:
            number += 1
            files = {"photo": f"{number}-photo.jpg", "heat": f"{number}-heat.jpg"}
            for file in files.values():
                tone = rng.integers(60, 200)
                picture = np.full((96, 96, 3), tone, np.uint8)
                cv2.circle(picture, (48, 48), 30, (200, 200, 210), 8)
                (folder / file).write_bytes(encode_png(picture))
            verdict = {
                (0, "anomaly"): "false alarm",
                (1, "normal"): "missed",
                (1, "anomaly"): "found",
                (0, "normal"): "accepted",
            }[row["label_true"], row["label"]]
            described = {
                key: row[key]
                for key in ("input", "score", "threshold", "label_true", "label")
            }
            kind = "anomaly" if row["label_true"] else "normal"
            cases.append(described | {"kind": kind, "verdict": verdict, "files": files})
        groups.append(
            {"title": title, "order": "worst first", "n_all": 9, "cases": cases}
        )
    payload = {"schema_version": "1.0", "kind": "cases", "groups": groups}
    (folder / "gallery.json").write_text(json.dumps(payload), encoding="utf-8")
