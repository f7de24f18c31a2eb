"""The document `infer_config.json`, of a bundle or of a training run, as typed objects.

Every field of the JSON is a field of these dataclasses under the same name, so that
`InferConfig.from_dict(payload, where).to_dict() == payload`. The two kinds share schema
and file name: "bundle" (`InferConfig`, ONNX) is what devices take, "run" (`RunConfig`,
a checkpoint) stays in the training room.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, field
from typing import Any, Final, Protocol

from ._reader import FLOAT32_MAX as FLOAT32_MAX
from ._reader import closest
from .errors import ConfigError
from .geometry import letterbox_canvas
from .quick_dataclass import dataclass
from .reference import Reference
from .region_rules import RegionRules, Roi
from .tiling import Tiling

FILE_NAME: Final = "infer_config.json"
SCHEMA: Final = "pyimgano/infer_config"
MAJOR: Final = 1
MINOR: Final = 3
TILING: Final = "tiling"  # in `requires` where some category has one
REGIONS: Final = "regions"  # likewise, where regions decide some category's label
REQUIREMENTS: Final = frozenset({TILING, REGIONS})

TENSOR_KINDS: Final = ("image", "features", "score", "anomaly_map")
FILE_ROLES: Final = ("model", "golden_image", "golden_map", "model_card")
THRESHOLD_KINDS: Final = ("image", "pixel")
THRESHOLD_METHODS: Final = (
    "conformal", "quantile", "contamination", "fixed", "best_f1",
)  # fmt: skip
DEVICES: Final = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """Which release this is and what made it."""

    name: str
    version: str
    created: str  # ISO 8601, UTC: end of the training run
    producer: dict[str, str]  # package -> version


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Which training run this is and what made it."""

    name: str
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
class RateBounds:
    """Two-sided Clopper-Pearson bounds of a rate that was counted.

    Of the normals that set the threshold, or of test normals: how many reach it.
    """

    confidence: float  # 0.95
    n_images: int
    images_above: int  # at or above the threshold
    by_images: tuple[float, float]  # (low, high)
    n_groups: int
    groups_above: int  # groups of which some picture is
    by_groups: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ThresholdProvenance:
    """Where a threshold comes from, so that a person can judge it."""

    method: str  # one of THRESHOLD_METHODS
    source: str  # "val", "kfold_pooled", "holdout", "labelled_manifest", "device", ...
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
    bounds: RateBounds | None = None  # null where nothing was counted ("fixed")


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


class MapSource(Protocol):
    """What a map comes from: a fitted detector."""

    @property
    def map_mode(self) -> str:
        """How the map lies on what it takes: "stretch" or "letterbox"."""

    def map_size(self) -> tuple[int, int] | None:
        """(height, width) of the map, None where there is none."""


