"""The document `infer_config.json`: what a bundle is, typed and strictly read.

Every field of the JSON is a field of these dataclasses under the same name, so that
`InferConfig.from_dict(payload, where).to_dict() == payload`. `docs/bundle_format.md`
says the same in prose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ._reader import Fields, closest
from .errors import BundleError, raise_all
from .paths import path_problem

FILE_NAME: Final = "infer_config.json"
SCHEMA: Final = "pyimgano/infer_config"
MAJOR: Final = 1
MINOR: Final = 0
REQUIREMENTS: Final[frozenset[str]] = frozenset()

TENSOR_KINDS: Final = ("image", "score", "anomaly_map")
FILE_ROLES: Final = ("model", "golden_image", "golden_map", "model_card")


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """Which release this is and what made it."""

    name: str
    version: str
    created: str  # ISO 8601, UTC: end of the training run
    producer: dict[str, str]  # package -> version


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the bundle; nothing else is ever opened."""

    path: str
    sha256: str
    size: int  # bytes
    role: str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A graph input or output; readers find it by `kind`, not by name or order."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int | str, ...]  # a text names a free dimension


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One ONNX file and its typed inputs and outputs."""

    file: str
    opset: int
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def output(self, kind: str) -> TensorSpec | None:
        """The output of a kind, or None if the model has none."""
        return next((o for o in self.outputs if o.kind == kind), None)


@dataclass(frozen=True, slots=True)
class InputRules:
    """How encoded pictures become the graph's uint8 RGB pixels."""

    color_order: str = "RGB"
    bit_depth: int = 8
    exif: str = "apply"  # rotate as the camera noted
    alpha: str = "drop"  # the alpha channel is ignored
    grey: str = "replicate"  # grey becomes three equal channels
    min_side: int = 1  # pixels
    max_pixels: int = 100_000_000  # height x width, from the header, before decoding
    expected_size: tuple[int, int] | None = None  # (height, width) or any
    reference_decoder: str = ""  # what read the training images


@dataclass(frozen=True, slots=True)
class ThresholdProvenance:
    """Where a threshold comes from, so that a person can judge it."""

    method: str
    source: str  # "val", "kfold_pooled", "holdout", "user"
    approximate: bool  # true where the guarantee is not exact (pooled folds)
    parameters: dict[str, Any]
    requested_false_alarm_rate: float | None
    used_false_alarm_rate: float | None
    n_images: int
    n_groups: int
    fingerprint: str  # sha256 over the sorted ids and bytes of these images
    score_summary: dict[str, float]
    warnings: tuple[str, ...]
    set_by: str
    set_at: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Label is anomaly when float32(score) >= float32(image)."""

    image: float
    pixel: float | None
    compare: str
    provenance: dict[str, ThresholdProvenance]  # "image", "pixel"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Held-out normal scores, ascending float32: they give the p-value."""

    image_scores: tuple[float, ...]
    n_images: int


@dataclass(frozen=True, slots=True)
class MapGeometry:
    """How a map lies on the image it was computed from."""

    mode: str  # "stretch": the whole image, both axes scaled on their own
    map_size: tuple[int, int]  # (height, width)


@dataclass(frozen=True, slots=True)
class CategoryConfig:
    """Everything that turns one category's picture into a judgement."""

    graph: tuple[str, ...]
    thresholds: Thresholds
    calibration: Calibration
    map_geometry: MapGeometry | None
    roi: None = None
    tiling: None = None
    regions: None = None


@dataclass(frozen=True, slots=True)
class Golden:
    """A picture with the answer that torch gave: replayed by `check`."""

    category: str
    image: str
    map: str | None
    score: float
    pixels_sha256: str  # over the decoded uint8 RGB bytes
    kind: str  # "synthetic" or "real"


@dataclass(frozen=True, slots=True)
class CategoryParity:
    """What was measured when the exported graph was compared with torch."""

    n_images: int
    images: str  # which rows: "test+val" or "train"
    max_abs_score_diff: float
    max_rel_score_diff: float
    max_abs_map_diff: float | None
    max_map_diff_of_range: float | None
    label_flips: int
    min_threshold_distance: float


@dataclass(frozen=True, slots=True)
class Parity:
    """Proof that the graph scores like the trained model."""

    reference: str  # engine and version
    candidate: str
    machine: str
    categories: dict[str, CategoryParity]
    tolerances: dict[str, float]
    goldens: tuple[Golden, ...]


