"""Writes a bundle: graph, checks, parity, goldens, card, infer_config.json.

Nothing appears at the output until everything has passed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pyimgano_runtime._reader import dump_json
from pyimgano_runtime.atomic import new_folder, refuse_replacing
from pyimgano_runtime.decode import decode_bytes
from pyimgano_runtime.engine import ChainEngine, Engine, OnnxSession
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.infer_config import (
    FILE_NAME,
    BundleInfo,
    Calibration,
    CategoryConfig,
    CategoryParity,
    FileEntry,
    Golden,
    InferConfig,
    InputRules,
    MapGeometry,
    Parity,
    Thresholds,
    version_facts,
)
from pyimgano_runtime.paths import plain_name
from pyimgano_runtime.png_writer import encode_png
from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime
from pyimgano_runtime.reference import Reference, with_scores
from pyimgano_runtime.region_rules import RegionRules, Roi
from pyimgano_runtime.tiling import Tiling, score_picture

from .detector_protocol import ExportableDetector
from .goldens import synthetic_goldens
from .graph_checks import check_exported
from .int8_graph import INT8, Int8Graph, quantize_detector
from .model_card import model_card
from .onnx_graph import export_graph, model_spec
from .parity import TOLERANCES, ParityMeter, TorchReference, measure_parity
from .shared_backbone import SHARING, Model, share_backbone

Image = npt.NDArray[np.uint8]

PRECISIONS: Final = ("fp32", INT8)
GOLDEN_MODES: Final = ("synthetic", "real", "none")
MAX_REAL_GOLDENS: Final = 8
MAX_REAL_PER_CATEGORY: Final = 4
MAX_REAL_BYTES: Final = 32_000_000
JPEG_QUALITY: Final = 95


class Int8Export(Protocol):
    """What one category's export in 8 bits needs besides."""

    @property
    def calibrates_on_features(self) -> bool:
        """Whether `calibrate` scores features that the graph computes."""

    def ranges(self) -> Iterable[Image]:
        """Give (H, W, 3) uint8 normals, as the graph sees them."""

    def calibrate(self, graph: Int8Graph) -> tuple[Thresholds, Calibration]:
        """Set thresholds on the scores of the graph in 8 bits."""

    def judge(
        self,
        graph: Int8Graph,
        thresholds: Thresholds,
        calibration: Calibration,
        meter: ParityMeter,
    ) -> dict[str, Any]:
        """Give what the document says of the training, with the metrics in 8 bits.

        Raises:
            ParityError: 8 bits cost too much.
        """


@dataclass(frozen=True, slots=True)
class CategoryExport:
    """One category's detector and the pictures that prove its export."""

    name: str
    detector: ExportableDetector
    thresholds: Thresholds
    calibration: Calibration
    held_out: Callable[[], Iterable[tuple[str, Image]]]  # (name, pixels), for parity
    held_out_rows: str  # "test+val" or "train"
    normals: Callable[[], Iterable[Image]]  # for synthetic goldens
    training: dict[str, Any]  # detector, hyper_parameters, backbone, metrics, ...
    tiling: Tiling | None = None  # None: the graph takes whole pictures
    roi: Roi | None = None
    # Rules of regions under the thresholds that the bundle gets; None: no regions.
    regions: Callable[[Thresholds], RegionRules] | None = None
    reference: Reference | None = None  # what drift is measured from
    int8: Int8Export | None = None  # for a bundle of that precision


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """What the writer needs besides the categories."""

    name: str
    version: str
    created: str  # ISO 8601
    producer: dict[str, str]
    machine: str
    rules: InputRules
    goldens: str = "synthetic"
    share_backbone: str = "auto"  # one of SHARING; graphs in 8 bits share none
    precision: str = "fp32"  # one of PRECISIONS
    image_licence: str | None = None
    seed: int = 0


Progress = Callable[[str, int, int], None]


