"""Reads `infer_config.json` strictly: every problem of a document, raised at once."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ._reader import Fields, check_version, is_side
from ._version import __version__
from .errors import BundleError, raise_all
from .geometry import MAP_MODES
from .infer_config import (
    DEVICES,
    FILE_ROLES,
    MAJOR,
    MINOR,
    REQUIREMENTS,
    SCHEMA,
    TENSOR_KINDS,
    BundleInfo,
    CategoryConfig,
    CategoryParity,
    Checkpoint,
    FileEntry,
    Golden,
    InferConfig,
    InputRules,
    MapGeometry,
    ModelChoice,
    ModelSpec,
    Parity,
    RunCategory,
    RunConfig,
    RunInfo,
    TensorSpec,
)
from .infer_config_checks import (
    NOT_SHOWN,
    bundle_contradictions,
    run_contradictions,
)
from .paths import path_problem
from .reference_reader import read_reference
from .region_rules import read_region_rules, read_roi
from .thresholds_reader import (
    read_calibration,
    read_object,
    read_score,
    read_sha256,
    read_thresholds,
)
from .tiling import BLENDS, MAX_OVERLAP, MIN_TILE, SCORES, Tiling, top_k_problem


def read_infer_config(payload: Any, where: str) -> InferConfig:
    """Read and check a bundle's document; see `InferConfig.from_dict`."""
    _check_version(payload, where)
    if payload.get("kind") == "run":
        raise BundleError(
            f"{where}: describes a training run, not a bundle; "
            'export it by "pyimgano bundle export"'
        )
    problems: list[str] = []
    config = parse_bundle_fields(payload, where, problems)
    if not problems:
        problems += bundle_contradictions(config, where)
    raise_all(problems, BundleError)
    return config


def read_run_config(payload: Any, where: str) -> RunConfig:
    """Read and check a run's document; see `RunConfig.from_dict`."""
    _check_version(payload, where)
    problems: list[str] = []
    config = parse_run_fields(payload, where, problems)
    if not problems:
        problems += run_contradictions(config, where)
    raise_all(problems, BundleError)
    return config


def parse_bundle_fields(payload: Any, where: str, problems: list[str]) -> InferConfig:
    """Read the fields of a bundle's document, each by itself.

    What is wrong is appended to `problems`; the result may be used only if nothing is.
    The published JSON Schema says the same as this function.
    """
    top = _open_top(payload, where, problems)
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
        extensions=read_object(top, "extensions"),
        schema_version=top.payload["schema_version"],
    )
    top.finish()
    return config


def parse_run_fields(payload: Any, where: str, problems: list[str]) -> RunConfig:
    """Read the fields of a run's document; see `parse_bundle_fields`."""
    top = _open_top(payload, where, problems)
    config = RunConfig(
        kind=top.text("kind", choices=("run",)),
        requires=top.texts("requires"),
        run=_read_run_info(top.fields("run")),
        model=_read_model_choice(top.fields("model")),
        device=top.text("device", choices=DEVICES),
        input=_read_input(top.fields("input")),
        preprocess=_read_steps(top, "preprocess"),
        postprocess=_read_steps(top, "postprocess"),
        categories={n: _read_run_category(f) for n, f in top.each("categories")},
        training=_read_training(top.fields("training")),
        extensions=read_object(top, "extensions"),
        schema_version=top.payload["schema_version"],
    )
    top.finish()
    return config


def _open_top(payload: Any, where: str, problems: list[str]) -> Fields:
    top = Fields(payload, where, problems)
    for key in ("schema", "schema_version"):
        top.raw(key)
    return top


