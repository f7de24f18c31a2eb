"""Whether a bundle may go to the line: it is run, measured and held against gates.

accept_bundle -> pictures to judge by -> compare_engines (the bundle alone) + goldens
-> gates -> report.json, per-image rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime.atomic import new_folder
from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.check import check_bundle
from pyimgano_runtime.errors import DatasetError
from pyimgano_runtime.paths import plain_name

from ..datasets.catalog import DataSource, scan_dataset
from ..datasets.fingerprints import fingerprint, picture_digests, test_fingerprint
from ..datasets.images import inspect_pictures
from ..datasets.issues import IssueLog
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit, assign_splits
from ..detectors.interface import Progress
from ..inference.evaluation import latency
from ..source_date import timestamp
from ..workbench.artifacts import environment, write_json, write_jsonl
from .compare_engines import MeasureOptions, compare_engines
from .engines import open_onnx
from .gates import Gate, GateResult, judge

ACCEPTANCE_VERSION: Final = "1.0"
_OF_GOLDENS: Final = (
    *("max_abs_score_diff", "max_abs_map_diff"),
    *("goldens", "goldens_disagreeing"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRequest:
    """What the bundle is judged by."""

    source: DataSource
    categories: tuple[str, ...]  # none: all that bundle and data have in common
    test_normal_fraction: float
    split_seed: int
    gates: tuple[Gate, ...]
    threads: int
    options: MeasureOptions


def accept_bundle(
    bundle: Bundle,
    request: AcceptRequest,
    output: Path,
    *,
    force: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Judge a bundle, write the verdict into a folder, give the report.

    Besides the gates that are asked for, every category of the bundle must find at
    least one anomaly (recall above 0) and its goldens must agree: a detector that finds
    nothing is not ready, whatever its other numbers are. Categories may be left out by
    naming the others; their goldens must agree all the same.

    Raises:
        DatasetError: the pictures are refused, or none of them can judge.
        BundleError: the bundle is refused.
    """
    splits = _splits(bundle, request)
    rows = [row for split in splits for row in split.test]
    inspect_pictures(rows, bundle.config.input)
    keep = [bundle.root, *request.source.needed]
    names: set[str] = set()
    categories: dict[str, Any] = {}
    verdicts: list[GateResult] = []
    with new_folder(output, force=force, keep=keep) as folder:
        goldens = _goldens(bundle)
        for split in splits:
            stem = plain_name(split.category, names)
            measured, per_image = _measure(split, bundle, request, goldens, progress)
            write_jsonl(folder / "categories" / stem / "per_image.jsonl", per_image)
            results = _built_in(split.category, measured)
            results += judge(request.gates, measured, where=split.category)
            verdicts += results
            categories[split.category] = {"folder": stem} | measured
        judged = [split.category for split in splits]
        not_judged = [n for n in bundle.config.categories if n not in judged]
        verdicts += _of_the_others(
            not_judged, goldens, narrowed=bool(request.categories)
        )
        report = {
            "schema_version": ACCEPTANCE_VERSION,
            "kind": "acceptance",
            "bundle": bundle.config.bundle.name,
            "bundle_version": bundle.config.bundle.version,
            "bundle_sha256": bundle.sha256,
            "data": request.source.place,
            "finished": timestamp(),
            "threads": request.threads,
            "accepted": all(result.met for result in verdicts),
            "not_judged": not_judged,
            "gates": [result.to_json() for result in verdicts],
            "environment": environment(),
            "categories": categories,
        }
        write_json(folder / "report.json", report)
    return report


def gate_results(report: dict[str, Any]) -> list[GateResult]:
    """Give the verdicts of an acceptance report."""
    return [GateResult(**result) for result in report["gates"]]


def _splits(bundle: Bundle, request: AcceptRequest) -> list[CategorySplit]:
    """Give the pictures that judge each category of the bundle."""
    log = IssueLog()
    rows = scan_dataset(request.source, log, categories=request.categories)
    held = list(bundle.config.categories)
    wanted = request.categories
    if not wanted:
        wanted = tuple(n for n in held if any(row.category == n for row in rows))
    splits = assign_splits(
        rows,
        log,
        categories=wanted,
        test_normal_fraction=request.test_normal_fraction,
        seed=request.split_seed,
        uses_defects=True,  # what is in train is not looked at
        trains=False,
    )
    log.raise_errors()
    problems = [
        f'{bundle.root}: the bundle has no category "{name}"; it holds: '
        f"{', '.join(held)}"
        for name in wanted
        if name not in held
    ]
    if not wanted:
        known = sorted({row.category for row in rows})
        problems.append(
            f"{request.source.place}: no category of the bundle ({', '.join(held)}); "
            f"it holds: {', '.join(known)}; give the pictures the bundle's category"
        )
    problems += [
        f'{split.category}: no test pictures; give rows split "test"'
        for split in splits
        if not split.test
    ]
    if problems:
        raise DatasetError("\n".join(problems))
    return splits


