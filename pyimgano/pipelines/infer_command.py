"""What `pyimgano infer` does with its options: merge, open, judge.

source = open_source(options, workspace, progress)   # a document of one category
plan = make_plan(source, options)                    # flags win
predictor = open_predictor(plan, pictures)           # torch or onnxruntime
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyimgano_exporters.graph_checks import check_exported
from pyimgano_exporters.onnx_graph import export_graph, model_spec
from pyimgano_exporters.parity import measure_parity
from pyimgano_runtime.bundle import Bundle, open_bundle
from pyimgano_runtime.calibration import fixed_thresholds
from pyimgano_runtime.decode import read_image
from pyimgano_runtime.engine import OnnxEngine
from pyimgano_runtime.errors import (
    BundleError,
    ConfigError,
    ImageError,
    ParityError,
    raise_all,
)
from pyimgano_runtime.infer_config import (
    FILE_NAME,
    CategorySettings,
    InferConfig,
    InputRules,
    RunConfig,
    Thresholds,
)
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.thresholds_file import ThresholdsFile, read_thresholds_file

from ..detectors import (
    checkpoint_sha256,
    detector_class,
    detector_config,
    load_detector,
)
from ..inference.config import resolve_checkpoint
from ..inference.torch_predictor import torch_predictor
from ..source_date import timestamp
from ..workbench.runner import choose_device, input_rules
from .infer_source import (
    DEFAULT,
    FLAG,
    InferOptions,
    InferSource,
    category_of_fit,
    checkpoint_document,
    choose_engine,
    fit_origins,
    good_pictures,
    origin_of,
    training_config,
)

EFFECTIVE_SCHEMA_VERSION: Final = "1.0"
PROVEN_ON: Final = 4  # pictures that an export in memory is compared with torch on


@dataclass(frozen=True, slots=True)
class InferPlan:
    """A document with the flags' values in the place of its own."""

    source: InferSource
    engine: str  # "torch" or "onnx"
    device: str
    checkpoint: Path | None  # of a run's document
    checkpoint_sha256: str | None  # None: not compared
    bundle: Bundle | None  # of a bundle's document
    thresholds_file: ThresholdsFile | None
    thresholds: Thresholds
    options: InferOptions
    origins: dict[str, str]

    @property
    def settings(self) -> CategorySettings:
        """The category's block of the document."""
        return self.source.document.categories[self.source.category]


def make_plan(source: InferSource, options: InferOptions) -> InferPlan:
    """Merge flags into a document; flags win.

    Raises:
        ConfigError: a flag that this kind of document cannot take, a checkpoint
            outside of the rule, another model without a threshold of its own, or a
            thresholds file of another model.
        BundleError: the bundle is refused.
    """
    checkpoint, digest, bundle, file = None, None, None, None
    if isinstance(source.document, RunConfig):
        _refuse_thresholds_file(options)
        source, checkpoint = _with_checkpoint(source, source.document, options)
        document = source.document
        assert isinstance(document, RunConfig)
        digest = document.categories[source.category].checkpoint.sha256
        engine, device = choose_engine(options, document.device)
        thresholds = document.categories[source.category].thresholds
    else:
        _refuse_for_bundle(source, options)
        engine, device = "onnx", "cpu"
        bundle = open_bundle(source.place.parent)
        thresholds = bundle.config.categories[source.category].thresholds
        if options.thresholds is not None:
            file = read_thresholds_file(options.thresholds)
            thresholds = file.settings_for(bundle, source.category).thresholds
    origins = dict(source.origins) | engine_origins(options, engine, source)
    if options.threshold is not None:
        thresholds = _with_image_threshold(thresholds, options.threshold)
        origins |= {"thresholds.image": FLAG, "thresholds.provenance.image": FLAG}
    return InferPlan(
        source=source,
        engine=engine,
        device=device,
        checkpoint=checkpoint,
        checkpoint_sha256=digest,
        bundle=bundle,
        thresholds_file=file,
        thresholds=thresholds,
        options=options,
        origins=origins,
    )


def engine_origins(
    options: InferOptions, engine: str, source: InferSource | None
) -> dict[str, str]:
    """Say where engine and device come from."""
    origins = {"engine": FLAG if options.engine else DEFAULT}
    if options.device is not None:
        origins["device"] = FLAG
    elif engine == "onnx" or source is None:
        origins["device"] = DEFAULT
    return origins