def write_bundle(
    output: Path,
    request: BundleRequest,
    categories: Sequence[CategoryExport],
    *,
    force: bool,
    progress: Progress,
    keep: Sequence[Path] = (),
) -> InferConfig:
    """Write a bundle folder, complete or absent.

    Args:
        keep: what `force` may not delete.

    Raises:
        ConfigError: the output may not be made or replaced, or an unknown mode of
            goldens, sharing or precision.
        ExportError: a graph cannot be made or breaks a rule.
        ParityError: a graph does not score like its detector, or 8 bits cost too much.
    """
    if request.goldens not in GOLDEN_MODES:
        raise ConfigError(
            f'--goldens: found "{request.goldens}", expected one of {GOLDEN_MODES}'
        )
    if request.share_backbone not in SHARING:
        raise ConfigError(
            f'--share-backbone: found "{request.share_backbone}", expected one of '
            f"{SHARING}"
        )
    if request.precision not in PRECISIONS:
        raise ConfigError(
            f'--precision: found "{request.precision}", expected one of {PRECISIONS}'
        )
    refuse_replacing(output, force=force, keep=keep)
    in_int8 = request.precision == INT8
    # Graphs in 8 bits have ranges of their own category, so nothing is in common.
    sharing = "never" if in_int8 else request.share_backbone
    chains = _chains(categories, sharing, progress)
    exported = [
        _prove(category, chain, progress)
        for category, chain in zip(categories, chains, strict=True)
    ]
    if in_int8:
        exported = [_in_int8(category, progress) for category in exported]
    with new_folder(output, force=force, keep=keep) as folder:
        files = _Files(folder)
        for model in _models(exported):
            files.add(model.spec.file, model.data, "model")
        goldens = _write_goldens(files, request, exported)
        config = _document(request, exported, goldens, files.entries)
        files.add("MODEL_CARD.md", model_card(config).encode(), "model_card")
        config = _document(request, exported, goldens, files.entries)
        payload = config.to_dict()
        InferConfig.from_dict(payload, str(output / FILE_NAME))
        (folder / FILE_NAME).write_text(dump_json(payload), encoding="utf-8")
    return config


Chain = tuple[Model, ...]  # a category's models, in the order of its graph


@dataclass(frozen=True, slots=True)
class _Exported:
    """A category whose models have passed every check."""

    export: CategoryExport
    chain: Chain
    parity: CategoryParity
    reference: Engine  # what a device must score like: torch, or the graph in 8 bits


def _chains(
    categories: Sequence[CategoryExport], sharing: str, progress: Progress
) -> list[Chain]:
    """Give the models of each category: a whole graph, or a shared backbone and a head.

    Raises:
        ExportError: a graph cannot be made or breaks a rule.
    """
    stems: set[str] = set()
    wholes = [
        _export_whole(c, f"models/{plain_name(c.name, stems)}.onnx", progress)
        for c in categories
    ]
    shared = None
    if sharing == "auto":
        progress("shared backbone", 0, 1)
        file = f"models/{plain_name('backbone', stems)}.onnx"
        shared = share_backbone(wholes, file)
        progress("shared backbone", 1, 1)
    if shared is None:
        return [(whole,) for whole in wholes]
    for model in (shared.backbone, *shared.heads):
        check_exported(model.data, model.spec, model.spec.file)
    return [(shared.backbone, head) for head in shared.heads]


def _export_whole(category: CategoryExport, file: str, progress: Progress) -> Model:
    progress(f"{category.name}: export", 0, 2)
    whole = Model(export_graph(category.detector), model_spec(file, category.detector))
    progress(f"{category.name}: graph checks", 1, 2)
    check_exported(whole.data, whole.spec, category.name)
    progress(f"{category.name}: graph checks", 2, 2)
    return whole


def _prove(category: CategoryExport, chain: Chain, progress: Progress) -> _Exported:
    """Compare a category's models with torch, as a device will run them.

    Raises:
        ParityError: they do not score like the detector.
    """
    progress(f"{category.name}: parity", 0, 1)
    sessions = [OnnxSession(m.data, m.spec, category.name) for m in chain]
    meter = measure_parity(
        category.detector,
        ChainEngine(sessions),
        category.held_out(),
        threshold=category.thresholds.image,
        which=category.held_out_rows,
        tiling=category.tiling,
    )
    meter.require(category.name)
    progress(f"{category.name}: parity", 1, 1)
    reference = TorchReference(category.detector)
    if meter.ties:
        told = [*category.training.get("warnings", ()), *meter.warnings()]
        category = replace(category, training=category.training | {"warnings": told})
    return _Exported(category, chain, meter.result(), reference)


def _in_int8(exported: _Exported, progress: Progress) -> _Exported:
    """Give a category in 8 bits: thresholds, parity and metrics of its own.

    Raises:
        ExportError: the graph holds nothing that 8 bits speed up, or breaks a rule.
        ParityError: 8 bits cost too much.
    """
    category, (whole,) = exported.export, exported.chain
    assert category.int8 is not None
    progress(f"{category.name}: int8", 0, 1)
    graph = quantize_detector(
        *(category.detector, whole, category.int8.ranges()),
        features=category.int8.calibrates_on_features,
    )
    check_exported(graph.model.data, graph.model.spec, f"{category.name} in int8")
    progress(f"{category.name}: int8", 1, 1)
    thresholds, calibration = category.int8.calibrate(graph)
    progress(f"{category.name}: int8 against torch", 0, 1)
    meter = measure_parity(
        category.detector,
        graph.engine,
        category.held_out(),
        threshold=category.thresholds.image,
        candidate_threshold=thresholds.image,
        which=category.held_out_rows,
        tiling=category.tiling,
    )
    progress(f"{category.name}: int8 against torch", 1, 1)
    training = category.int8.judge(graph, thresholds, calibration, meter)
    reference = category.reference
    if reference is not None:
        reference = with_scores(reference, thresholds, calibration)
    export = replace(
        category,
        thresholds=thresholds,
        calibration=calibration,
        training=training,
        reference=reference,
    )
    return _Exported(export, (graph.model,), meter.result(), graph.engine)


