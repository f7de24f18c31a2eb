"""Runs a training config: fit, calibrate on held-out normals, evaluate, report.

load_config -> preflight.check_list -> fit -> calibrate -> evaluate -> run folder
(complete or absent)
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pyimgano_runtime._reader import read_json
from pyimgano_runtime.atomic import finish_swap, new_folder, refuse_replacing
from pyimgano_runtime.calibration import (
    fixed_thresholds,
)
from pyimgano_runtime.decode import decoder_name
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.infer_config import (
    Calibration,
    CategoryConfig,
    InputRules,
    MapGeometry,
    Thresholds,
)
from pyimgano_runtime.paths import plain_name
from pyimgano_runtime.peak_memory import peak_rss_mb
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.reference import Reference, with_scores
from pyimgano_runtime.tiling import Tiling

from .. import calibration as calibrating
from ..datasets.fingerprints import (
    fingerprint,
    picture_digests,
    split_fingerprint,
    test_fingerprint,
    training_fingerprint,
)
from ..datasets.images import inspect_pictures
from ..datasets.issues import IssueLog
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from ..datasets.summary import dataset_summary
from ..detectors import checkpoint_sha256, save_detector
from ..detectors.interface import Detector, FitContext, Progress
from ..inference.torch_predictor import torch_predictor
from ..source_date import Clock, timestamp
from . import artifacts
from .category_thresholds import set_thresholds
from .config import LoadedConfig, WorkbenchConfig
from .defects_config import DefectsConfig
from .evaluating import Tested, evaluate_test
from .fitting import CategoryFitter, Fitted
from .labelled_rows import Labelled, load_labelled
from .picture_reference import normals_reference
from .preflight import PreflightPlan, check_list
from .unfinished import FitClock, UnfinishedRun, identity_of

log = logging.getLogger(__name__)


def input_rules() -> InputRules:
    """Give the input rules that new detectors are trained under."""
    return InputRules(reference_decoder=decoder_name())


def run_rules(run: artifacts.Run) -> InputRules:
    """Give the input rules that a run was trained under."""
    # Runs of before it was recorded: what reads pictures now.
    recorded = run.report.get("reference_decoder") or decoder_name()
    return InputRules(reference_decoder=recorded)


def choose_device(name: str) -> torch.device:
    """Give the device of a config's `device`.

    Raises:
        ConfigError: cuda was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            'device: found "cuda", but torch sees no GPU; use "auto" or "cpu"'
        )
    # TF32 keeps 10 bits of a number: scores would be off by more than the tolerance.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def load_splits(loaded: LoadedConfig, *, trains: bool = True) -> list[CategorySplit]:
    """Give the split of every category that the config trains.

    Args:
        trains: whether there must be normals to train on.

    Raises:
        DatasetError: preflight's checks of the list find errors; all at once.
    """
    log = IssueLog()
    splits = check_list(replace(PreflightPlan.of(loaded), trains=trains), log)
    log.raise_errors()
    return splits


def train(
    loaded: LoadedConfig,
    output: Path,
    *,
    force: bool,
    progress: Progress,
    resume: bool = False,
    clock: Clock = timestamp,
) -> artifacts.Run:
    """Train every category of a config and write the run folder.

    Args:
        resume: go on with a training that was interrupted, if there is one.
        clock: gives the times that are written into the run.

    Raises:
        ConfigError, DatasetError: refused before anything is written.
    """
    output = output.absolute()
    keep = [loaded.path, *loaded.source.needed]
    unfinished = UnfinishedRun.beside(output)
    if resume:
        _refuse_finished(output, unfinished)
        force = unfinished.replaces
    refuse_replacing(output, force=force, keep=keep)
    if not resume and not force and unfinished.can_be_resumed():
        raise ConfigError(
            f"{output}: a training of it was interrupted and can go on; pass --resume "
            "to continue it, or --force to begin anew"
        )
    device = choose_device(loaded.config.device)
    splits = load_splits(loaded)
    for split in splits:
        rows = [*split.train, *split.val, *split.test]
        keep += {p.parent for r in rows for p in (r.image_path, r.mask_path) if p}
        inspect_pictures(rows, input_rules())
    labelled = load_labelled(loaded, splits, input_rules())
    if loaded.labelled_manifest is not None:
        keep.append(loaded.labelled_manifest)
    keep += {row.image_path.parent for rows in labelled.values() for row in rows}
    config = _absolute(loaded)
    with new_folder(output, force=force, keep=keep) as folder:
        identity = identity_of(config, splits, labelled, device)
        with unfinished.at_work(identity, resume=resume, replaces=force):
            write_run(
                *(config, splits, folder, device, progress, clock),
                labelled=labelled,
                work=unfinished.folder,
            )
    unfinished.delete()
    return artifacts.open_run(output)


