"""`thresholds.json`: thresholds that a device set, beside the bundle, never in it.

    file = read_thresholds_file("thresholds.json")
    predictor = Predictor.open("bundle", thresholds=file)

They belong to the scores of one model file: another one's scores are not comparable.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._reader import Fields, check_version, closest, dump_json, read_json
from .errors import ConfigError, raise_all
from .infer_config import Calibration, CategoryConfig, Thresholds
from .infer_config_checks import (
    category_name_problems,
    placed,
    text_problems,
    threshold_contradictions,
)
from .reference import with_scores
from .region_flags import with_moved_low
from .thresholds_reader import read_calibration, read_sha256, read_thresholds

if TYPE_CHECKING:
    from .bundle import Bundle

SCHEMA: Final = "pyimgano/thresholds"
MAJOR: Final = 1
MINOR: Final = 0


@dataclass(frozen=True, slots=True)
class CalibratedBundle:
    """Which release the thresholds were made with."""

    name: str
    version: str
    infer_config_sha256: str


@dataclass(frozen=True, slots=True)
class CategoryThresholds:
    """One category's thresholds, and the model files whose scores they compare."""

    model_sha256: tuple[str, ...]  # of the category's graph, in its order
    thresholds: Thresholds
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class ThresholdsFile:
    """A whole `thresholds.json`."""

    name: str  # of the file: rows say it; no part of the document
    bundle: CalibratedBundle
    categories: dict[str, CategoryThresholds]
    schema_version: str = f"{MAJOR}.{MINOR}"

    def to_json(self) -> str:
        """Give the text of the file."""
        payload = {
            "schema": SCHEMA,
            "schema_version": self.schema_version,
            "bundle": asdict(self.bundle),
            "categories": {name: asdict(c) for name, c in self.categories.items()},
        }
        return dump_json(payload)

    def settings_for(self, bundle: Bundle, category: str) -> CategoryConfig:
        """Give a category's settings of a bundle with the thresholds of this file.

        Raises:
            ConfigError: no such category in the file, or other model files in the
                bundle.
        """
        own = self.categories.get(category)
        if own is None:
            raise ConfigError(
                f'{self.name}: holds no thresholds of category "{category}" '
                f"({closest(category, self.categories)}); it holds: "
                f"{', '.join(sorted(self.categories))}; calibrate this category by "
                '"pyimgano-runtime calibrate"'
            )
        found = model_sha256(bundle, category)
        if found != own.model_sha256:
            raise ConfigError(
                f"{self.name}: was calibrated with another model of {category} (of "
                f"{self.bundle.name} {self.bundle.version}, sha256 "
                f"{_short(own.model_sha256)}) than {bundle.root} has (sha256 "
                f"{_short(found)}), so scores are not comparable; calibrate again by "
                '"pyimgano-runtime calibrate"'
            )
        settings = bundle.config.categories[category]
        reference = settings.reference
        if reference is not None:
            reference = with_scores(reference, own.thresholds, own.calibration)
        regions = settings.regions
        if regions is not None:
            regions = with_moved_low(regions, settings.thresholds, own.thresholds)
        return replace(
            settings,
            regions=regions,
            thresholds=own.thresholds,
            calibration=own.calibration,
            reference=reference,
        )


def model_sha256(bundle: Bundle, category: str) -> tuple[str, ...]:
    """Give the sha256 of each model file of a category's graph, in its order."""
    config = bundle.config
    listed = {entry.path: entry.sha256 for entry in config.files}
    graph = config.categories[category].graph
    return tuple(listed[config.models[name].file] for name in graph)


def read_thresholds_file(path: str | os.PathLike[str]) -> ThresholdsFile:
    """Give a `thresholds.json`, read strictly.

    Raises:
        ConfigError: missing or damaged, another format, a newer version, unknown keys,
            wrong types, or parts that contradict each other; all at once.
    """
    place = Path(path)
    payload = read_json(place)
    where = str(place)
    _check_version(payload, where)
    problems: list[str] = []
    top = Fields(payload, where, problems)
    top.raw("schema")
    version = top.text("schema_version")
    about = top.fields("bundle")
    bundle = CalibratedBundle(
        name=about.text("name"),
        version=about.text("version"),
        infer_config_sha256=read_sha256(about, "infer_config_sha256"),
    )
    about.finish()
    categories = {name: _read_category(f) for name, f in top.each("categories")}
    top.finish()
    if not problems:
        problems += placed(_contradictions(bundle, categories), where)
    raise_all(problems)
    return ThresholdsFile(place.name, bundle, categories, version)


def _read_category(fields: Fields) -> CategoryThresholds:
    digests = fields.texts("model_sha256")
    if not digests or not all(re.fullmatch(r"[0-9a-f]{64}", d) for d in digests):
        fields.problem(
            "model_sha256", "expected texts of 64 lower-case hexadecimal digits"
        )
    thresholds = read_thresholds(fields.fields("thresholds"))
    calibration = read_calibration(fields.fields("calibration"))
    fields.finish()
    return CategoryThresholds(digests, thresholds, calibration)


def _contradictions(
    bundle: CalibratedBundle, categories: dict[str, CategoryThresholds]
) -> list[str]:
    """What is right alone and wrong together, as in `infer_config.json`."""
    texts = (("bundle.name", bundle.name), ("bundle.version", bundle.version))
    problems = [*text_problems(texts), *category_name_problems(categories)]
    for name, category in categories.items():
        place = f"categories.{name}.thresholds"
        problems += threshold_contradictions(category.thresholds, place)
    return problems


def _check_version(payload: Any, where: str) -> None:
    check_version(
        payload,
        where,
        schema=SCHEMA,
        newest=(MAJOR, MINOR),
        made_by="pyimgano-runtime calibrate",
        advice=lambda: (
            "a pyimgano-runtime that reads schema "
            f"{payload['schema_version']}, or calibrate again with this one"
        ),
        error=ConfigError,
    )


def _short(digests: tuple[str, ...]) -> str:
    return ", ".join(f"{digest[:16]}..." for digest in digests)