def _with_checkpoint(
    source: InferSource, document: RunConfig, options: InferOptions
) -> tuple[InferSource, Path]:
    """Give the checkpoint to load, and the document that is true of it."""
    named = options.checkpoint
    if named is None or source.kind == "model":
        root = options.checkpoint_root
        payload = document.to_dict()
        found = resolve_checkpoint(payload, source.place, checkpoint_root=root)
        return source, found
    origins = dict(source.origins) | {"checkpoint": FLAG}
    promised = document.categories[source.category].checkpoint.sha256
    if checkpoint_sha256(named) == promised:  # the same one, elsewhere
        return replace(source, origins=origins), named.absolute()
    regions = document.categories[source.category].regions
    if regions is not None and regions.sets_label:
        raise ConfigError(
            f"--checkpoint {named}: the label follows regions (policy "
            f'"{regions.policy}"), and a pixel threshold for them was calibrated for '
            "the run's own checkpoint only; leave --checkpoint out"
        )
    other = checkpoint_document(
        options,
        named,
        source.category,
        model=document.model.name,
        rules=document.input,
        tiling=document.categories[source.category].tiling,
        device=document.device,
    )
    origins |= dict.fromkeys(("model", "thresholds", "adaptation.map_geometry"), FLAG)
    return replace(source, document=other, origins=origins), named.absolute()


def _refuse_thresholds_file(options: InferOptions) -> None:
    if options.thresholds is not None:
        raise ConfigError(
            f"--thresholds {options.thresholds}: belongs to a bundle's scores; name "
            "the bundle by --infer-config, or give --threshold"
        )


def _refuse_for_bundle(source: InferSource, options: InferOptions) -> None:
    problems = [
        f"{flag}: {source.place} is a bundle, which holds no checkpoint; name the run "
        "it came from by --from-run"
        for flag, given in (
            ("--engine torch", options.engine == "torch"),
            ("--checkpoint", options.checkpoint is not None),
            ("--checkpoint-root", options.checkpoint_root is not None),
            ("--device cuda", options.device == "cuda"),
        )
        if given
    ]
    if source.place.name != FILE_NAME:
        problems.append(
            f"{source.place}: is a bundle's document under another name; expected "
            f"{FILE_NAME} in its bundle folder"
        )
    raise_all(problems)


def _with_image_threshold(thresholds: Thresholds, value: float) -> Thresholds:
    fixed, _ = fixed_thresholds(value, None, set_by="--threshold", set_at=timestamp())
    return replace(
        thresholds,
        image=fixed.image,
        provenance=thresholds.provenance | fixed.provenance,
    )


def effective_config(plan: InferPlan) -> dict[str, Any]:
    """Give model, adaptation and thresholds as merged, and each value's origin."""
    source = plan.source
    settings, document = plan.settings, source.document
    merged: dict[str, Any] = {
        "engine": plan.engine,
        "device": plan.device,
        "category": source.category,
    }
    if isinstance(document, RunConfig):
        merged["model"] = asdict(document.model)
        merged["checkpoint"] = {
            "path": str(plan.checkpoint),
            "sha256": plan.checkpoint_sha256,
        }
    else:
        merged["graph"] = _graph(document, source.category)
    merged["adaptation"] = _adaptation(document.input, settings)
    merged["thresholds"] = asdict(plan.thresholds)
    return _with_origins(source.kind, str(source.place), merged, plan.origins)


def effective_before_fit(options: InferOptions) -> dict[str, Any]:
    """Give the same for `--model --train-dir`, of what is known before the fit."""
    options.refuse_contradictions()
    config = training_config(options)
    category = category_of_fit(options)
    assert options.train_dir is not None
    good_pictures(options.train_dir, category)
    engine, device = choose_engine(options, config.device)
    cls = detector_class(config.model.name)
    chosen = detector_config(
        cls, config.model.options, "--model-kwargs", preset=config.model.preset
    )
    shown = None if options.threshold is None else float(np.float32(options.threshold))
    merged = {
        "engine": engine,
        "device": device,
        "category": category,
        "model": {
            "name": config.model.name,
            "preset": config.model.preset,
            "options": asdict(chosen),
        },
        "checkpoint": None,  # the fit makes it
        "adaptation": _adaptation(input_rules(), None),
        # Calibrated after the fit, but for one that a flag names.
        "thresholds": None if options.threshold is None else {"image": shown},
    }
    origins = fit_origins(options, config) | engine_origins(options, engine, None)
    if options.threshold is not None:
        origins["thresholds.image"] = FLAG
    return _with_origins("model", str(options.train_dir), merged, origins)


def _graph(document: InferConfig, category: str) -> list[dict[str, Any]]:
    digests = {entry.path: entry.sha256 for entry in document.files}
    models = [document.models[name] for name in document.categories[category].graph]
    return [{"file": model.file, "sha256": digests[model.file]} for model in models]