def _check_version(payload: Any, where: str) -> None:
    check_version(
        payload,
        where,
        schema=SCHEMA,
        newest=(MAJOR, MINOR),
        made_by="pyimgano bundle export",
        advice=lambda: _runtime_for(payload),
        error=BundleError,
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
    about = payload.get("bundle") or payload.get("run")
    producer = about.get("producer") if isinstance(about, dict) else None
    made_with = producer.get("pyimgano") if isinstance(producer, dict) else None
    if isinstance(made_with, str) and re.fullmatch(r"[0-9][0-9a-z.+]{0,30}", made_with):
        return f"pyimgano-runtime {made_with} or newer (what made it)"
    return f"a pyimgano-runtime that reads schema {payload['schema_version']}"


def _read_steps(fields: Fields, key: str) -> tuple[dict[str, Any], ...]:
    steps = fields.array(key)
    for index, step in enumerate(steps):
        if not isinstance(step, dict) or not isinstance(step.get("step"), str):
            fields.problem(f"{key}[{index}]", 'expected an object with a "step"')
        elif step.get("where") != "graph":
            fields.problem(
                f"{key}[{index}].where",
                'expected "graph": no schema defines a step outside of the graph',
            )
    return tuple(step for step in steps if isinstance(step, dict))


def _read_bundle_info(fields: Fields) -> BundleInfo:
    info = BundleInfo(
        name=fields.text("name"),
        version=fields.text("version"),
        created=fields.text("created"),
        producer=_read_producer(fields),
    )
    fields.finish()
    return info


def _read_run_info(fields: Fields) -> RunInfo:
    info = RunInfo(
        name=fields.text("name"),
        created=fields.text("created"),
        producer=_read_producer(fields),
    )
    fields.finish()
    return info


def _read_producer(fields: Fields) -> dict[str, str]:
    producer = read_object(fields, "producer")
    for package, version in producer.items():
        if not isinstance(version, str):
            fields.problem(f"producer.{package}", "expected a version as a text")
    return producer


def _read_model_choice(fields: Fields) -> ModelChoice:
    choice = ModelChoice(
        name=fields.text("name"),
        preset=fields.maybe("preset", fields.text),
        options=read_object(fields, "options"),
    )
    fields.finish()
    return choice


def _read_checkpoint(fields: Fields) -> Checkpoint:
    path = fields.text("path")
    reason = run_path_problem(path)
    if path and reason is not None:
        fields.problem(
            "path",
            f'"{path}" {reason}; write it again by "pyimgano train '
            '--export-infer-config"',
        )
    checkpoint = Checkpoint(path=path, sha256=read_sha256(fields, "sha256"))
    fields.finish()
    return checkpoint


def run_path_problem(path: str) -> str | None:
    """Why a path of a run's document is refused, in words; None if it is not.

    Unlike a bundle's paths it may begin with ".." and have any names: it refers to
    folders that people named. Whether it stays near the document is for the one who
    opens it (`pyimgano.inference.config`).
    """
    if "\\" in path or ":" in path:
        return "has a backslash or colon; paths are relative and use /"
    if path.startswith(("/", "~")):
        return "is absolute; paths are relative to infer_config.json"
    if NOT_SHOWN.search(path):
        return "has a character that cannot be shown"
    inner = path.split("/")
    while inner and inner[0] == "..":
        inner.pop(0)
    if not inner or any(name in ("", ".", "..") for name in inner):
        return 'has an empty name, "." or ".." after its beginning'
    return None


def _read_path(fields: Fields, key: str) -> str:
    path = fields.text(key)
    reason = path_problem(path)
    if path and reason is not None:
        fields.problem(
            key, f'"{path}" {reason}; export again with "pyimgano bundle export"'
        )
    return path


def _read_file(fields: Fields) -> FileEntry:
    entry = FileEntry(
        path=_read_path(fields, "path"),
        sha256=read_sha256(fields, "sha256"),
        size=fields.integer("size", low=0),
        role=fields.text("role", choices=FILE_ROLES),
    )
    fields.finish()
    return entry


def _read_tensor(fields: Fields) -> TensorSpec:
    shape = fields.array("shape")
    for index, side in enumerate(shape):
        if not is_side(side) and not (isinstance(side, str) and side):
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


def _read_geometry(fields: Fields) -> MapGeometry:
    geometry = MapGeometry(
        mode=fields.text("mode", choices=MAP_MODES),
        map_size=fields.size("map_size"),
    )
    fields.finish()
    return geometry


def _read_tiling(fields: Fields) -> Tiling | None:
    before = len(fields.problems)
    size = fields.size("size")
    if min(size) < MIN_TILE and len(fields.problems) == before:
        fields.problem(
            "size", f"found {list(size)}, expected sides of at least {MIN_TILE}"
        )
    overlap = fields.number("overlap", low=0, high=MAX_OVERLAP)
    blend = fields.text("blend", choices=BLENDS)
    score = fields.text("score", choices=SCORES)
    top_k = fields.maybe("top_k", partial(fields.integer, low=1))
    problem = top_k_problem(score, top_k) if score in SCORES else None
    if problem is not None:
        fields.problem("top_k", problem)
    fields.finish()
    if len(fields.problems) > before:
        return None
    return Tiling(size=size, overlap=overlap, blend=blend, score=score, top_k=top_k)


def _read_category(fields: Fields) -> CategoryConfig:
    category = CategoryConfig(graph=fields.texts("graph"), **_read_settings(fields))
    fields.finish()
    return category


def _read_run_category(fields: Fields) -> RunCategory:
    category = RunCategory(
        checkpoint=_read_checkpoint(fields.fields("checkpoint")),
        **_read_settings(fields),
    )
    fields.finish()
    return category


def _read_settings(fields: Fields) -> dict[str, Any]:
    """Give the members of `CategorySettings`."""
    return {
        "thresholds": read_thresholds(fields.fields("thresholds")),
        "calibration": read_calibration(fields.fields("calibration")),
        "map_geometry": fields.maybe(
            "map_geometry", lambda key: _read_geometry(fields.fields(key))
        ),
        "roi": fields.maybe("roi", lambda key: read_roi(fields.fields(key))),
        "tiling": fields.maybe("tiling", lambda key: _read_tiling(fields.fields(key))),
        "regions": fields.maybe(
            "regions", lambda key: read_region_rules(fields.fields(key))
        ),
        "reference": fields.maybe(
            "reference", lambda key: read_reference(fields.fields(key))
        ),
    }


def _read_golden(fields: Fields) -> Golden:
    golden = Golden(
        category=fields.text("category"),
        image=_read_path(fields, "image"),
        map=fields.maybe("map", lambda key: _read_path(fields, key)),
        score=read_score(fields, "score"),
        pixels_sha256=read_sha256(fields, "pixels_sha256"),
        kind=fields.text("kind", choices=("synthetic", "real")),
    )
    fields.finish()
    return golden


def _read_category_parity(fields: Fields) -> CategoryParity:
    difference = partial(fields.number, low=0)
    parity = CategoryParity(
        n_images=fields.integer("n_images", low=0),
        images=fields.text("images"),
        max_abs_score_diff=fields.number("max_abs_score_diff", low=0),
        max_rel_score_diff=fields.number("max_rel_score_diff", low=0),
        max_abs_map_diff=fields.maybe("max_abs_map_diff", difference),
        max_map_diff_of_range=fields.maybe("max_map_diff_of_range", difference),
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
    """What is known of the training, free but for what is shown."""
    if fields.has("categories"):
        for _, category in fields.each("categories"):
            category.text("detector", "unknown")
            category.texts("warnings", ())
    return fields.payload
