"""Reads `infer_config.json` strictly: every problem of a document, raised at once."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ._reader import Fields
from ._version import __version__
from .errors import BundleError, raise_all
from .infer_config import (
    FILE_NAME,
    FILE_ROLES,
    MAJOR,
    MINOR,
    REQUIREMENTS,
    SCHEMA,
    TENSOR_KINDS,
    BundleInfo,
    Calibration,
    CategoryConfig,
    CategoryParity,
    FileEntry,
    Golden,
    InferConfig,
    InputRules,
    MapGeometry,
    ModelSpec,
    Parity,
    TensorSpec,
    ThresholdProvenance,
    Thresholds,
)
from .paths import path_problem

FLOAT32_MAX: Final = 3.4028234663852886e38
_TENSOR_FORMS: Final = {  # kind -> dtype, number of axes
    "image": ("uint8", 4),
    "score": ("float32", 1),
    "anomaly_map": ("float32", 3),
}
_MAX_NAME: Final = 100  # characters of a category's name


def read_infer_config(payload: Any, where: str) -> InferConfig:
    """Read and check a document; see `InferConfig.from_dict`."""
    problems: list[str] = []
    _check_version(payload, where)
    top = Fields(payload, where, problems)
    for key in ("schema", "schema_version"):
        top.raw(key)
    config = InferConfig(
        kind=top.text("kind", choices=("bundle",)),
        requires=top.texts("requires"),
        bundle=_read_bundle_info(top.fields("bundle")),
        files=tuple(_read_file(item) for item in top.items("files")),
        models={name: _read_model(f) for name, f in top.each("models")},
        input=_read_input(top.fields("input")),
        preprocess=_read_steps(top, "preprocess"),
        postprocess=_read_steps(top, "postprocess"),
        categories={n: _read_category(f) for n, f in top.each("categories")},
        parity=_read_parity(top.fields("parity")),
        training=_read_training(top.fields("training")),
        extensions=_read_object(top, "extensions"),
        schema_version=top.payload["schema_version"],
    )
    top.finish()
    if not problems:
        problems += _contradictions(config, where)
    raise_all(problems, BundleError)
    return config


def _check_version(payload: Any, where: str) -> None:
    if not isinstance(payload, dict) or payload.get("schema") != SCHEMA:
        raise BundleError(
            f'{where}: expected a JSON object with "schema": "{SCHEMA}"; '
            'make one with "pyimgano bundle export"'
        )
    version = payload.get("schema_version")
    match = None
    if isinstance(version, str):
        match = re.fullmatch(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})", version)
    if match is None:
        raise BundleError(
            f"{where}: schema_version: found {json.dumps(version)[:60]}, expected a "
            f'text "MAJOR.MINOR", such as "{MAJOR}.{MINOR}"'
        )
    major, minor = int(match[1]), int(match[2])
    if major != MAJOR or minor > MINOR:
        raise BundleError(
            f"{where}: schema_version is {version}, runtime {__version__} reads "
            f"{MAJOR}.0 to {MAJOR}.{MINOR}; install {_runtime_for(payload)}"
        )
    if payload.get("kind") == "run":
        raise BundleError(
            f"{where}: describes a training run, not a bundle; "
            'export it by "pyimgano bundle export"'
        )
    requires = payload.get("requires")
    wanted = requires if isinstance(requires, list) else []
    unknown = {item for item in wanted if isinstance(item, str)} - REQUIREMENTS
    if unknown:
        raise BundleError(
            f"{where}: requires {sorted(unknown)}, which runtime {__version__} cannot "
            f"do; install {_runtime_for(payload)}"
        )


def _runtime_for(payload: dict[str, Any]) -> str:
    """Name the runtime that reads a document, by what the document says of itself."""
    bundle = payload.get("bundle")
    producer = bundle.get("producer") if isinstance(bundle, dict) else None
    made_with = producer.get("pyimgano") if isinstance(producer, dict) else None
    if isinstance(made_with, str) and re.fullmatch(r"[0-9][0-9a-z.+]{0,30}", made_with):
        return f"pyimgano-runtime {made_with} or newer (what made it)"
    return f"a pyimgano-runtime that reads schema {payload['schema_version']}"


def _read_object(fields: Fields, key: str) -> dict[str, Any]:
    value = fields.raw(key)
    if not isinstance(value, dict):
        if key in fields.payload:
            fields.problem(key, "expected an object {...}")
        return {}
    return value


def _read_steps(fields: Fields, key: str) -> tuple[dict[str, Any], ...]:
    steps = fields.array(key)
    for index, step in enumerate(steps):
        if not isinstance(step, dict) or not isinstance(step.get("step"), str):
            fields.problem(f"{key}[{index}]", 'expected an object with a "step"')
        elif step.get("where") not in ("graph", "runtime"):
            fields.problem(f"{key}[{index}].where", 'expected "graph" or "runtime"')
    return tuple(step for step in steps if isinstance(step, dict))


def _read_bundle_info(fields: Fields) -> BundleInfo:
    info = BundleInfo(
        name=fields.text("name"),
        version=fields.text("version"),
        created=fields.text("created"),
        producer=_read_object(fields, "producer"),
    )
    for package, version in info.producer.items():
        if not isinstance(version, str):
            fields.problem(f"producer.{package}", "expected a version as a text")
    fields.finish()
    return info


def _read_path(fields: Fields, key: str) -> str:
    path = fields.text(key)
    reason = path_problem(path)
    if path and reason is not None:
        fields.problem(
            key, f'"{path}" {reason}; export again with "pyimgano bundle export"'
        )
    return path


def _read_sha256(fields: Fields, key: str) -> str:
    digest = fields.text(key)
    if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
        fields.problem(
            key, f'found "{digest[:70]}", expected 64 lower-case hexadecimal digits'
        )
    return digest


def _read_file(fields: Fields) -> FileEntry:
    entry = FileEntry(
        path=_read_path(fields, "path"),
        sha256=_read_sha256(fields, "sha256"),
        size=fields.integer("size", low=0),
        role=fields.text("role", choices=FILE_ROLES),
    )
    fields.finish()
    return entry


def _read_tensor(fields: Fields) -> TensorSpec:
    shape = fields.array("shape")
    for index, side in enumerate(shape):
        whole = isinstance(side, int) and not isinstance(side, bool) and side > 0
        if not whole and not (isinstance(side, str) and side):
            fields.problem(f"shape[{index}]", "expected a positive number or a name")
    spec = TensorSpec(
        name=fields.text("name"),
        kind=fields.text("kind", choices=TENSOR_KINDS),
        dtype=fields.text("dtype", choices=("uint8", "float32")),
        shape=tuple(shape),
    )
    fields.finish()
    return spec


def _read_model(fields: Fields) -> ModelSpec:
    spec = ModelSpec(
        file=_read_path(fields, "file"),
        opset=fields.integer("opset", low=18, high=24),
        precision=fields.text("precision", choices=("fp32", "int8")),
        inputs=tuple(_read_tensor(f) for f in fields.items("inputs")),
        outputs=tuple(_read_tensor(f) for f in fields.items("outputs")),
    )
    fields.finish()
    return spec


def _read_input(fields: Fields) -> InputRules:
    rules = InputRules(
        color_order=fields.text("color_order", choices=("RGB",)),
        bit_depth=fields.integer("bit_depth", low=8, high=8),
        exif=fields.text("exif", choices=("apply",)),
        alpha=fields.text("alpha", choices=("drop",)),
        grey=fields.text("grey", choices=("replicate",)),
        min_side=fields.integer("min_side", low=1),
        max_pixels=fields.integer("max_pixels", low=1, high=2_000_000_000),
        expected_size=fields.maybe("expected_size", fields.size),
        reference_decoder=fields.text("reference_decoder"),
    )
    fields.finish()
    return rules


def _read_provenance(fields: Fields) -> ThresholdProvenance:
    summary = _read_object(fields, "score_summary")
    provenance = ThresholdProvenance(
        method=fields.text("method"),
        source=fields.text("source"),
        approximate=fields.flag("approximate"),
        parameters=_read_object(fields, "parameters"),
        requested_false_alarm_rate=_read_rate(fields, "requested_false_alarm_rate"),
        used_false_alarm_rate=_read_rate(fields, "used_false_alarm_rate"),
        n_images=fields.integer("n_images", low=0),
        n_groups=fields.integer("n_groups", low=0),
        fingerprint=_read_fingerprint(fields),
        score_summary=summary,
        warnings=fields.texts("warnings"),
        set_by=fields.text("set_by"),
        set_at=fields.text("set_at"),
    )
    fields.finish()
    return provenance


def _read_fingerprint(fields: Fields) -> str:
    """Empty where no images were used: a threshold set by hand."""
    if fields.raw("fingerprint") == "":
        return ""
    return _read_sha256(fields, "fingerprint")


def _read_score(fields: Fields, key: str) -> float:
    """A number that float32 can hold, since scores are compared as float32."""
    return fields.number(key, low=-FLOAT32_MAX, high=FLOAT32_MAX)


def _read_rate(fields: Fields, key: str) -> float | None:
    rate: float | None = fields.maybe(
        key, lambda name: fields.number(name, low=0.0, high=1.0)
    )
    return rate


def read_thresholds(fields: Fields) -> Thresholds:
    """Read a `thresholds` block, here or in a run's calibration.json."""
    provenance = {}
    for name, member in fields.each("provenance"):
        if name not in ("image", "pixel"):
            fields.problem(f"provenance.{name}", 'expected "image" or "pixel"')
        provenance[name] = _read_provenance(member)
    thresholds = Thresholds(
        image=_read_score(fields, "image"),
        pixel=fields.maybe("pixel", lambda key: _read_score(fields, key)),
        compare=fields.text("compare", choices=(">=",)),
        provenance=provenance,
    )
    fields.finish()
    return thresholds