def _refuse_finished(output: Path, unfinished: UnfinishedRun) -> None:
    """Refuse to resume a run that is complete; what it left goes."""
    finish_swap(output)
    if not (output / "report.json").is_file() or unfinished.replaces:
        return
    unfinished.delete()  # killed between the last step and this one
    raise ConfigError(
        f"{output}: already exists and no training of it was interrupted, so there is "
        "nothing to resume; name another output folder, or pass --force in place of "
        "--resume to train anew"
    )


def write_run(
    config: WorkbenchConfig,
    splits: Sequence[CategorySplit],
    folder: Path,
    device: torch.device,
    progress: Progress,
    clock: Clock = timestamp,
    *,
    labelled: Labelled | None = None,
    work: Path | None = None,
) -> None:
    """Train each split and write everything of a run into a folder that is there.

    Args:
        labelled: the pictures for method "best_f1", by category.
        work: folder that outlives a kill; what it holds is gone on with. None: a
            temporary one.
    """
    names: set[str] = set()
    categories = {}
    with ExitStack() as stack:
        if work is None:
            scratch = tempfile.TemporaryDirectory(prefix=".work-", dir=folder)
            work = Path(stack.enter_context(scratch))
        for split in splits:
            stem = plain_name(split.category, names)
            own = (labelled or {}).get(split.category, ())
            trainer = CategoryTrainer(config, split, device, progress, clock, own)
            finished = trainer.finish(work, stem)
            entry: dict[str, Any] = read_json(finished / "entry.json")
            categories[split.category] = {"folder": stem} | entry
            for part in ("categories", "checkpoints"):
                shutil.copytree(finished / part, folder / part, dirs_exist_ok=True)
    artifacts.write_json(folder / "config.json", config.to_dict())
    artifacts.write_json(folder / "environment.json", artifacts.environment())
    report = {
        "schema_version": artifacts.RUN_SCHEMA_VERSION,
        "recipe": config.recipe,
        "detector": config.model.name,
        "finished": clock(),
        "device": str(device),
        "reference_decoder": decoder_name(),
        "peak_rss_mb": peak_rss_mb(),
        "categories": categories,
    }
    artifacts.write_json(folder / "report.json", report)


