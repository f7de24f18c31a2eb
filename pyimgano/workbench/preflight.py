"""Finds what is wrong with a data set before anything runs.

load_config -> scan_dataset -> assign_splits -> enough of it? -> decode everything
-> PreflightReport

`train` makes the checks of the list (manifest, splits, counts) itself; the pictures are
decoded by `train --preflight` and `pyimgano preflight`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pyimgano_runtime.calibration import conformal_rank
from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.decode import decoder_name
from pyimgano_runtime.infer_config import InputRules

from ..datasets.catalog import DataSource, scan_dataset
from ..datasets.content import measure_pictures
from ..datasets.content_checks import check_pictures
from ..datasets.duplicates import PlacedRow, check_equal_bytes, check_near_duplicates
from ..datasets.issues import (
    SEVERITIES,
    IssueLog,
    IssueSeverity,
    PreflightIssue,
    PreflightReport,
)
from ..datasets.portable_paths import check_paths
from ..datasets.spared_normals import held_out_part
from ..datasets.splits import CategorySplit, assign_splits
from ..datasets.summary import summarise
from ..detectors import detector_class
from .config import CalibrationConfig, LoadedConfig

__all__ = [
    "IssueSeverity",
    "PreflightIssue",
    "PreflightReport",
    "run_preflight",
]

FEW_NORMALS: Final = 20  # a coreset or a mean of fewer parts knows little variation

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightPlan:
    """What is examined, and for which purpose."""

    source: DataSource
    categories: tuple[str, ...] = ()
    test_normal_fraction: float = 0.2
    split_seed: int = 0
    uses_defects: bool = False
    holds_out: bool = False  # whether a fifth of the normals only calibrates
    trains: bool = True  # whether there must be normals to train on
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    @classmethod
    def of(cls, loaded: LoadedConfig) -> PreflightPlan:
        """Give the plan for a training config."""
        from ..detectors.feature_detector import FeatureDetector

        dataset = loaded.config.dataset
        detector = detector_class(loaded.config.model.name)
        return cls(
            source=loaded.source,
            categories=dataset.categories,
            test_normal_fraction=dataset.test_normal_fraction,
            split_seed=loaded.config.split_seed,
            uses_defects=detector.uses_defects,
            holds_out=not issubclass(detector, FeatureDetector),
            calibration=loaded.config.calibration,
        )


@dataclass(frozen=True, slots=True)
class Examination:
    """A report, and the rows it speaks of."""

    report: PreflightReport
    splits: tuple[CategorySplit, ...]


def run_preflight(
    config: LoadedConfig, *, content: bool = True, progress: Progress | None = None
) -> PreflightReport:
    """Examine the data of a training config; nothing is written.

    Args:
        content: also decode every picture and mask.
    """
    plan = PreflightPlan.of(config)
    return examine(plan, content=content, progress=progress).report


def examine(
    plan: PreflightPlan, *, content: bool = True, progress: Progress | None = None
) -> Examination:
    """Examine a data set and give what was found; nothing is written."""
    log = IssueLog()
    splits = check_list(plan, log)
    summary = summarise(splits)
    if content and splits:
        summary["content"] = _check_content(splits, log, progress or _silent)
    severities = {
        severity: sum(n for (s, _), n in log.counts.items() if s == severity)
        for severity in SEVERITIES
    }
    by_code: dict[str, dict[str, int]] = {}
    for (severity, code), n in sorted(log.counts.items()):
        by_code.setdefault(code, {})[severity] = n
    summary["issues"] = severities | {"by_code": by_code}
    report = PreflightReport(
        dataset=plan.source.dataset,
        category=plan.categories[0] if len(plan.categories) == 1 else None,
        summary=summary,
        issues=tuple(log.sorted()),
    )
    return Examination(report, tuple(splits))


def check_list(plan: PreflightPlan, log: IssueLog) -> list[CategorySplit]:
    """Give the split of every category; log what is wrong with the list of pictures.

    No picture is opened.
    """
    rows = scan_dataset(plan.source, log, categories=plan.categories)
    if not rows:
        return []
    # Where rows were refused, too few of something is no finding of its own.
    refused = {i.context.get("category") for i in log.issues if i.severity == "error"}
    splits = assign_splits(
        rows,
        log,
        # Of a layout, the scan gave these categories only, and said what is unknown.
        categories=plan.categories if plan.source.dataset == "manifest" else (),
        test_normal_fraction=plan.test_normal_fraction,
        seed=plan.split_seed,
        uses_defects=plan.uses_defects,
        trains=plan.trains,
    )
    for split in splits:
        if split.category not in refused:
            _check_counts(split, plan, log)
    wanted = {split.category for split in splits}
    check_paths([row for row in rows if row.category in wanted], log)
    return splits


def _check_counts(split: CategorySplit, plan: PreflightPlan, log: IssueLog) -> None:
    """Log where there is too little to train, calibrate or test."""
    name, normals = split.category, split.train_normals()
    if 0 < len(normals) < FEW_NORMALS:
        log.add(
            "TOO_FEW_NORMALS_TO_TRAIN",
            f"{name}: {len(normals)} normals to train on, at least {FEW_NORMALS} are "
            "expected; add pictures of other good parts",
            category=name,
            found=len(normals),
            expected=FEW_NORMALS,
        )
    methods = ("conformal", "quantile", "contamination")
    if normals and plan.calibration.method in methods:
        _check_calibration(split, plan, log)
    if not any(row.label == 0 for row in split.test):
        log.add(
            "TEST_WITHOUT_NORMALS",
            f"{name}: no normal in test, so the false-alarm rate cannot be measured; "
            "move some normals to test",
            category=name,
        )
    anomalies = [row for row in split.test if row.label == 1]
    if not anomalies:
        log.add(
            "TEST_WITHOUT_ANOMALIES",
            f"{name}: no anomaly in test, so recall and AUROC cannot be measured; add "
            "pictures of defects to test",
            category=name,
        )
    n_without = sum(row.mask is None for row in anomalies)
    if n_without:
        log.add(
            "TEST_ANOMALIES_WITHOUT_MASK",
            f"{name}: {n_without} of {len(anomalies)} test anomalies have no mask and "
            "are left out of pixel metrics; draw masks where the place matters",
            category=name,
            without_mask=n_without,
            anomalies=len(anomalies),
        )


def _check_calibration(
    split: CategorySplit, plan: PreflightPlan, log: IssueLog
) -> None:
    name, normals, calibration = split.category, split.train_normals(), plan.calibration
    if not split.val and all(row.group == normals[0].group for row in normals):
        log.add(
            "CALIBRATION_IMPOSSIBLE",
            f"{name}: {len(normals)} train normals of 1 part and no val rows: a "
            "threshold needs normals that the model was not fitted on; add some, or "
            'set calibration.method to "fixed" with a threshold',
            category=name,
            found=len(normals),
        )
        return
    if calibration.method != "conformal":
        return  # the others promise no rate
    held_out = [*split.val] or normals
    where = "val rows" if split.val else "train normals"
    if plan.holds_out and not split.val:
        held_out, _ = held_out_part(normals, seed=plan.split_seed)
        where += f", a fifth of {len(normals)},"
    rate = calibration.target_false_alarm_rate
    rank = conformal_rank(len(held_out), rate)
    if rank.small_n:
        needed = math.ceil(1 / rate - 1e-9) - 1
        log.add(
            "TOO_FEW_NORMALS_TO_CALIBRATE",
            f"{name}: {len(held_out)} {where} can promise no false-alarm rate below "
            f"{rank.used_rate:.2%}, not the requested {rate:.2%}; that takes {needed} "
            "normals, or ask for the higher rate in "
            "calibration.target_false_alarm_rate",
            category=name,
            found=len(held_out),
            expected=needed,
            requested_false_alarm_rate=rate,
            possible_false_alarm_rate=rank.used_rate,
        )


def _check_content(
    splits: Sequence[CategorySplit], log: IssueLog, progress: Progress
) -> dict[str, Any]:
    """Decode every picture and mask, log what is wrong, and give the counts."""
    placed = [
        PlacedRow(row, name)
        for split in splits
        for name in ("train", "val", "test")
        for row in getattr(split, name)
    ]
    # In the order of the manifest, so that issues come in the order of its lines.
    placed.sort(key=lambda one: one.row.line)
    rows = [one.row for one in placed]
    rules = InputRules(reference_decoder=decoder_name())
    table = measure_pictures(
        rows,
        rules,
        log,
        threads=usable_cores(),
        progress=lambda done, total: progress("pictures", done, total),
    )
    check_pictures(rows, table, log)
    ids = check_equal_bytes(placed, table, log)
    pairs = check_near_duplicates(
        placed, table, ids, rules, log, threads=usable_cores(), progress=progress
    )
    return {
        "pictures": len(rows),
        "decoded": int(table.decoded.sum()),
        "decoder": rules.reference_decoder,
        "near_duplicate_pairs": dict(pairs),
    }


def _silent(step: str, done: int, total: int) -> None:
    """Show no progress."""
