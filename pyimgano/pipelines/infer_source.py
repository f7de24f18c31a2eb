"""Where `pyimgano infer` gets its model: a document, a run, a checkpoint or a fit.

Whatever is named ends as one `infer_config.json` document with one category, together
with where its values come from; everything after that is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import parse_json
from pyimgano_runtime._version import __version__
from pyimgano_runtime.calibration import fixed_thresholds
from pyimgano_runtime.errors import ConfigError, raise_all
from pyimgano_runtime.infer_config import (
    FILE_NAME,
    FLOAT32_MAX,
    Checkpoint,
    InferConfig,
    InputRules,
    ModelChoice,
    RunCategory,
    RunConfig,
    RunInfo,
    select_category,
    version_facts,
)
from pyimgano_runtime.infer_config_checks import category_name_problem
from pyimgano_runtime.sources import list_inputs
from pyimgano_runtime.tiling import Tiling

from ..datasets.images import inspect_pictures
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from ..detectors import (
    checkpoint_sha256,
    detector_class,
    load_detector,
)
from ..detectors.interface import Progress
from ..inference.config import (
    load_infer_config,
    parse_document,
    select_infer_category,
)
from ..source_date import timestamp
from ..workbench.artifacts import Run, open_run
from ..workbench.config import WorkbenchConfig, parse_config
from ..workbench.run_document import document_path, run_document
from ..workbench.runner import category_settings, choose_device, input_rules, write_run

FLAG: Final = "flag"
FILE: Final = "file"
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class InferOptions:
    """The command's options as given; None where an option was left out."""

    infer_config: Path | None = None
    from_run: Path | None = None
    model: str | None = None
    train_dir: Path | None = None
    checkpoint: Path | None = None
    preset: str | None = None
    model_kwargs: str | None = None
    category: str | None = None
    device: str | None = None
    engine: str | None = None
    threshold: float | None = None
    thresholds: Path | None = None
    checkpoint_root: Path | None = None
    threads: int | None = None

    @property
    def kwargs(self) -> dict[str, Any]:
        """The hyper-parameters of `--model-kwargs`.

        Raises:
            ConfigError: not a JSON object.
        """
        text = self.model_kwargs or "{}"
        value = parse_json(text.encode(), "--model-kwargs")
        if not isinstance(value, dict):
            raise ConfigError(
                f"--model-kwargs: found {text[:60]}, expected a JSON object such as "
                '{"bank_size": 500}'
            )
        return value

    def refuse_contradictions(self) -> None:
        """Refuse options that do not go together, all at once.

        Raises:
            ConfigError: says which, and what to do.
        """
        sources = {
            "--infer-config": self.infer_config,
            "--from-run": self.from_run,
            "--model": self.model,
        }
        given = [name for name, value in sources.items() if value is not None]
        problems = []
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            problems.append(
                f"{', '.join(sources)}: expected exactly one, found {found}; the "
                "document, the run or the detector says what to infer with"
            )
        if self.model is None:
            for_model = {
                "--train-dir": self.train_dir,
                "--preset": self.preset,
                "--model-kwargs": self.model_kwargs,
            }
            for name, value in for_model.items():
                if value is not None:
                    problems.append(
                        f"{name}: goes with --model only; {' and '.join(given) or 'it'}"
                        " names its own model"
                    )
        else:
            problems += self._model_problems()
        if self.checkpoint_root is not None and self.model is not None:
            problems.append(
                "--checkpoint-root: goes with --infer-config and --from-run only"
            )
        if self.thresholds is not None and self.infer_config is None:
            problems.append(
                f"--thresholds {self.thresholds}: belongs to a bundle's scores; name "
                "the bundle by --infer-config, or give --threshold"
            )
        if self.threshold is not None and abs(self.threshold) > FLOAT32_MAX:
            problems.append(
                f"--threshold: found {self.threshold}, expected a number that float32 "
                "can hold, since scores are compared as float32"
            )
        if self.category is not None:
            problem = category_name_problem(self.category)
            if problem is not None:
                problems.append(f"--infer-category: {problem}")
        if self.threshold is not None and self.thresholds is not None:
            problems.append("--threshold, --thresholds: give one of them")
        raise_all(problems)

    def _model_problems(self) -> list[str]:
        if (self.train_dir is None) == (self.checkpoint is None):
            return [
                "--model: give either --train-dir DIR (good pictures to fit on) or "
                "--checkpoint F (a fitted detector)"
            ]
        if self.checkpoint is None:
            return []
        problems = [
            f"{name}: has no effect with --checkpoint, which holds its own "
            "hyper-parameters; remove it"
            for name, value in (
                ("--preset", self.preset),
                ("--model-kwargs", self.model_kwargs),
            )
            if value is not None
        ]
        if self.threshold is None:
            problems.append(
                "--threshold: missing; a bare checkpoint holds no threshold. Name one, "
                "or take the run with its calibration by --from-run"
            )
        return problems


