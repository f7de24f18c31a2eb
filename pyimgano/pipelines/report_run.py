"""Gathers what a report tells of a training run; only the shown pictures are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyimgano_runtime.binomial_bounds import count_bounds
from pyimgano_runtime.bundle import Bundle, open_bundle
from pyimgano_runtime.errors import BundleError, ConfigError, PyimganoError
from pyimgano_runtime.infer_config import (
    FILE_NAME,
    CategoryParity,
    CategorySettings,
    RateBounds,
)
from pyimgano_runtime.int8_words import int8_sentence
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.region_words import region_sentence

from ..datasets.catalog import scan_dataset
from ..datasets.issues import IssueLog
from ..datasets.rows import ManifestRow
from ..detectors.interface import Progress
from ..inference.torch_predictor import torch_predictor
from ..reporting.case_gallery import defect_kind
from ..reporting.model_facts import model_facts, run_facts
from ..reporting.overview_facts import InspectedPart
from ..reporting.report_facts import (
    Counted,
    Gallery,
    Report,
    ReportCategory,
    mapping_of,
)
from ..reporting.report_gallery import choose_pictures, draw_gallery
from ..workbench.artifacts import Run
from ..workbench.config import LoadedConfig, load_config
from ..workbench.run_document import training_facts
from ..workbench.runner import category_settings, run_rules
from ..workbench.trained import load_trained
from .export_run import OWN_BUNDLE
from .result_folder import ResultFolder
from .same_run import differences_from_run

NOT_EXPORTED = (
    "No bundle of this run was named or lies in it, so nothing is said here about how "
    "the exported model compares. pyimgano bundle export compares it with the trained "
    "one, and is refused where they disagree."
)
NO_PLACE = (
    "The pictures are not at the place that the run recorded any more, so none is "
    "shown."
)
NO_MODEL = (
    "The file of the trained model is gone, or is not the one that training wrote: "
    "what was measured here may not be what it does."
)
NO_PICTURES = "Pictures were left out on request."

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the run's pictures are now."""

    rows: Mapping[tuple[str, str], ManifestRow]  # by category and name
    note: str | None  # why there are none


def report_of_run(
    result: ResultFolder,
    bundle: Bundle | None,
    *,
    gallery: int,
    progress: Progress,
    warn: Warn,
) -> Report:
    """Give what there is to say of a run.

    Args:
        bundle: one of this run; None: its own, if it was exported into the run.
        gallery: pictures of a category, at most; 0: none.
        warn: told what the page has to do without, a line at a time.

    Raises:
        ConfigError: a report of the run is damaged, or the bundle is not its own.
    """
    run = Run(result.folder.absolute(), result.report)
    loaded = load_config(run.config_path)
    exported = _bundle_of(run, bundle, warn)
    place = _place_of(loaded, warn) if gallery else _Place({}, NO_PICTURES)
    gatherer = _Gatherer(result, run, loaded, exported, place, gallery, progress, warn)
    environment = result.environment()
    return Report(
        kind="run",
        name=run.folder.name,
        finished=str(result.finished),
        categories=tuple(gatherer.category(name) for name in run.categories),
        facts=run_facts(run.report, environment, exported),
        speed="These are times of the trained model during the test "
        f"({environment.get('machine', 'a machine')}, {run.report.get('device')}), "
        "without reading the file. What a device takes is measured there: pyimgano "
        "benchmark sets trained and exported model side by side.",
        exported=NOT_EXPORTED if exported is None else _exported_words(exported),
    )


def _exported_words(bundle: Bundle) -> str:
    info = bundle.config.bundle
    return (
        f"This run was exported as the bundle {info.name} {info.version}. A bundle is "
        "written only where trained and exported model agree."
    )


def _bundle_of(run: Run, named: Bundle | None, warn: Warn) -> Bundle | None:
    bundle = named
    if bundle is None:
        folder = run.folder / OWN_BUNDLE
        if not (folder / FILE_NAME).is_file():
            return None
        try:
            bundle = open_bundle(folder)
        except BundleError as error:
            warn(f"its own bundle is left out: {_first_line(error)}")
            return None
    common = [name for name in run.categories if name in bundle.config.categories]
    apart = [
        f"{name}: {', '.join(found)}"
        for name in common
        if (found := differences_from_run(name, run, bundle))
    ]
    if not common:
        apart = ["they have no category in common"]
    if not apart:
        return bundle
    if named is None:
        warn(f"its own bundle is left out, it is of another run ({'; '.join(apart)})")
        return None
    raise ConfigError(
        f"--bundle {named.root}: was exported from another run than {run.folder} "
        f"({'; '.join(apart)}); name a bundle of this run, or leave --bundle out"
    )