def _measure(
    split: CategorySplit,
    bundle: Bundle,
    request: AcceptRequest,
    goldens: dict[str, dict[str, Any]],
    progress: Progress,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    name = split.category
    engine = open_onnx(bundle, name, request.threads)
    found = compare_engines(split.test, [engine], request.options, progress=progress)
    measured = found.engines["onnx"]
    trained = (bundle.config.training.get("categories") or {}).get(name) or {}
    replayed = goldens.get(name) or dict.fromkeys(_OF_GOLDENS)
    measured |= replayed | {"fit_seconds": trained.get("fit_seconds")}
    if replayed["goldens"] is None:
        reason = "no golden of this category could be replayed here"
        measured["reasons"] |= dict.fromkeys(_OF_GOLDENS[:2], reason)
    n_anomalies = sum(row.label == 1 for row in split.test)
    known, held_out = _held_out(split, trained)
    return measured | {
        "counts": {
            "test_normals": len(split.test) - n_anomalies,
            "test_anomalies": n_anomalies,
        },
        "threshold": engine.predictor.threshold,
        "test_fingerprint": test_fingerprint(split),
        "held_out": held_out,
        "held_out_known": known,
        "pixel_metrics": found.truth.to_json(),
        "decode_ms": latency(found.decode_ms),
        "warnings": found.truth.warnings(),
    }, found.per_image


def _held_out(split: CategorySplit, trained: dict[str, Any]) -> tuple[bool, str]:
    """Tell whether the model is known not to have seen these pictures, and in words."""
    learned = fingerprint(picture_digests(split.train))
    if split.train and learned == trained.get("data_fingerprint"):
        return True, "proven: the data's other rows are those that trained this bundle"
    unassigned = sum(_unassigned(row) for row in split.test)
    if unassigned:
        return False, (
            f"not known: {unassigned} of {len(split.test)} rows have no split, and the "
            "other rows are not those that trained this bundle (another seed or "
            "fraction, or other data), so these may be; give the seed and fraction of "
            'the training, or rows split "test"'
        )
    return True, 'as told: the rows are of split "test"'


def _unassigned(row: ManifestRow) -> bool:
    return row.split is None


def _goldens(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Give, by category, how far the goldens score from what training scored."""
    found: dict[str, dict[str, Any]] = {}
    for result in check_bundle(bundle).results:
        if result.agrees is None or result.score is None:
            continue  # other pixels than at export say nothing about the model
        of_category = found.setdefault(
            result.category,
            {
                "max_abs_score_diff": 0.0,
                "max_abs_map_diff": None,
                "goldens": 0,
                "goldens_disagreeing": 0,
            },
        )
        of_category["goldens"] += 1
        of_category["goldens_disagreeing"] += not result.agrees
        for key, difference in (
            ("max_abs_score_diff", abs(result.score - result.expected_score)),
            ("max_abs_map_diff", result.map_abs_diff),
        ):
            if difference is not None:
                of_category[key] = max(of_category[key] or 0.0, difference)
    return found


def _of_the_others(
    names: Sequence[str], goldens: dict[str, dict[str, Any]], *, narrowed: bool
) -> list[GateResult]:
    """Judge the categories without pictures: by their goldens, and as not judged."""
    results = []
    for name in names:
        if not narrowed:
            reason = "the data holds no test pictures of this category"
            results.append(
                GateResult(name, "recall", "above", 0.0, None, False, reason)
            )
        wrong = goldens.get(name, {}).get("goldens_disagreeing")
        if wrong is not None:
            results.append(
                GateResult(name, "goldens_disagreeing", "max", 0.0, wrong, not wrong)
            )
    return results


def _built_in(name: str, measured: dict[str, Any]) -> list[GateResult]:
    """What every bundle must reach: some anomaly found, no golden that disagrees."""
    recall = measured["recall"]
    reason = None if recall is not None else measured["reasons"].get("recall")
    results = [GateResult(name, "recall", "above", 0.0, recall, bool(recall), reason)]
    if not measured["held_out_known"]:
        results.append(
            GateResult(name, "held_out", "known", 1, 0, False, measured["held_out"])
        )
    disagreeing = measured["goldens_disagreeing"]
    if disagreeing is not None:
        results.append(
            GateResult(
                name, "goldens_disagreeing", "max", 0.0, disagreeing, not disagreeing
            )
        )
    return results