@dataclass(frozen=True, slots=True)
class InferSource:
    """A document of one category and where its values come from."""

    kind: str  # "infer_config", "run" or "model": which option named it
    place: Path  # the document, real or not: its paths are relative to its folder
    document: RunConfig | InferConfig
    origins: Mapping[str, str]  # dotted name or its beginning -> flag, file, default

    @property
    def fit_warnings(self) -> list[str]:
        """What a fit of just now warned of; a document's own are in its card."""
        if self.kind != "model":
            return []
        facts = self.document.training.get("categories", {}).get(self.category, {})
        return list(facts.get("warnings", ()))

    @property
    def category(self) -> str:
        """The name of the category."""
        (name,) = self.document.categories
        return name


def open_source(
    options: InferOptions, workspace: Path, progress: Progress
) -> InferSource:
    """Give the document that the options name, made if it must be.

    Args:
        workspace: a folder for a fit's run; it must stay until the model is loaded.

    Raises:
        ConfigError, BundleError, DatasetError: something named is refused.
    """
    options.refuse_contradictions()
    if options.infer_config is not None:
        path = options.infer_config
        place = path / FILE_NAME if path.is_dir() else path
        payload = load_infer_config(path)
        return _of_payload("infer_config", place, payload, options)
    if options.from_run is not None:
        run = open_run(options.from_run)
        name = select_category(run.categories, options.category)
        payload = run_document(run, categories=[name]).to_dict()
        return _of_payload("run", document_path(run), payload, options)
    if options.checkpoint is not None:
        return _of_checkpoint(options, options.checkpoint)
    config = training_config(options)
    run = _fit(options, config, workspace, progress)
    place = document_path(run)
    origins = fit_origins(options, config)
    return InferSource("model", place, run_document(run), origins)


def _of_payload(
    kind: str, place: Path, payload: dict[str, Any], options: InferOptions
) -> InferSource:
    payload = select_infer_category(payload, options.category)
    origins = {"": FILE} | ({"category": FLAG} if options.category else {})
    document = parse_document(payload, str(place))
    return InferSource(kind, place.absolute(), document, origins)


def _of_checkpoint(options: InferOptions, checkpoint: Path) -> InferSource:
    """Describe a bare checkpoint; its threshold is the flag's."""
    name = options.category or _category_name(checkpoint.absolute().parent.name)
    assert options.model is not None
    document = checkpoint_document(
        options, checkpoint, name, model=options.model, rules=input_rules()
    )
    origins = {
        "": FILE,
        "model.name": FLAG,
        "device": DEFAULT,
        "category": FLAG if options.category else DEFAULT,
    }
    place = checkpoint.absolute().with_name(FILE_NAME)
    return InferSource("model", place, document, origins)


def checkpoint_document(
    options: InferOptions,
    checkpoint: Path,
    category: str,
    *,
    model: str,
    rules: InputRules,
    tiling: Tiling | None = None,
    device: str = "auto",
) -> RunConfig:
    """Give the document of a checkpoint that has no other: threshold from the flag.

    Raises:
        ConfigError: no checkpoint, that of another detector, or no --threshold.
    """
    digest = checkpoint_sha256(checkpoint)
    detector = load_detector(checkpoint, sha256=digest)
    if detector.name != model:
        raise ConfigError(
            f"--checkpoint {checkpoint}: holds a {detector.name}, expected a {model}; "
            "name another checkpoint or detector"
        )
    if options.threshold is None:
        raise ConfigError(
            f"--checkpoint {checkpoint}: is another model than the one whose "
            "calibration stands there, so its scores are not comparable with that "
            "threshold; name --threshold too, or the checkpoint's own run"
        )
    thresholds, calibration = fixed_thresholds(
        options.threshold, None, set_by="--threshold", set_at=timestamp()
    )
    settings = category_settings(
        detector, category, thresholds, calibration, tiling=tiling
    )
    block = RunCategory(
        checkpoint=Checkpoint(checkpoint.name, digest),
        thresholds=thresholds,
        calibration=calibration,
        map_geometry=settings.map_geometry,
        tiling=tiling,
    )
    return RunConfig(
        kind="run",
        run=RunInfo(category, timestamp(), {"pyimgano": __version__}),
        model=ModelChoice(detector.name, None, detector.hyper_parameters()),
        device=device,
        input=rules,
        preprocess=tuple(detector.preprocess_steps()),
        postprocess=tuple(detector.postprocess_steps()),
        categories={category: block},
        training={},
        **version_facts([block]),
    )


