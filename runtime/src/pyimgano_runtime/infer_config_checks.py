"""Parts of an `infer_config.json` that are right alone and wrong together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from .chain_checks import chain_contradictions, kind_problems
from .infer_config import (
    FILE_NAME,
    REGIONS,
    THRESHOLD_KINDS,
    TILING,
    CategorySettings,
    InferConfig,
    RunConfig,
    Thresholds,
)

TENSOR_FORMS: Final = {  # kind -> dtype, number of axes (None: at least two)
    "image": ("uint8", 4),
    "features": ("float32", None),
    "score": ("float32", 1),
    "anomaly_map": ("float32", 3),
}
_PROVENANCE_TEXTS: Final = ("source", "set_by", "set_at")
MAX_NAME: Final = 100  # characters of a category's name
# Control characters and line ends: the same set in every language and version.
NOT_SHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def bundle_contradictions(config: InferConfig, where: str) -> list[str]:
    """What does not fit together in a well-typed bundle document."""
    found = [
        *_file_contradictions(config),
        *_model_contradictions(config),
        *chain_contradictions(config),
        *_category_contradictions(config),
        *_golden_contradictions(config),
        *text_problems(_texts_of_bundle(config)),
    ]
    return placed(found, where)


def run_contradictions(config: RunConfig, where: str) -> list[str]:
    """What does not fit together in a well-typed run document."""
    found = [
        *_shared_contradictions(config.categories, config.requires),
        *text_problems(_texts_of_run(config)),
    ]
    return placed(found, where)


def placed(found: Iterable[str], where: str) -> list[str]:
    """Give problems with their file; a name in them may be one that cannot be shown."""
    return [f"{where}: {NOT_SHOWN.sub('?', line)}" for line in found]


def text_problems(texts: Iterable[tuple[str, str]]) -> list[str]:
    """What cannot be shown of (place, text): it could rewrite a person's terminal."""
    return [
        f"{place}: found {json.dumps(text)[:60]}, expected characters that can be "
        "shown, on one line"
        for place, text in texts
        if NOT_SHOWN.search(text)
    ]


def _texts_of_bundle(config: InferConfig) -> Iterator[tuple[str, str]]:
    for key in ("name", "version", "created"):
        yield f"bundle.{key}", getattr(config.bundle, key)
    yield from _producer_texts("bundle", config.bundle.producer)
    yield "input.reference_decoder", config.input.reference_decoder
    for key in ("reference", "candidate", "machine"):
        yield f"parity.{key}", getattr(config.parity, key)
    for name, parity in config.parity.categories.items():
        yield f"parity.categories.{name}.images", parity.images
    yield from _training_texts(config.training)


def _texts_of_run(config: RunConfig) -> Iterator[tuple[str, str]]:
    yield "run.name", config.run.name
    yield "run.created", config.run.created
    yield from _producer_texts("run", config.run.producer)
    yield "model.name", config.model.name
    yield "model.preset", config.model.preset or ""
    yield "input.reference_decoder", config.input.reference_decoder
    yield from _training_texts(config.training)


def _producer_texts(block: str, producer: dict[str, str]) -> Iterator[tuple[str, str]]:
    for package, version in producer.items():
        yield f"{block}.producer", package
        yield f"{block}.producer.{package}", version


