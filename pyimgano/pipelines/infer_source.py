"""Where `pyimgano infer` gets its model: a document, a run, a checkpoint or a fit.

Whatever is named ends as one `infer_config.json` document with one category, together
with where its values come from; everything after that is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import closest, parse_json
from pyimgano_runtime._version import __version__
from pyimgano_runtime.calibration import fixed_thresholds
from pyimgano_runtime.errors import ConfigError, raise_all
from pyimgano_runtime.infer_config import (
    FILE_NAME,
    Checkpoint,
    InferConfig,
    ModelChoice,
    RunCategory,
    RunConfig,
    RunInfo,
)
from pyimgano_runtime.sources import list_inputs

from ..datasets.images import inspect_pictures
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from ..detectors import DETECTORS, detector_class, load_detector
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
        if self.checkpoint_root is not None and self.infer_config is None:
            problems.append("--checkpoint-root: goes with --infer-config only")
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
        payload = run_document(run).to_dict()
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
    assert options.threshold is not None
    try:
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    except OSError as cause:
        raise ConfigError(
            f"--checkpoint {checkpoint}: cannot be read ({cause.strerror}); expected "
            "a model.safetensors of a run"
        ) from cause
    detector = load_detector(checkpoint, sha256=digest)
    if detector.name != options.model:
        raise ConfigError(
            f"--model {options.model}: {checkpoint} holds a {detector.name}; name "
            "that, or another checkpoint"
        )
    name = options.category or checkpoint.absolute().parent.name
    thresholds, calibration = fixed_thresholds(
        options.threshold, None, set_by="--threshold", set_at=timestamp()
    )
    settings = category_settings(detector, name, thresholds, calibration)
    category = RunCategory(
        checkpoint=Checkpoint(checkpoint.name, digest),
        thresholds=thresholds,
        calibration=calibration,
        map_geometry=settings.map_geometry,
    )
    document = RunConfig(
        kind="run",
        run=RunInfo(name, timestamp(), {"pyimgano": __version__}),
        model=ModelChoice(detector.name, None, detector.hyper_parameters()),
        device="auto",
        input=input_rules(),
        preprocess=tuple(detector.preprocess_steps()),
        postprocess=tuple(detector.postprocess_steps()),
        categories={name: category},
        training={},
    )
    origins = {
        "": FILE,
        "model.name": FLAG,
        "device": DEFAULT,
        "category": FLAG if options.category else DEFAULT,
    }
    place = checkpoint.absolute().with_name(FILE_NAME)
    return InferSource("model", place, document, origins)


def training_config(options: InferOptions) -> WorkbenchConfig:
    """Give the training config of a fit on a folder of good pictures.

    Raises:
        ConfigError: unknown detector, preset or hyper-parameter.
    """
    if options.model not in DETECTORS:
        raise ConfigError(
            f'--model: no detector "{options.model}" '
            f"({closest(str(options.model), DETECTORS)}); "
            f"known: {', '.join(sorted(DETECTORS))}"
        )
    payload: dict[str, Any] = {
        "model": {
            "name": options.model,
            "preset": options.preset,
            "options": options.kwargs,
        },
        "device": options.device or "auto",
    }
    return parse_config(payload, "--model")


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
    return options.category or options.train_dir.absolute().name or "part"


def _fit(
    options: InferOptions, config: WorkbenchConfig, workspace: Path, progress: Progress
) -> Run:
    """Fit and calibrate on a folder of good pictures, as `pyimgano train` would."""
    assert options.train_dir is not None
    name = category_of_fit(options)
    rows = _good_pictures(options.train_dir, name)
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


def _good_pictures(folder: Path, category: str) -> list[ManifestRow]:
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