def read_calibration(fields: Fields) -> Calibration:
    """Read a `calibration` block, here or in a run's calibration.json."""
    calibration = Calibration(
        image_scores=fields.numbers("image_scores"),
        n_images=fields.integer("n_images", low=0),
    )
    scores = calibration.image_scores
    if list(scores) != sorted(scores):
        fields.problem("image_scores", "expected ascending numbers")
    elif scores and max(-scores[0], scores[-1]) > FLOAT32_MAX:
        fields.problem("image_scores", "expected numbers that float32 can hold")
    if len(scores) > calibration.n_images:
        fields.problem(
            "n_images",
            f"found {calibration.n_images}, expected at least the {len(scores)} "
            "of image_scores",
        )
    fields.finish()
    return calibration


def _read_geometry(fields: Fields) -> MapGeometry:
    geometry = MapGeometry(
        mode=fields.text("mode", choices=("stretch",)),
        map_size=fields.size("map_size"),
    )
    fields.finish()
    return geometry


def _read_category(fields: Fields) -> CategoryConfig:
    for key in ("roi", "tiling", "regions"):
        if fields.has(key):
            fields.problem(key, "expected null: schema 1.0 does not define it yet")
    category = CategoryConfig(
        graph=fields.texts("graph"),
        thresholds=read_thresholds(fields.fields("thresholds")),
        calibration=read_calibration(fields.fields("calibration")),
        map_geometry=fields.maybe(
            "map_geometry", lambda key: _read_geometry(fields.fields(key))
        ),
    )
    fields.finish()
    return category