def _training_texts(training: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, category in (training.get("categories") or {}).items():
        yield f"training.categories.{name}.detector", category.get("detector", "")
        for warning in category.get("warnings", ()):
            yield f"training.categories.{name}.warnings", warning


def _file_contradictions(config: InferConfig) -> list[str]:
    problems = []
    listed = {FILE_NAME: FILE_NAME}
    for entry in config.files:
        twin = listed.get(entry.path.lower())
        listed[entry.path.lower()] = entry.path
        if twin is not None:
            problems.append(
                f'files: "{entry.path}" and "{twin}" are the same file on systems that '
                f"ignore case; each path stands once, {FILE_NAME} not at all"
            )
    return problems


def _model_contradictions(config: InferConfig) -> list[str]:
    problems = []
    for name, model in config.models.items():
        problems += _unlisted(config, model.file, "model", f"models.{name}.file")
        problems += kind_problems(model, f"models.{name}")
        for tensor in (*model.inputs, *model.outputs):
            dtype, axes = TENSOR_FORMS[tensor.kind]
            n = len(tensor.shape)
            if tensor.dtype != dtype or not (n == axes if axes else n >= 2):
                problems.append(
                    f"models.{name}: {tensor.name}: found {tensor.dtype} with {n} "
                    f"axes, expected {dtype} with {axes or 'at least 2'} for kind "
                    f"{tensor.kind}"
                )
    return problems


def category_name_problem(name: str) -> str | None:
    """Why this cannot be the name of a category, in words; None if it can."""
    if name.strip() and len(name) <= MAX_NAME and not NOT_SHOWN.search(name):
        return None
    return (
        f"found the name {json.dumps(name)[:60]}, expected 1 to {MAX_NAME} printable "
        "characters"
    )


def _shared_contradictions(
    categories: Mapping[str, CategorySettings], requires: Sequence[str]
) -> list[str]:
    """What categories of both kinds must have."""
    problems = category_name_problems(categories)
    for name, category in categories.items():
        place = f"categories.{name}"
        problems += threshold_contradictions(category.thresholds, f"{place}.thresholds")
        problems += _tiling_contradictions(category, requires, place)
        problems += _region_contradictions(category, requires, place)
    return problems


def _tiling_contradictions(
    category: CategorySettings, requires: Sequence[str], place: str
) -> list[str]:
    problems = []
    geometry, tiled = category.map_geometry, category.tiling is not None
    if geometry is not None and (geometry.mode == "tiles") != tiled:
        problems.append(
            f'{place}.map_geometry.mode: found "{geometry.mode}", expected "tiles" '
            "exactly where there is a tiling"
        )
    if tiled and TILING not in requires:
        problems.append(
            f'{place}.tiling: "{TILING}" does not stand in requires, so a reader '
            "without it would score whole pictures"
        )
    return problems


def _region_contradictions(
    category: CategorySettings, requires: Sequence[str], place: str
) -> list[str]:
    problems = []
    for key in ("roi", "regions"):
        if getattr(category, key) is not None and category.map_geometry is None:
            problems.append(
                f"{place}.{key}: expected null, the model gives no map to look at"
            )
    if category.regions is not None and category.thresholds.pixel is None:
        problems.append(
            f"{place}.thresholds.pixel: missing; regions are what lies above it"
        )
    if category.regions and category.regions.sets_label and REGIONS not in requires:
        problems.append(
            f'{place}.regions: "{REGIONS}" does not stand in requires, so a reader '
            "without them would give labels by the score alone"
        )
    return problems


def category_name_problems(names: Iterable[str]) -> list[str]:
    """What is wrong with the names of a document's categories."""
    given = list(names)
    problems = [
        f"categories: {problem}"
        for problem in map(category_name_problem, given)
        if problem is not None
    ]
    return problems if given else ["categories: empty, expected at least one"]


def threshold_contradictions(thresholds: Thresholds, place: str) -> list[str]:
    """What does not fit together in a well-typed `thresholds` block."""
    problems = []
    for kind in THRESHOLD_KINDS:
        if getattr(thresholds, kind) is None:
            if kind in thresholds.provenance:
                problems.append(
                    f"{place}.provenance.{kind}: there is no {kind} threshold; "
                    "remove it"
                )
        elif kind not in thresholds.provenance:
            problems.append(
                f"{place}.provenance.{kind}: missing; every threshold says where it "
                "comes from"
            )
    for kind, provenance in thresholds.provenance.items():
        bounds = provenance.bounds
        if bounds is not None and (
            bounds.images_above > bounds.n_images
            or bounds.groups_above > bounds.n_groups
        ):
            problems.append(
                f"{place}.provenance.{kind}.bounds: more are at or above the threshold "
                "than there are"
            )
        texts = [(key, getattr(provenance, key)) for key in _PROVENANCE_TEXTS]
        texts += [("warnings", warning) for warning in provenance.warnings]
        problems += text_problems(
            (f"{place}.provenance.{kind}.{key}", text) for key, text in texts
        )
    return problems


def _category_contradictions(config: InferConfig) -> list[str]:
    problems = _shared_contradictions(config.categories, config.requires)
    for name, category in config.categories.items():
        place = f"categories.{name}"
        if not category.graph or category.graph[-1] not in config.models:
            continue  # said by `chain_contradictions`
        output = config.models[category.graph[-1]].output("anomaly_map")
        geometry = category.map_geometry
        if (geometry is None) != (output is None):
            problems.append(
                f"{place}.map_geometry: expected exactly where the model has an "
                "anomaly_map"
            )
        elif geometry and output and output.shape[1:] != geometry.map_size:
            problems.append(
                f"{place}.map_geometry.map_size: found {list(geometry.map_size)}, the "
                f"model's anomaly_map has {list(output.shape[1:])}"
            )
    return problems


def _golden_contradictions(config: InferConfig) -> list[str]:
    problems = [
        f'parity.categories: no category "{name}"'
        for name in config.parity.categories
        if name not in config.categories
    ]
    for index, golden in enumerate(config.parity.goldens):
        place = f"parity.goldens[{index}]"
        problems += _unlisted(config, golden.image, "golden_image", f"{place}.image")
        if golden.map is not None:
            problems += _unlisted(config, golden.map, "golden_map", f"{place}.map")
        category = config.categories.get(golden.category)
        if category is None:
            problems.append(f'{place}.category: no category "{golden.category}"')
        elif golden.map is not None and category.map_geometry is None:
            problems.append(f"{place}.map: expected null, the model gives no map")
    return problems


def _unlisted(config: InferConfig, path: str, role: str, place: str) -> list[str]:
    if any(e.path == path and e.role == role for e in config.files):
        return []
    return [f'{place}: "{path}" does not stand in files with role "{role}"']
