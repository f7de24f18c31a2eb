"""Parts of an `infer_config.json` that are right alone and wrong together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from .infer_config import (
    FILE_NAME,
    THRESHOLD_KINDS,
    CategorySettings,
    InferConfig,
    RunConfig,
)

TENSOR_FORMS: Final = {  # kind -> dtype, number of axes
    "image": ("uint8", 4),
    "score": ("float32", 1),
    "anomaly_map": ("float32", 3),
}
MAX_NAME: Final = 100  # characters of a category's name
# Control characters and line ends: the same set in every language and version.
NOT_SHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def bundle_contradictions(config: InferConfig, where: str) -> list[str]:
    """What does not fit together in a well-typed bundle document."""
    found = [
        *_file_contradictions(config),
        *_model_contradictions(config),
        *_category_contradictions(config),
        *_golden_contradictions(config),
    ]
    return [f"{where}: {line}" for line in found]


def run_contradictions(config: RunConfig, where: str) -> list[str]:
    """What does not fit together in a well-typed run document."""
    return [f"{where}: {line}" for line in _shared_contradictions(config.categories)]


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
        if [i.kind for i in model.inputs] != ["image"]:
            problems.append(f"models.{name}.inputs: expected one of kind image")
        kinds = [o.kind for o in model.outputs]
        if kinds not in (["score"], ["score", "anomaly_map"]):
            problems.append(
                f"models.{name}.outputs: found kinds {kinds}, expected score and at "
                "most one anomaly_map"
            )
        for tensor in (*model.inputs, *model.outputs):
            dtype, axes = TENSOR_FORMS[tensor.kind]
            if tensor.dtype != dtype or len(tensor.shape) != axes:
                problems.append(
                    f"models.{name}: {tensor.name}: found {tensor.dtype} with "
                    f"{len(tensor.shape)} axes, expected {dtype} with {axes} for kind "
                    f"{tensor.kind}"
                )
    return problems


def _shared_contradictions(categories: Mapping[str, CategorySettings]) -> list[str]:
    """What categories of both kinds must have."""
    problems = []
    for name, category in categories.items():
        if NOT_SHOWN.search(name) or not (name.strip() and len(name) <= MAX_NAME):
            problems.append(
                f"categories: found the name {json.dumps(name)[:60]}, expected 1 to "
                f"{MAX_NAME} printable characters"
            )
        thresholds = category.thresholds
        for kind in THRESHOLD_KINDS:
            if getattr(thresholds, kind) is None:
                if kind in thresholds.provenance:
                    problems.append(
                        f"categories.{name}.thresholds.provenance.{kind}: there is no "
                        f"{kind} threshold; remove it"
                    )
            elif kind not in thresholds.provenance:
                problems.append(
                    f"categories.{name}.thresholds.provenance.{kind}: missing; every "
                    "threshold says where it comes from"
                )
        for kind, provenance in thresholds.provenance.items():
            bounds = provenance.bounds
            if bounds is not None and (
                bounds.images_above > bounds.n_images
                or bounds.groups_above > bounds.n_groups
            ):
                problems.append(
                    f"categories.{name}.thresholds.provenance.{kind}.bounds: more are "
                    "at or above the threshold than there are"
                )
    if not categories:
        problems.append("categories: empty, expected at least one")
    return problems


def _category_contradictions(config: InferConfig) -> list[str]:
    problems = _shared_contradictions(config.categories)
    for name, category in config.categories.items():
        place = f"categories.{name}"
        if len(category.graph) != 1 or category.graph[0] not in config.models:
            problems.append(
                f"{place}.graph: found {list(category.graph)}, expected one of the "
                f"models {sorted(config.models)}"
            )
            continue
        output = config.models[category.graph[0]].output("anomaly_map")
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