@dataclass(slots=True)
class CategoryTrainer:
    """Fits, calibrates and evaluates one category."""

    config: WorkbenchConfig
    split: CategorySplit
    device: torch.device
    progress: Progress
    clock: Clock
    labelled: Sequence[ManifestRow] = ()  # for method "best_f1"

    def finish(self, work: Path, stem: str) -> Path:
        """Give the folder of the finished category: trained now, or before a kill."""
        finished, states = work / "finished" / stem, work / "states" / stem
        if not finished.exists():
            unfinished = work / "unfinished" / stem
            shutil.rmtree(unfinished, ignore_errors=True)
            states.mkdir(parents=True, exist_ok=True)
            report = self.run(unfinished, stem, states)
            artifacts.write_json(unfinished / "entry.json", report)
            finished.parent.mkdir(exist_ok=True)
            unfinished.rename(finished)
        shutil.rmtree(states, ignore_errors=True)
        return finished

    def run(self, folder: Path, stem: str, states: Path) -> dict[str, Any]:
        """Do it all, write the category's files, give its report.

        Args:
            states: folder for what a fit keeps; that of a killed one is gone on with.
        """
        name = self.split.category
        log.info(
            "%s: %d train, %d val, %d test pictures",
            *(name, len(self.split.train), len(self.split.val), len(self.split.test)),
        )
        rules = input_rules()
        fit_clock = FitClock(states / "seconds")
        context = self._context(states, fit_clock)
        fitter = CategoryFitter(self.config, self.split, rules, context)
        fitted = fitter.fit(self._scorer)
        fit_seconds = fit_clock.seconds
        detector = fitted.detector
        thresholds, calibration = set_thresholds(
            self.config.calibration,
            fitted.held_out,
            fitted.calibrated_on,
            self.labelled,
            lambda: fitter.score(
                self._scorer(detector), self.labelled, "labelled_manifest"
            ),
            by=f"pyimgano train ({self.config.recipe})",
            at=self.clock(),
        )
        digests = {
            "train": picture_digests(self.split.train),
            "val": picture_digests(self.split.val),
        }
        if self.labelled:
            digests["labelled"] = picture_digests(self.labelled)
        checkpoint = folder / "checkpoints" / stem / "model.safetensors"
        checkpoint.parent.mkdir(parents=True)
        save_detector(detector, checkpoint)
        digest = checkpoint_sha256(checkpoint)
        place = folder / "categories" / stem
        pictures = normals_reference(self.split, rules, self._progress)
        artifacts.write_json(
            place / "calibration.json",
            calibrating.as_json(
                *(thresholds, calibration),
                with_scores(pictures, thresholds, calibration),
            ),
        )
        artifacts.write_json(
            place / "data.json",
            {"schema_version": artifacts.RUN_SCHEMA_VERSION} | digests,
        )
        predictor = self._predictor(detector, thresholds, calibration)
        tested = evaluate_test(self.config, self.split, predictor, self._progress)
        artifacts.write_jsonl(place / "per_image.jsonl", tested.per_image)
        report = self._report(fitted, tested, digests)
        report |= {"checkpoint_sha256": digest, "fit_seconds": fit_seconds}
        report |= tested.facts(thresholds)
        artifacts.write_json(
            place / "report.json",
            {"schema_version": artifacts.RUN_SCHEMA_VERSION, "category": name} | report,
        )
        return report

    def _report(
        self, fitted: Fitted, tested: Tested, digests: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Give what was learned from which pictures.

        Args:
            digests: of the pictures, by what they are for.
        """
        counts = self._counts(fitted.calibrated_on)
        learned = training_fingerprint(self.split)
        judged = test_fingerprint(self.split)
        return {
            "detector": fitted.detector.name,
            "hyper_parameters": fitted.detector.hyper_parameters(),
            "counts": counts,
            "learned_from": fitted.learned_from,
            "dataset_summary": dataset_summary(
                train=counts["train_normals"],
                calibration=counts["calibration"],
                test_normals=counts["test_normals"],
                test_anomalies=counts["test_anomalies"],
                pixel_metrics=tested.metrics["pixel_metrics"],
            ),
            "data_fingerprint": fingerprint(digests["train"]),
            "split_fingerprint": split_fingerprint(learned, judged),
            "training_fingerprint": learned,
            "test_fingerprint": judged,
        }

    def _context(self, states: Path, fit_clock: FitClock) -> FitContext:
        def progress(step: str, done: int, total: int) -> None:
            fit_clock.tick()
            self._progress(step, done, total)

        return FitContext(
            generator=torch.Generator().manual_seed(self.config.seed),
            device=self.device,
            workspace=states,
            progress=progress,
            memory_budget=self.config.memory_budget_mb * 1024**2,
            resume=True,  # a folder without states starts at the beginning
        )

    def _progress(self, step: str, done: int, total: int) -> None:
        self.progress(f"{self.split.category}: {step}", done, total)

    def _scorer(self, detector: Detector) -> Predictor:
        """Give what scores pictures as the finished model does; it has no threshold."""
        none = fixed_thresholds(0.0, None, set_by="", set_at="")
        return self._predictor(detector, *none)

    def _predictor(
        self, detector: Detector, thresholds: Thresholds, calibration: Calibration
    ) -> Predictor:
        name = self.split.category
        settings = category_settings(
            *(detector, name, thresholds, calibration),
            tiling=self.config.tiles,
            defects=self.config.defects,
        )
        return torch_predictor(
            detector, name, settings, input_rules(), device=self.device
        )

    def _counts(self, calibration_rows: Sequence[ManifestRow]) -> dict[str, int]:
        test = self.split.test
        return {
            "train_normals": len(self.split.train_normals()),
            "train_defects": len(self.split.train_defects()),
            "calibration": len(calibration_rows),
            "test_normals": sum(row.label == 0 for row in test),
            "test_anomalies": sum(row.label == 1 for row in test),
        } | self._labelled_counts()

    def _labelled_counts(self) -> dict[str, int]:
        if not self.labelled:
            return {}
        n_defects = sum(row.label == 1 for row in self.labelled)
        return {
            "labelled_normals": len(self.labelled) - n_defects,
            "labelled_defects": n_defects,
        }


def category_settings(
    detector: Any,
    name: str,
    thresholds: Thresholds,
    calibration: Calibration,
    *,
    tiling: Tiling | None = None,
    defects: DefectsConfig | None = None,
    reference: Reference | None = None,
) -> CategoryConfig:
    """Give what the runtime needs to judge this category's scores."""
    return CategoryConfig(
        graph=(name,),
        thresholds=thresholds,
        calibration=calibration,
        map_geometry=MapGeometry.of(detector, tiling),
        roi=None if defects is None else defects.roi,
        tiling=tiling,
        regions=None if defects is None else defects.rules(thresholds),
        reference=reference,
    )


def _absolute(loaded: LoadedConfig) -> WorkbenchConfig:
    """Give the config with its paths absolute, so that the run can be read later."""
    source = loaded.source
    dataset = replace(
        loaded.config.dataset,
        manifest_path=None
        if source.manifest_path is None
        else str(source.manifest_path),
        root=None if source.root is None else str(source.root),
    )
    labelled = loaded.labelled_manifest
    calibration = replace(
        loaded.config.calibration,
        labelled_manifest=None if labelled is None else str(labelled),
    )
    return replace(loaded.config, dataset=dataset, calibration=calibration)