@dataclass(frozen=True, slots=True)
class InferConfig:
    """A whole bundle document."""

    kind: str
    bundle: BundleInfo
    files: tuple[FileEntry, ...]
    models: dict[str, ModelSpec]
    input: InputRules
    preprocess: tuple[dict[str, Any], ...]
    postprocess: tuple[dict[str, Any], ...]
    categories: dict[str, CategoryConfig]
    parity: Parity
    training: dict[str, Any]
    requires: tuple[str, ...] = ()
    extensions: dict[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA
    schema_version: str = f"{MAJOR}.{MINOR}"

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object, keys in reading order."""
        payload = asdict(self)
        first = ("schema", "schema_version", "kind", "requires", "bundle")
        return {key: payload.pop(key) for key in first} | payload

    @classmethod
    def from_dict(cls, payload: Any, where: str) -> InferConfig:
        """Read and check a document; all problems are raised at once.

        Raises:
            BundleError: another format, a newer version, unknown keys, wrong types,
                or parts that contradict each other.
        """
        problems: list[str] = []
        _check_version(payload, where)
        top = Fields(payload, where, problems)
        for key in ("schema", "schema_version"):
            top.raw(key)
        config = cls(
            kind=top.text("kind", choices=("bundle", "run")),
            requires=top.texts("requires"),
            bundle=_read_bundle_info(top.fields("bundle")),
            files=tuple(_read_file(item) for item in top.items("files")),
            models={name: _read_model(f) for name, f in top.each("models")},
            input=_read_input(top.fields("input")),
            preprocess=_read_steps(top, "preprocess"),
            postprocess=_read_steps(top, "postprocess"),
            categories={n: _read_category(f) for n, f in top.each("categories")},
            parity=_read_parity(top.fields("parity")),
            training=_read_object(top, "training"),
            extensions=_read_object(top, "extensions"),
            schema_version=str(top.payload.get("schema_version")),
        )
        top.finish()
        if not problems:
            problems += _contradictions(config, where)
        raise_all(problems, BundleError)
        return config


def select_category(config_names: Sequence[str], name: str | None) -> str:
    """Give the category to use: the named one, or the only one.

    Raises:
        BundleError: several and none named, or an unknown name; both list them.
    """
    listed = ", ".join(sorted(config_names))
    if name is None:
        if len(config_names) == 1:
            return config_names[0]
        raise BundleError(
            f"{FILE_NAME} holds {len(config_names)} categories and none was named; "
            f"name one of: {listed}"
        )
    if name not in config_names:
        raise BundleError(
            f'{FILE_NAME}: no category "{name}" ({closest(name, config_names)}); '
            f"it holds: {listed}"
        )
    return name


def _check_version(payload: Any, where: str) -> None:
    if not isinstance(payload, dict) or payload.get("schema") != SCHEMA:
        raise BundleError(
            f'{where}: expected a JSON object with "schema": "{SCHEMA}"; '
            'make one with "pyimgano bundle export"'
        )
    version = payload.get("schema_version")
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", str(version))
    if match is None:
        raise BundleError(
            f'{where}: schema_version: found "{version}", expected "MAJOR.MINOR"'
        )
    major, minor = int(match[1]), int(match[2])
    if major != MAJOR or minor > MINOR:
        raise BundleError(
            f"{where}: schema_version is {major}.{minor}, this runtime reads "
            f"{MAJOR}.0 to {MAJOR}.{MINOR}; install a pyimgano-runtime that reads "
            f"schema {major}.{minor}"
        )
    if payload.get("kind") == "run":
        raise BundleError(
            f"{where}: describes a training run, not a bundle; "
            'export it by "pyimgano bundle export"'
        )
    unknown = [r for r in payload.get("requires") or [] if r not in REQUIREMENTS]
    if unknown:
        raise BundleError(
            f"{where}: requires {unknown}, which this runtime cannot do; "
            "install a newer pyimgano-runtime"
        )


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
        fields.problem(key, "expected 64 lower-case hexadecimal digits")
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
        fingerprint=str(fields.raw("fingerprint")),
        score_summary=summary,
        warnings=fields.texts("warnings"),
        set_by=fields.text("set_by"),
        set_at=fields.text("set_at"),
    )
    fields.finish()
    return provenance


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
        image=fields.number("image"),
        pixel=fields.maybe("pixel", fields.number),
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
    if list(calibration.image_scores) != sorted(calibration.image_scores):
        fields.problem("image_scores", "expected ascending numbers")
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
        score=fields.number("score"),
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


def _contradictions(config: InferConfig, where: str) -> list[str]:
    """Parts of a well-typed document that do not fit together."""
    problems = []
    listed: dict[str, str] = {}
    for entry in config.files:
        twin = listed.get(entry.path.lower())
        if twin is not None:
            problems.append(
                f'{where}: files: "{entry.path}" and "{twin}" are the same file on '
                "systems that ignore case; each path stands once"
            )
        listed[entry.path.lower()] = entry.path
    paths = {entry.path: entry.role for entry in config.files}

    def need(path: str, role: str, place: str) -> None:
        if paths.get(path) != role:
            problems.append(
                f'{where}: {place}: "{path}" does not stand in files with role "{role}"'
            )

    for name, model in config.models.items():
        need(model.file, "model", f"models.{name}.file")
        if [i.kind for i in model.inputs] != ["image"]:
            problems.append(
                f"{where}: models.{name}.inputs: expected one of kind image"
            )
        kinds = [o.kind for o in model.outputs]
        if kinds not in (["score"], ["score", "anomaly_map"]):
            problems.append(
                f"{where}: models.{name}.outputs: found kinds {kinds}, expected "
                "score and at most one anomaly_map"
            )
    for name, category in config.categories.items():
        if len(category.graph) != 1 or category.graph[0] not in config.models:
            problems.append(
                f"{where}: categories.{name}.graph: found {list(category.graph)}, "
                f"expected one of the models {sorted(config.models)}"
            )
        elif (category.map_geometry is None) != (
            config.models[category.graph[0]].output("anomaly_map") is None
        ):
            problems.append(
                f"{where}: categories.{name}.map_geometry: expected exactly where the "
                "model has an anomaly_map"
            )
        if "image" not in category.thresholds.provenance:
            problems.append(
                f"{where}: categories.{name}.thresholds.provenance.image: missing; "
                "every threshold says where it comes from"
            )
    if not config.categories:
        problems.append(f"{where}: categories: empty, expected at least one")
    for golden in config.parity.goldens:
        need(golden.image, "golden_image", "parity.goldens.image")
        if golden.map is not None:
            need(golden.map, "golden_map", "parity.goldens.map")
        if golden.category not in config.categories:
            problems.append(f'{where}: parity.goldens: no category "{golden.category}"')
    return problems