def _read_golden(fields: Fields) -> Golden:
    golden = Golden(
        category=fields.text("category"),
        image=_read_path(fields, "image"),
        map=fields.maybe("map", lambda key: _read_path(fields, key)),
        score=_read_score(fields, "score"),
        pixels_sha256=_read_sha256(fields, "pixels_sha256"),
        kind=fields.text("kind", choices=("synthetic", "real")),
    )
    fields.finish()
    return golden


def _read_category_parity(fields: Fields) -> CategoryParity:
    parity = CategoryParity(
        n_images=fields.integer("n_images", low=0),
        images=fields.text("images"),
        max_abs_score_diff=fields.number("max_abs_score_diff", low=0),
        max_rel_score_diff=fields.number("max_rel_score_diff", low=0),
        max_abs_map_diff=fields.maybe("max_abs_map_diff", fields.number),
        max_map_diff_of_range=fields.maybe("max_map_diff_of_range", fields.number),
        label_flips=fields.integer("label_flips", low=0),
        min_threshold_distance=fields.number("min_threshold_distance", low=0),
    )
    fields.finish()
    return parity


def _read_parity(fields: Fields) -> Parity:
    tolerances = fields.fields("tolerances")
    parity = Parity(
        reference=fields.text("reference"),
        candidate=fields.text("candidate"),
        machine=fields.text("machine"),
        categories={n: _read_category_parity(f) for n, f in fields.each("categories")},
        tolerances={
            key: tolerances.number(key, low=0)
            for key in ("score_rel", "map_of_range", "score_rel_other_kernels")
        },
        goldens=tuple(_read_golden(f) for f in fields.items("goldens")),
    )
    tolerances.finish()
    fields.finish()
    return parity


def _read_training(fields: Fields) -> dict[str, Any]:
    """What is known of the training, free but for the names that are shown."""
    if fields.has("categories"):
        for _, category in fields.each("categories"):
            category.text("detector", "unknown")
    return fields.payload


def _contradictions(config: InferConfig, where: str) -> list[str]:
    """Parts of a well-typed document that do not fit together."""
    found = [
        *_file_contradictions(config),
        *_model_contradictions(config),
        *_category_contradictions(config),
        *_golden_contradictions(config),
    ]
    return [f"{where}: {line}" for line in found]


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
            dtype, axes = _TENSOR_FORMS[tensor.kind]
            if tensor.dtype != dtype or len(tensor.shape) != axes:
                problems.append(
                    f"models.{name}: {tensor.name}: found {tensor.dtype} with "
                    f"{len(tensor.shape)} axes, expected {dtype} with {axes} for kind "
                    f"{tensor.kind}"
                )
    return problems


def _category_contradictions(config: InferConfig) -> list[str]:
    problems = []
    for name, category in config.categories.items():
        place = f"categories.{name}"
        if not (name.isprintable() and 0 < len(name.strip()) <= len(name) <= _MAX_NAME):
            problems.append(
                f"categories: found the name {json.dumps(name)[:60]}, expected 1 to "
                f"{_MAX_NAME} printable characters"
            )
        if "image" not in category.thresholds.provenance:
            problems.append(
                f"{place}.thresholds.provenance.image: missing; every threshold says "
                "where it comes from"
            )
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
    if not config.categories:
        problems.append("categories: empty, expected at least one")
    return problems


def _golden_contradictions(config: InferConfig) -> list[str]:
    problems = []
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