def _place_of(loaded: LoadedConfig, warn: Warn) -> _Place:
    """Find the run's pictures; single ones that are gone show when they are read."""
    log = IssueLog()
    problem = "no pictures are there"
    try:
        rows = scan_dataset(
            loaded.source, log, categories=loaded.config.dataset.categories
        )
    except PyimganoError as error:
        rows, problem = [], _first_line(error)
    except OSError as error:
        rows, problem = [], f"{error.filename}: {error.strerror}"
    if rows:
        return _Place({(row.category, row.image): row for row in rows}, None)
    errors = [issue.message for issue in log.issues if issue.severity == "error"]
    warn(f"pictures are left out: {errors[0].splitlines()[0] if errors else problem}")
    return _Place({}, NO_PLACE)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


@dataclass(frozen=True, slots=True)
class _Gatherer:
    """Gathers one category after the other."""

    result: ResultFolder
    run: Run
    loaded: LoadedConfig
    exported: Bundle | None
    place: _Place
    gallery: int
    progress: Progress
    warn: Warn

    def category(self, name: str) -> ReportCategory:
        """Give what there is to say of a category."""
        facts = self.result.categories[name]
        rows = list(self.result.pictures(name, None).values())
        parts = tuple(_part(row) for row in rows)
        tiling = self.loaded.config.tiles
        thresholds, calibration = self.run.calibration(name)
        settings: CategorySettings = CategorySettings(
            thresholds=thresholds,
            calibration=calibration,
            map_geometry=None,
            tiling=tiling,
        )
        training: Mapping[str, Any] = facts
        predictor = None
        detector = self._detector(name)
        if detector is None:
            training = facts | {"warnings": [NO_MODEL, *facts["warnings"]]}
        else:
            settings = category_settings(
                *(detector, name, thresholds, calibration),
                tiling=tiling,
                defects=self.loaded.config.defects,
            )
            training = training_facts(facts, detector)
            predictor = torch_predictor(
                detector, name, settings, run_rules(self.run), origin="run"
            )
        parity, in_int8 = self._parity(name)
        return ReportCategory(
            name=name,
            settings=settings,
            training=training,
            metrics=facts,
            counted=Counted.of_parts(parts),
            parts=parts,
            achieved=_achieved(rows),
            masks=mapping_of(facts, "pixel_metrics"),
            parity=parity,
            in_int8=in_int8,
            gallery=self._gallery(name, parts, thresholds.image, predictor),
            model_facts=model_facts(training, tiling, region_sentence(settings)),
        )

    def _detector(self, name: str) -> Any:
        try:
            return load_trained(self.run, name)
        except ConfigError as error:
            self.warn(
                f"{name}: backbone and heat maps are left out: {_first_line(error)}"
            )
            return None

    def _parity(self, name: str) -> tuple[CategoryParity | None, str]:
        if self.exported is None:
            return None, ""
        config = self.exported.config
        parity = config.parity.categories.get(name)
        trained = mapping_of(mapping_of(config.training, "categories"), name)
        return parity, int8_sentence(dict(trained), parity)

    def _gallery(
        self,
        name: str,
        parts: tuple[InspectedPart, ...],
        threshold: float,
        predictor: Predictor | None,
    ) -> Gallery:
        if self.place.note:
            return Gallery(note=self.place.note)
        note = None
        if predictor is None:
            note = "The trained model cannot be read any more: no heat maps."
        elif not predictor.engine.has_map:
            note = "This detector gives image scores only: no heat maps."
        return draw_gallery(
            choose_pictures(parts, threshold, self.gallery),
            {image: r for (own, image), r in self.place.rows.items() if own == name},
            run_rules(self.run),
            predictor,
            note=note,
            progress=lambda done, total: self.progress(
                f"{name}: pictures", done, total
            ),
        )


def _part(row: Mapping[str, Any]) -> InspectedPart:
    defective, p_value = row["label_true"] == 1, row.get("p_value")
    kind = (defect_kind(row.get("meta")) or "defective") if defective else "good"
    return InspectedPart(
        name=str(row["input"]),
        image_path=Path(str(row["input"])),
        mask_path=None,
        map_path=None,
        label_true=int(defective),
        kind=kind,
        score=float(row["score"]),
        p_value=p_value if isinstance(p_value, float) else None,
        label=str(row["label"]),
        ms=0.0,
    )


def _achieved(rows: list[dict[str, Any]]) -> RateBounds | None:
    """Count the false alarms of the test, by pictures and by parts."""
    normals = [row for row in rows if row["label_true"] == 0]
    if not normals:
        return None
    flagged = np.array([row["label"] == "anomaly" for row in normals], dtype=np.float32)
    groups = [
        f"group:{row['group_id']}" if row.get("group_id") else f"image:{row['input']}"
        for row in normals
    ]
    return count_bounds(flagged, groups, 0.5)  # as judged, whatever judged it