@dataclass(frozen=True, slots=True)
class MapGeometry:
    """How a map lies on the image it was computed from."""

    # "stretch": the whole image, both axes scaled on their own; "letterbox": the canvas
    # of `geometry.letterbox_canvas`, aspect ratio kept; "tiles": the whole image, its
    # tiles' maps joined
    mode: str
    map_size: tuple[int, int]  # (height, width) of the graph's map: with tiles, of one

    @classmethod
    def of(cls, source: MapSource, tiling: Tiling | None) -> MapGeometry | None:
        """Give the geometry of a detector's map; None where it has none.

        Raises:
            ConfigError: tiles that would be letterboxed.
        """
        map_size = source.map_size()
        if map_size is None:
            return None
        mode = source.map_mode
        if tiling is None:
            return cls(mode, map_size)
        canvas = letterbox_canvas(tiling.size, map_size)
        if mode == "letterbox" and canvas != tiling.size:
            raise ConfigError(
                f"tiling.size: found {tiling.size}, expected the aspect ratio of the "
                f"model's maps {map_size}, since this model letterboxes what it takes"
            )
        return cls("tiles", map_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategorySettings:
    """What turns one category's scores and maps into a judgement."""

    thresholds: Thresholds
    calibration: Calibration
    map_geometry: MapGeometry | None
    roi: Roi | None = None  # None: the whole picture is judged
    tiling: Tiling | None = None  # None: the graph takes whole pictures
    regions: RegionRules | None = None  # None: no regions are looked for
    reference: Reference | None = None  # None: drift is told from the scores alone


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryConfig(CategorySettings):
    """One category of a bundle."""

    # Names of models, run in this order: the first takes the picture, the last gives
    # the score, and tensors of kind "features" go from one to the next by their names.
    graph: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A fitted detector's file."""

    path: str  # relative to infer_config.json, POSIX
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCategory(CategorySettings):
    """One category of a training run."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which detector, and with which hyper-parameters."""

    name: str
    preset: str | None
    options: dict[str, Any]  # every hyper-parameter


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
        return _to_dict(self, "bundle")

    @classmethod
    def from_dict(cls, payload: Any, where: str) -> InferConfig:
        """Read and check a document; all problems are raised at once.

        Raises:
            BundleError: another format, a newer version, unknown keys, wrong types,
                or parts that contradict each other.
        """
        from .infer_config_reader import read_infer_config

        return read_infer_config(payload, where)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A whole run document: read by `pyimgano infer`, refused on devices."""

    kind: str
    run: RunInfo
    model: ModelChoice
    device: str
    input: InputRules
    preprocess: tuple[dict[str, Any], ...]
    postprocess: tuple[dict[str, Any], ...]
    categories: dict[str, RunCategory]
    training: dict[str, Any]
    requires: tuple[str, ...] = ()
    extensions: dict[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA
    schema_version: str = f"{MAJOR}.{MINOR}"

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object, keys in reading order."""
        return _to_dict(self, "run")

    @classmethod
    def from_dict(cls, payload: Any, where: str) -> RunConfig:
        """Read and check a document; all problems are raised at once.

        Raises:
            BundleError: as `InferConfig.from_dict`.
        """
        from .infer_config_reader import read_run_config

        return read_run_config(payload, where)


def version_facts(categories: Iterable[CategorySettings]) -> dict[str, Any]:
    """Give `schema_version` and `requires` of a document with these categories.

    The lowest version that has every field: older readers go on taking what they can.
    """
    settings = list(categories)
    tiled = any(one.tiling is not None for one in settings)
    modes = {one.map_geometry.mode for one in settings if one.map_geometry}
    minor = 1 if tiled or modes - {"stretch"} else 0
    if any(isinstance(one, CategoryConfig) and len(one.graph) > 1 for one in settings):
        minor = 2
    newest = ("roi", "regions", "reference")
    if any(getattr(one, key) is not None for one in settings for key in newest):
        minor = 3
    if any(_joins_as_of_1_3(one.tiling) for one in settings):
        minor = 3
    labelled = any(one.regions and one.regions.sets_label for one in settings)
    return {
        "schema_version": f"{MAJOR}.{minor}",
        "requires": (*([TILING] if tiled else []), *([REGIONS] if labelled else [])),
    }


def _joins_as_of_1_3(tiling: Tiling | None) -> bool:
    if tiling is None:
        return False
    return tiling.blend not in ("max", "mean") or tiling.top_k is not None


def _to_dict(config: InferConfig | RunConfig, about: str) -> dict[str, Any]:
    # By way of JSON: tuples become lists, as a file has them.
    payload: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    for name, category in config.categories.items():
        if category.tiling is not None:  # older readers know no "top_k", not even null
            payload["categories"][name]["tiling"] = category.tiling.to_dict()
    first = ("schema", "schema_version", "kind", "requires", about)
    return {key: payload.pop(key) for key in first} | payload


def select_category(config_names: Sequence[str], name: str | None) -> str:
    """Give the category to use: the named one, or the only one.

    Raises:
        ConfigError: several and none named, or an unknown name; both list them.
    """
    listed = ", ".join(sorted(config_names))
    if name is None:
        if len(config_names) == 1:
            return config_names[0]
        raise ConfigError(
            f"{FILE_NAME} holds {len(config_names)} categories and none was named; "
            f"name one (--category): {listed}"
        )
    if name not in config_names:
        raise ConfigError(
            f'{FILE_NAME}: no category "{name}" ({closest(name, config_names)}); '
            f"it holds: {listed}"
        )
    return name