def _models(categories: Sequence[_Exported]) -> list[Model]:
    """Give every model once, a shared one first."""
    by_file = {model.spec.file: model for c in categories for model in c.chain}
    return list(by_file.values())


class _Files:
    """Writes files into the bundle folder and lists them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: list[FileEntry] = []

    def add(self, path: str, data: bytes, role: str) -> None:
        """Write one file and list it."""
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        self.entries.append(FileEntry(path, digest, len(data), role))


def _write_goldens(
    files: _Files, request: BundleRequest, categories: Sequence[_Exported]
) -> tuple[Golden, ...]:
    goldens: list[Golden] = []
    total = 0
    # Every category gets its share of the few real ones: each must be proven.
    share = max(1, min(MAX_REAL_PER_CATEGORY, MAX_REAL_GOLDENS // len(categories)))
    for category in categories:
        for index, image in enumerate(_golden_images(category, request, share)):
            number = f"golden/{len(goldens):03d}"
            # One JPEG in the bundle shows whether a device decodes as we did.
            as_jpeg = request.goldens == "synthetic" and not goldens and index == 0
            suffix = "jpg" if as_jpeg else "png"
            encoded = _encode_jpeg(image) if as_jpeg else encode_png(image)
            if request.goldens == "real" and (
                len(goldens) == MAX_REAL_GOLDENS
                or total + len(encoded) > MAX_REAL_BYTES
            ):
                continue
            total += len(encoded)
            pixels = decode_bytes(encoded, request.rules, name=number)
            export = category.export
            score, anomaly_map = score_picture(
                category.reference, pixels, export.tiling, with_map=True
            )
            map_path = None
            files.add(f"{number}.{suffix}", encoded, "golden_image")
            if anomaly_map is not None:
                map_path = f"{number}.map.npy"
                files.add(map_path, _npy(anomaly_map), "golden_map")
            goldens.append(
                Golden(
                    category=export.name,
                    image=f"{number}.{suffix}",
                    map=map_path,
                    score=float(score),
                    pixels_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
                    kind=request.goldens,
                )
            )
    return tuple(goldens)


def _golden_images(
    category: _Exported, request: BundleRequest, share: int
) -> list[Image]:
    if request.goldens == "none":
        return []
    if request.goldens == "synthetic":
        export = category.export
        return synthetic_goldens(
            export.normals(), seed=request.seed, tiling=export.tiling
        )
    wanted = set(np.linspace(0, category.parity.n_images - 1, share).astype(int))
    held_out = enumerate(category.export.held_out())
    return [image for index, (_, image) in held_out if index in wanted]


def _encode_jpeg(image: Image) -> bytes:
    import cv2

    bgr = np.ascontiguousarray(image[:, :, ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(data)


def _npy(values: npt.NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(values), allow_pickle=False)
    return stream.getvalue()


def _document(
    request: BundleRequest,
    categories: Sequence[_Exported],
    goldens: tuple[Golden, ...],
    files: Sequence[FileEntry],
) -> InferConfig:
    models = {_stem(model): model.spec for model in _models(categories)}
    first = categories[0].export.detector
    training: dict[str, Any] = {
        "categories": {c.export.name: c.export.training for c in categories}
    }
    if request.image_licence or request.goldens == "real":
        training["image_licence"] = request.image_licence or "not stated"
    blocks = {c.export.name: _category_config(c) for c in categories}
    return InferConfig(
        kind="bundle",
        bundle=BundleInfo(
            request.name, request.version, request.created, dict(request.producer)
        ),
        files=tuple(files),
        models=models,
        input=request.rules,
        preprocess=tuple(first.preprocess_steps()),
        postprocess=tuple(first.postprocess_steps()),
        categories=blocks,
        parity=Parity(
            reference=f"torch {torch.__version__}",
            candidate=f"onnxruntime {load_onnxruntime().__version__}"
            + (f", {INT8}" if request.precision == INT8 else ""),
            machine=request.machine,
            categories={c.export.name: c.parity for c in categories},
            tolerances=dict(TOLERANCES),
            goldens=goldens,
        ),
        training=training,
        **version_facts(blocks.values()),
    )


def _category_config(category: _Exported) -> CategoryConfig:
    export = category.export
    return CategoryConfig(
        graph=tuple(_stem(model) for model in category.chain),
        thresholds=export.thresholds,
        calibration=export.calibration,
        map_geometry=MapGeometry.of(export.detector, export.tiling),
        roi=export.roi,
        tiling=export.tiling,
        regions=None if export.regions is None else export.regions(export.thresholds),
        reference=export.reference,
    )


def _stem(model: Model) -> str:
    return Path(model.spec.file).stem
