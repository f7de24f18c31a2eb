"""The training config: strict, every option with its default and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import read_json
from pyimgano_runtime.calibration import Rule
from pyimgano_runtime.errors import ConfigError, raise_all
from pyimgano_runtime.geometry import letterbox_canvas
from pyimgano_runtime.infer_config import FLOAT32_MAX, THRESHOLD_METHODS
from pyimgano_runtime.tiling import (
    BLENDS,
    MAX_OVERLAP,
    MIN_TILE,
    SCORES,
    Tiling,
    top_k_problem,
)

from ..datasets.augmentation import AugmentationConfig
from ..datasets.catalog import DATASETS, DataSource
from ..detectors import detector_class, detector_config, read_detector_config
from ..metrics.bootstrap import MIN_RESAMPLES
from ..option_fields import option, options_schema, read_options
from .defects_config import DefectsConfig

RECIPES: Final = ("industrial-adapt",)
LEAST_MEMORY_BUDGET_MB: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Which pictures, and how they are split."""

    name: str = option("manifest", f"kind of data set: {', '.join(DATASETS)}")
    manifest_path: str | None = option(
        None,
        "JSONL manifest, relative to the config file or absolute; for name "
        '"manifest" only, which needs it',
    )
    root: str | None = option(
        None,
        "manifest: folder to look for pictures in, after the manifest's own; other "
        "kinds: the folder of the data set",
    )
    categories: tuple[str, ...] = option((), "which to train; empty: all")
    test_normal_fraction: float = option(
        0.2, "share of normals without a split that goes to test", low=0.0, high=0.9
    )
    split_seed: int | None = option(
        None, "seed of the split; null: the run's seed", low=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which detector, with which hyper-parameters."""

    name: str = option("patchcore", "detector")
    preset: str | None = option(
        None, 'named set of hyper-parameters, such as "fast" or "fine"; options win'
    )
    options: dict[str, Any] = option(
        dict, "hyper-parameters of the detector; the others keep their defaults"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """How thresholds are set, always from held-out normals."""

    method: str = option(
        "conformal",
        '"conformal": bounds the false-alarm rate; "quantile": takes `quantile`; '
        '"contamination": takes `contamination`; "best_f1": parts the pictures of '
        '`labelled_manifest`; "fixed": takes `threshold`',
        choices=THRESHOLD_METHODS,
    )
    target_false_alarm_rate: float = option(
        0.01, "share of normals that may be called anomalous", low=1e-6, high=0.5
    )
    quantile: float | None = option(
        None,
        'share of held-out normals below the threshold, for method "quantile"',
        low=0.5,
        high=1 - 1e-6,
    )
    contamination: float | None = option(
        None,
        'share of held-out normals at or above the threshold, for "contamination"',
        low=1e-6,
        high=0.5,
    )
    labelled_manifest: str | None = option(
        None,
        "manifest of labelled normals and defects, none of them in train, val or test, "
        'for method "best_f1"; relative to the config file or absolute',
    )
    pixel_method: str = option(
        "image_max",
        '"image_max": the method on the largest map value of each normal ("best_f1": '
        '"conformal" on it); "pixel_quantile": takes `pixel_quantile`',
        choices=("image_max", "pixel_quantile"),
    )
    pixel_quantile: float = option(
        0.999,
        "share of all pixels of held-out normals below the pixel threshold",
        low=0.9,
        high=1 - 1e-9,
    )
    folds: int = option(
        5,
        "folds of the train normals where the manifest has no val rows",
        low=2,
        high=50,
    )
    threshold: float | None = option(
        None, 'image threshold for method "fixed"', low=-FLOAT32_MAX, high=FLOAT32_MAX
    )
    pixel_threshold: float | None = option(
        None, 'pixel threshold for method "fixed"', low=-FLOAT32_MAX, high=FLOAT32_MAX
    )

    @property
    def rule(self) -> Rule:
        """What makes thresholds of held-out normals, where a method takes them."""
        if self.method == "quantile" and self.quantile is not None:
            return Rule("quantile", self.quantile)
        if self.method == "contamination" and self.contamination is not None:
            return Rule("contamination", self.contamination)
        return Rule("conformal", self.target_false_alarm_rate)

    @property
    def pooled_quantile(self) -> float | None:
        """The quantile of pixels that is wanted; None where image maxima are taken."""
        return self.pixel_quantile if self.pixel_method == "pixel_quantile" else None

    @property
    def without_effect(self) -> list[tuple[str, str]]:
        """Options that are not at their default and do nothing, each with the cause."""
        pooled = self.pixel_method == "pixel_quantile"
        used, cause = _USES[self.method], f'method "{self.method}"'
        if self.method == "best_f1" and pooled:
            cause += ' and pixel_method "pixel_quantile"'
        elif self.method == "best_f1":
            used = used | {"target_false_alarm_rate"}  # of the pixel threshold
        changed = [
            item.name
            for item in fields(self)
            if item.name != "method" and getattr(self, item.name) != item.default
        ]
        found = []
        for name in changed:
            if name == "pixel_quantile" and not pooled:
                found.append((name, f'pixel_method "{self.pixel_method}"'))
            elif name != "pixel_quantile" and name not in used:
                found.append((name, cause))
        return found


_FROM_NORMALS: Final = {"folds", "pixel_method"}
# The options that each method looks at.
_USES: Final = {
    "conformal": _FROM_NORMALS | {"target_false_alarm_rate"},
    "quantile": _FROM_NORMALS | {"quantile"},
    "contamination": _FROM_NORMALS | {"contamination"},
    "best_f1": _FROM_NORMALS | {"labelled_manifest"},
    "fixed": {"threshold", "pixel_threshold"},
}
_NEEDS: Final = {  # method -> option, what it is
    "quantile": ("quantile", "the number, such as 0.99"),
    "contamination": ("contamination", "the number, such as 0.01"),
    "best_f1": ("labelled_manifest", "the path of a manifest"),
    "fixed": ("threshold", "the number"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """What is measured on the test rows."""

    pixel_metrics: bool = option(True, "measure pixel AUROC and AUPRO where masks are")
    bootstrap_resamples: int = option(
        1000,
        "resamples of the 95 % intervals, at least 100; 0: no intervals",
        low=0,
        high=100_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingConfig:
    """How pictures are cut into tiles, at training and wherever the model runs."""

    size: tuple[int, int] = option(
        ..., "[height, width] of a tile in pixels of the picture", low=MIN_TILE
    )
    overlap: float = option(
        0.25,
        "share of a tile's side that neighbours share at least",
        low=0.0,
        high=MAX_OVERLAP,
    )
    blend: str = option("max", "how maps join where tiles overlap", choices=BLENDS)
    score: str = option(
        "max", "how the tiles' scores give the picture's score", choices=SCORES
    )
    top_k: int | None = option(
        None, 'how many of the highest tile scores count, for score "top_k"', low=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkbenchConfig:
    """A whole training run."""

    schema_version: str = option("1.0", "version of this format", choices=("1.0",))
    recipe: str = option(
        "industrial-adapt",
        "fit on train normals, calibrate on held-out normals, evaluate on test, report",
        choices=RECIPES,
    )
    seed: int = option(0, "seed of everything random", low=0, high=2**31 - 1)
    device: str = option(
        "auto", "auto takes a GPU if there is one", choices=("auto", "cpu", "cuda")
    )
    memory_budget_mb: int = option(
        4096,
        "MB for what grows with the number of pictures; features that would take more "
        "than half of it go to disk",
        low=LEAST_MEMORY_BUDGET_MB,
    )
    dataset: DatasetConfig = option(..., "which pictures")
    augmentation: AugmentationConfig = option(..., "how train pictures are varied")
    model: ModelConfig = option(..., "which detector")
    tiling: TilingConfig | None = option(
        None, "cut pictures into tiles; null: the model takes whole pictures"
    )
    calibration: CalibrationConfig = option(..., "how thresholds are set")
    defects: DefectsConfig | None = option(
        None, "report defect regions; null: none are looked for"
    )
    evaluation: EvaluationConfig = option(..., "what is measured")

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object with every option."""
        return asdict(self)

    @property
    def tiles(self) -> Tiling | None:
        """How pictures are cut, as the runtime does it; None: they are not."""
        return None if self.tiling is None else Tiling(**asdict(self.tiling))

    @property
    def split_seed(self) -> int:
        """The seed that the split really uses."""
        chosen = self.dataset.split_seed
        return self.seed if chosen is None else chosen


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config and the folder its relative paths stand on."""

    config: WorkbenchConfig
    path: Path

    @property
    def source(self) -> DataSource:
        """Where the pictures are, paths absolute."""
        dataset = self.config.dataset
        return DataSource(
            dataset.name, self._place(dataset.manifest_path), self._place(dataset.root)
        )

    @property
    def labelled_manifest(self) -> Path | None:
        """The manifest of labelled pictures that set the threshold, absolute."""
        return self._place(self.config.calibration.labelled_manifest)

    def _place(self, written: str | None) -> Path | None:
        return None if written is None else (self.path.parent / written).resolve()


def load_config(path: Path) -> LoadedConfig:
    """Give a config file, every option checked.

    Raises:
        ConfigError: missing file, unknown keys, wrong types or ranges; all at once.
    """
    if path.suffix == ".jsonl":
        raise ConfigError(
            f"{path}: is a manifest by its name, expected a training config (.json); "
            "name the config, or give the manifest as --manifest-path"
        )
    if path.is_dir():
        inside = path / "config.json"
        hint = f"did you mean {inside}?" if inside.is_file() else "name the file in it"
        raise ConfigError(f"{path}: is a folder, expected a training config; {hint}")
    return LoadedConfig(parse_config(read_json(path), str(path)), path.resolve())


def parse_config(payload: Any, where: str) -> WorkbenchConfig:
    """Give the config of a JSON object; see `load_config`."""
    problems: list[str] = []
    config = read_options(WorkbenchConfig, payload, where, problems)
    problems += _detector_problems(config.model, where)
    chosen = config.dataset.categories
    problems += [
        f'{where}: dataset.categories: "{name}" stands twice; keep one'
        for name in dict.fromkeys(chosen)
        if chosen.count(name) > 1
    ]
    if config.dataset.name != "manifest" and config.dataset.manifest_path is not None:
        problems.append(
            f"{where}: dataset.manifest_path: has no effect with dataset.name "
            f'"{config.dataset.name}"; remove one of them'
        )
    raise_all(problems)  # what follows compares values that are right by themselves
    problems += _augmentation_problems(config.augmentation, where)
    problems += _tiling_problems(config, where)
    problems += _calibration_problems(config.calibration, where)
    problems += _defects_problems(config, where)
    if 0 < config.evaluation.bootstrap_resamples < MIN_RESAMPLES:
        problems.append(
            f"{where}: evaluation.bootstrap_resamples: found "
            f"{config.evaluation.bootstrap_resamples}, expected 0 (no intervals) or at "
            f"least {MIN_RESAMPLES}; fewer do not show 2.5 %"
        )
    raise_all(problems)
    return config


def _detector_problems(model: ModelConfig, where: str) -> list[str]:
    """What is wrong with the detector's name or its options."""
    if not model.name:
        return []  # of a wrong type, which was said already
    try:
        cls = detector_class(model.name, f"{where}: model.name")
    except ConfigError as error:
        return [str(error)]
    problems: list[str] = []
    read_detector_config(
        cls, model.options, f"{where}: model.options", problems, preset=model.preset
    )
    return problems


def _augmentation_problems(chosen: AugmentationConfig, where: str) -> list[str]:
    """Copies without a change, and changes without copies."""
    if chosen.copies and not chosen.varies:
        return [
            f"{where}: augmentation.copies: found {chosen.copies}, but nothing is "
            "varied, so copies would be the pictures again; set rotate, flip, shift or "
            "brightness, or remove it"
        ]
    if chosen.copies == 0 and chosen.varies:
        return [
            f"{where}: augmentation.copies: found 0, so rotate, flip, shift and "
            "brightness have no effect; remove them, or copies"
        ]
    return []


def _tiling_problems(config: WorkbenchConfig, where: str) -> list[str]:
    """A top_k without its score; tiles that the detector would letterbox.

    The maps of these could not be joined.
    """
    if config.tiling is None:
        return []
    problem = top_k_problem(config.tiling.score, config.tiling.top_k)
    if problem is not None:
        return [f"{where}: tiling.top_k: {problem}"]
    tiles, model = Tiling(**asdict(config.tiling)), config.model
    options = detector_config(
        detector_class(model.name), model.options, where, preset=model.preset
    )
    return [
        f"{where}: tiling.size: found {list(tiles.size)}, expected the aspect ratio of "
        f"the model's pictures ({height} x {width}), which the detector would else "
        'letterbox inside of each tile; or set its option geometry to "stretch"'
        for height, width in dict.fromkeys(_letterboxed(asdict(options)))
        if letterbox_canvas(tiles.size, (height, width)) != tiles.size
    ]


def _defects_problems(config: WorkbenchConfig, where: str) -> list[str]:
    """Regions of a detector without a map or a pixel threshold, and wrong options."""
    defects, calibration = config.defects, config.calibration
    if defects is None:
        return []
    problems = [
        f"{where}: defects.{name}: {reason}"
        for name, reason in defects.problems(
            calibration.method, calibration.pixel_method
        )
    ]
    if not detector_class(config.model.name).has_map:
        problems.append(
            f"{where}: defects: {config.model.name} gives no map, so there are no "
            "regions; remove it, or choose another detector"
        )
    if calibration.method == "fixed" and calibration.pixel_threshold is None:
        problems.append(
            f"{where}: calibration.pixel_threshold: missing; defects are what lies "
            "above it"
        )
    return problems


def _letterboxed(options: Any) -> Iterator[tuple[int, int]]:
    """Give the model sizes that a detector, or a member of one, letterboxes to."""
    if not isinstance(options, dict):
        return
    if options.get("geometry") == "letterbox" and "image_size" in options:
        height, width = options["image_size"]
        yield height, width
    for member in options.values():
        yield from _letterboxed(member)


def _calibration_problems(chosen: CalibrationConfig, where: str) -> list[str]:
    """What the method lacks, and what is set that it does not look at."""
    problems = []
    needed, what = _NEEDS.get(chosen.method, ("method", ""))
    if getattr(chosen, needed) is None:
        problems.append(
            f"{where}: calibration.{needed}: missing; method "
            f'"{chosen.method}" needs {what}'
        )
    for name, cause in chosen.without_effect:
        belongs = [method for method, used in _USES.items() if name in used]
        other = f', or set method to "{belongs[0]}"' if len(belongs) == 1 else ""
        if name == "pixel_quantile" and chosen.method != "fixed":
            other = ', or set pixel_method to "pixel_quantile"'
        problems.append(
            f"{where}: calibration.{name}: has no effect with {cause}; remove it{other}"
        )
    return problems


def config_schema() -> dict[str, Any]:
    """Give the JSON Schema of config files, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "PyImgAno training config",
    } | options_schema(WorkbenchConfig)
