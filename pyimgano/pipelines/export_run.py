"""Exports a finished run as a bundle: gathers what the exporter takes as arguments."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import torch

from pyimgano_exporters.bundle_writer import (
    BundleRequest,
    CategoryExport,
    Progress,
    write_bundle,
)
from pyimgano_exporters.int8_graph import INT8
from pyimgano_runtime._version import __version__
from pyimgano_runtime.errors import ConfigError, DatasetError
from pyimgano_runtime.infer_config import InferConfig, InputRules
from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime

from ..datasets.fingerprints import changes, picture_digests, test_fingerprint
from ..datasets.images import read_ahead
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from ..detectors.interface import Detector
from ..workbench.artifacts import Run, machine_name
from ..workbench.config import WorkbenchConfig, load_config
from ..workbench.labelled_rows import Labelled, load_labelled
from ..workbench.run_document import training_facts
from ..workbench.runner import load_splits, run_rules
from ..workbench.trained import load_trained
from .int8_category import Int8Category

Image = npt.NDArray[np.uint8]

OWN_BUNDLE: Final = "bundle"  # in a run: what `train --export-bundle` makes
PARITY_IMAGES: Final = 200  # spread evenly over the held-out rows


def export_run(
    run: Run,
    output: Path,
    *,
    name: str,
    version: str,
    created: str | None,
    goldens: str,
    image_licence: str | None,
    parity_images: int | None,
    force: bool,
    progress: Progress,
    share_backbone: str = "auto",
    precision: str = "fp32",
    accept_quality_loss: bool = False,
) -> InferConfig:
    """Write the bundle of a run; every category becomes a graph.

    Args:
        precision: "int8": convolutions compute in 8 bits, thresholds are set again.
        accept_quality_loss: write it even where 8 bits cost more than is allowed.
        share_backbone: "auto": one file for what the categories' graphs have in common,
            where that is worth it and changes no bit of a score; "never".
        created: ISO 8601; None: when the training run ended.
        parity_images: how many held-out pictures are compared; None: all.

    Raises:
        ConfigError, DatasetError: the run or its pictures are refused.
        ExportError, ParityError: see `write_bundle`.
    """
    _refuse_in_run(run.folder, output)
    loaded = load_config(run.config_path)
    splits = load_splits(loaded)
    refuse_changed_data(run, splits)
    rules = run_rules(run)
    int8_of = None
    if precision == INT8:
        labelled = load_labelled(loaded, splits, rules)
        _refuse_changed_judges(run, splits, labelled)
        if parity_images is not None:
            # Few pictures would let labels flip unseen.
            parity_images = max(parity_images, PARITY_IMAGES)
        shared = (run, loaded.config, rules, labelled, accept_quality_loss, progress)
        int8_of = partial(Int8Category, *shared)
    categories = [
        _category(run, split, rules, loaded.config, parity_images, int8_of)
        for split in splits
    ]
    request = BundleRequest(
        name=name,
        version=version,
        created=created or run.report["finished"],
        producer={
            "pyimgano": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": load_onnxruntime().__version__,
        },
        machine=machine_name(),
        rules=rules,
        goldens=goldens,
        share_backbone=share_backbone,
        precision=precision,
        image_licence=image_licence,
        seed=loaded.config.seed,
    )
    return write_bundle(
        output,
        request,
        categories,
        force=force,
        progress=progress,
        keep=[run.folder, *loaded.source.needed],
    )


def _refuse_in_run(folder: Path, output: Path) -> None:
    """Nothing is written into a run but what `train --export-bundle` writes there.

    Raises:
        ConfigError: the output lies in the run folder under another name.
    """
    place = Path(os.path.realpath(output))  # raises nothing, even for a ring of links
    # By identity: another spelling or a second mount is the same folder.
    for path, above in zip((place, *place.parents), place.parents, strict=False):
        with suppress(OSError):  # what does not exist is not the run
            if above.samefile(folder) and (path != place or path.name != OWN_BUNDLE):
                raise ConfigError(
                    f"{output}: lies in the run {folder}, which it would change; name "
                    f"a folder elsewhere, or {folder / OWN_BUNDLE}"
                )


def refuse_changed_data(run: Run, splits: Sequence[CategorySplit]) -> None:
    """The pictures must be those that trained: parity is measured on the others.

    Raises:
        DatasetError: pictures that trained or calibrated are gone, new or changed.
    """
    problems = []
    by_name = {split.category: split for split in splits}
    for name in run.categories:
        split = by_name.get(name)
        if split is None:
            problems.append(
                f"{name}: the manifest does not hold this category any more"
            )
            continue
        recorded = run.digests(name)
        for part, rows in (("train", split.train), ("val", split.val)):
            found = changes(recorded[part], picture_digests(rows))
            if found:
                shown = "; ".join(found[:3]) + ("; ..." if len(found) > 3 else "")
                problems.append(
                    f"{name}: {len(found)} {part} pictures changed: {shown}"
                )
    if problems:
        raise DatasetError(
            "\n".join(problems)
            + f"\n{run.folder} was trained on other data; restore it or train again"
        )


def _refuse_changed_judges(
    run: Run, splits: Sequence[CategorySplit], labelled: Labelled
) -> None:
    """The pictures that judge 8 bits must be those that judged float32.

    Raises:
        DatasetError: test rows, or labelled ones that set a threshold, are others.
    """
    problems = []
    for split in splits:
        name = split.category
        # Runs of before it was recorded are taken as they are.
        recorded = run.report["categories"][name].get("test_fingerprint")
        if recorded not in (None, test_fingerprint(split)):
            problems.append(f"{name}: the test pictures, labels or masks changed")
        found = changes(
            run.digests(name)["labelled"], picture_digests(labelled.get(name, ()))
        )
        if found:
            problems.append(f"{name}: {len(found)} labelled pictures changed")
    if problems:
        raise DatasetError(
            "\n".join(problems)
            + f"\n{run.folder} was judged on other data, which int8 is compared with; "
            "restore it or train again"
        )


def held_out_rows(split: CategorySplit) -> tuple[list[ManifestRow], str]:
    """Give the pictures that the model was not fitted on, or the train ones."""
    rows = [*split.test, *split.val]
    return (rows, "test+val") if rows else (split.train_normals(), "train")


def held_out_images(
    split: CategorySplit, rules: InputRules, count: int | None
) -> tuple[Callable[[], Iterable[tuple[str, Image]]], str]:
    """Give the (name, pixels) that measure parity, and which rows they are.

    Args:
        count: at most so many, spread evenly; None: all.
    """
    rows, which = held_out_rows(split)
    chosen = rows if count is None else _spread(rows, count)
    return partial(_named_images, chosen, rules), which


def _category(
    run: Run,
    split: CategorySplit,
    rules: InputRules,
    config: WorkbenchConfig,
    parity_images: int | None,
    int8_of: Callable[[CategorySplit, Detector], Int8Category] | None,
) -> CategoryExport:
    detector = load_trained(run, split.category)
    thresholds, calibration = run.calibration(split.category)
    held_out, which = held_out_images(split, rules, parity_images)
    return CategoryExport(
        name=split.category,
        detector=detector,
        thresholds=thresholds,
        calibration=calibration,
        held_out=held_out,
        held_out_rows=which,
        normals=partial(_images, split.train_normals(), rules),
        training=training_facts(run.report["categories"][split.category], detector),
        tiling=config.tiles,
        roi=None if config.defects is None else config.defects.roi,
        regions=None if config.defects is None else config.defects.rules,
        reference=run.reference(split.category),
        int8=None if int8_of is None else int8_of(split, detector),
    )


def _spread(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    """Give at most `count` rows, evenly spaced from the first to the last."""
    if len(rows) <= count:
        return list(rows)
    places = np.linspace(0, len(rows) - 1, count).round().astype(int)
    return [rows[place] for place in places]


def _images(rows: Sequence[ManifestRow], rules: InputRules) -> Iterable[Image]:
    return read_ahead(rows, rules)


def _named_images(
    rows: Sequence[ManifestRow], rules: InputRules
) -> Iterable[tuple[str, Image]]:
    for row, image in zip(rows, read_ahead(rows, rules), strict=True):
        yield row.image, image