def _adaptation(rules: InputRules, settings: CategorySettings | None) -> dict[str, Any]:
    """Give what fits pictures and maps to this camera."""
    geometry = None if settings is None else settings.map_geometry
    tiling = None if settings is None else settings.tiling
    roi = None if settings is None else settings.roi
    regions = None if settings is None else settings.regions
    return {
        "input": asdict(rules),
        "map_geometry": None if geometry is None else asdict(geometry),
        "roi": None if roi is None else asdict(roi),
        "regions": None if regions is None else asdict(regions),
        "tiling": None if tiling is None else tiling.to_dict(),
    }


def _with_origins(
    kind: str, place: str, merged: dict[str, Any], origins: dict[str, str]
) -> dict[str, Any]:
    names = _leaves(merged)
    return {
        "schema_version": EFFECTIVE_SCHEMA_VERSION,
        "source": {"kind": kind, "path": place},
        **merged,
        "origins": {name: origin_of(name, origins) for name in names},
    }


def _leaves(value: Any, at: str = "") -> list[str]:
    """Give the dotted names of all values in nested objects; a list is one value."""
    if not isinstance(value, dict) or not value:
        return [at]
    return [
        name
        for key, member in value.items()
        for name in _leaves(member, f"{at}.{key}" if at else key)
    ]


def open_predictor(plan: InferPlan, pictures: Sequence[Path]) -> Predictor:
    """Give the predictor of a plan.

    Args:
        pictures: what will be judged: a graph that is made in memory is first compared
            with torch on a few of them.

    Raises:
        BundleError, ConfigError: the model cannot be opened.
        ExportError, ParityError: the graph made in memory is refused.
    """
    options, source = plan.options, plan.source
    if not isinstance(source.document, RunConfig):
        assert plan.bundle is not None
        return Predictor.open(
            plan.bundle,
            category=source.category,
            threads=options.threads,
            threshold=options.threshold,
            thresholds=plan.thresholds_file,
        )
    assert plan.checkpoint is not None
    detector = load_detector(plan.checkpoint, sha256=plan.checkpoint_sha256)
    _refuse_other_detector(detector, plan)
    rules = source.document.input
    if plan.engine == "torch":
        return torch_predictor(
            detector,
            source.category,
            plan.settings,
            rules,
            device=choose_device(plan.device),
            threshold=options.threshold,
            origin="run",
        )
    spec = model_spec("model.onnx", detector)
    graph = export_graph(detector)
    check_exported(graph, spec, source.category)
    engine = OnnxEngine(graph, spec, source.category, threads=options.threads)
    predictor = Predictor(
        source.category,
        plan.settings,
        rules,
        engine,
        threshold=options.threshold,
        origin="run",
    )
    _refuse_other_scores(detector, engine, plan, pictures)
    return predictor


def _refuse_other_scores(
    detector: Any, engine: OnnxEngine, plan: InferPlan, pictures: Sequence[Path]
) -> None:
    """A graph that was made just now is compared with torch before it judges.

    Raises:
        ParityError: scores or maps differ by more than the tolerance.
    """
    meter = measure_parity(
        detector,
        engine,
        _first_readable(pictures, plan.source.document.input),
        threshold=plan.thresholds.image,
        which="first",
        tiling=plan.settings.tiling,
    )
    problems = meter.problems()
    if problems:
        raise ParityError(
            f"{plan.source.category}: the graph made by --engine onnx does not score "
            f"like the detector on the first {meter.n_images} pictures: "
            f"{'; '.join(problems)}; use --engine torch, and report this"
        )


def _refuse_other_detector(detector: Any, plan: InferPlan) -> None:
    """The document's words about the model must be true of the checkpoint."""
    document = plan.source.document
    assert isinstance(document, RunConfig)
    if detector.name != document.model.name:
        raise BundleError(
            f"{plan.checkpoint}: holds a {detector.name}, {plan.source.place} says "
            f"{document.model.name}; write the document again by "
            '"pyimgano train --export-infer-config"'
        )
    geometry = plan.settings.map_geometry
    if detector.map_size() != (None if geometry is None else geometry.map_size):
        raise BundleError(
            f"{plan.checkpoint}: gives maps of {detector.map_size()}, "
            f"{plan.source.place} says {geometry}; write the document again by "
            '"pyimgano train --export-infer-config"'
        )


def _first_readable(
    pictures: Sequence[Path], rules: InputRules
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Give the first few pictures that can be read; the others get error rows."""
    found = 0
    for path in pictures:
        if found == PROVEN_ON:
            return
        try:
            image = read_image(path, rules)
        except ImageError:
            continue  # its row will say so
        found += 1
        yield path.name, image