def training_config(options: InferOptions) -> WorkbenchConfig:
    """Give the training config of a fit on a folder of good pictures.

    Raises:
        ConfigError: unknown detector, preset or hyper-parameter.
    """
    detector_class(str(options.model), "--model")
    payload: dict[str, Any] = {
        "model": {
            "name": options.model,
            "preset": options.preset,
            "options": options.kwargs,
        },
        "device": options.device or "auto",
    }
    return parse_config(payload, "--model")


def choose_engine(options: InferOptions, device: str) -> tuple[str, str]:
    """Give engine and device for a detector in torch's form.

    Args:
        device: the document's.

    Raises:
        ConfigError: the onnx engine on a GPU.
    """
    engine = options.engine or "torch"
    if engine == "torch":
        return engine, options.device or device
    if options.device == "cuda":
        raise ConfigError(
            "--device cuda: the onnx engine runs on the CPU; remove one of them"
        )
    return engine, "cpu"


def fit_origins(options: InferOptions, config: WorkbenchConfig) -> dict[str, str]:
    """Say which values of a fit come from flags; the others are defaults."""
    preset = detector_class(config.model.name).presets.get(config.model.preset, {})
    flagged = {f"model.options.{key}": FLAG for key in (*preset, *options.kwargs)}
    if options.preset is not None:
        flagged["model.preset"] = FLAG
    if options.category is not None:
        flagged["category"] = FLAG
    return {"": DEFAULT, "model.name": FLAG} | flagged


def category_of_fit(options: InferOptions) -> str:
    """Give the name of the category that a folder of good pictures shows."""
    assert options.train_dir is not None
    return options.category or _category_name(options.train_dir.absolute().name)


def _category_name(folder: str) -> str:
    """Give a folder's name as that of a category, if it can be one."""
    return folder if category_name_problem(folder) is None else "part"


def _fit(
    options: InferOptions, config: WorkbenchConfig, workspace: Path, progress: Progress
) -> Run:
    """Fit and calibrate on a folder of good pictures, as `pyimgano train` would."""
    assert options.train_dir is not None
    choose_engine(options, config.device)  # refused before the fit, not after it
    name = category_of_fit(options)
    rows = good_pictures(options.train_dir, name)
    if len(rows) == 1:
        if options.threshold is None:
            raise ConfigError(
                f"{options.train_dir}: one picture sets no threshold; give more good "
                "pictures (99 promise 1 % false alarms), or name --threshold"
            )
        fixed = replace(config.calibration, method="fixed", threshold=options.threshold)
        config = replace(config, calibration=fixed)
    inspect_pictures(rows, input_rules())
    device = choose_device(config.device)
    split = CategorySplit(name, tuple(rows), (), ())
    write_run(config, [split], workspace, device, progress)
    return open_run(workspace)


def good_pictures(folder: Path, category: str) -> list[ManifestRow]:
    """Give the pictures of a folder as train normals.

    Raises:
        ConfigError: no folder, or no pictures in it.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"--train-dir {folder}: is no folder; expected a folder of good pictures"
        )
    found = [path.relative_to(folder) for path in list_inputs([str(folder)])]
    return [
        ManifestRow(path.as_posix(), folder.absolute(), category, "train", 0)
        for path in found
    ]


def origin_of(name: str, origins: Mapping[str, str]) -> str:
    """Give the origin of a value: that of its longest known beginning."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        known = origins.get(".".join(parts[:length]))
        if known is not None:
            return known
    return origins[""]
