"""Compares a bundle with the run it came from: same facts, then same scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyimgano_exporters.parity import ParityMeter, measure_parity
from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.decode import decode_bytes
from pyimgano_runtime.errors import (
    ConfigError,
    DatasetError,
    ImageError,
    PyimganoError,
)
from pyimgano_runtime.infer_config import CategoryParity
from pyimgano_runtime.predictor import Image, Predictor

from ..datasets.splits import CategorySplit
from ..detectors.interface import Progress
from ..workbench.artifacts import Run
from ..workbench.config import load_config
from ..workbench.runner import load_splits
from ..workbench.trained import load_trained
from .export_run import held_out_images, refuse_changed_data
from .same_run import differences_from_run, int8_facts
from .verification import Verification


def compare_with_run(
    bundle: Bundle,
    run: Run,
    found: Verification,
    *,
    parity_images: int | None,
    progress: Progress,
) -> set[str]:
    """Judge whether a bundle is a run's, and scores like its checkpoints.

    Scored are the goldens and, where the run's data is still there and unchanged, its
    held-out pictures.

    Args:
        found: takes the findings.
        parity_images: at most so many held-out pictures a category; None: all.

    Returns:
        The categories whose held-out pictures were scored.
    """
    same = [n for n in bundle.config.categories if _is_of_run(n, run, bundle, found)]
    for name in run.categories:
        if name not in bundle.config.categories:
            found.refuse("run", f"{run.folder}: the bundle lacks its category {name}")
    splits = _splits_of(run, found) if same else {}
    compared = set()
    for name in same:
        try:
            detector = load_trained(run, name)
        except ConfigError as error:
            found.refuse("run", str(error))
            continue
        predictor = Predictor.open(bundle, category=name)
        in_int8 = int8_facts(name, bundle)
        sets: list[tuple[Iterable[tuple[str, Image]], str]] = []
        if in_int8 is None:  # else they hold the answers of the graph in 8 bits
            sets.append((_golden_images(bundle, predictor, found), "golden"))
        if name in splits:
            rules = bundle.config.input
            images, which = held_out_images(splits[name], rules, parity_images)
            sets.append((images(), which))
        for pictures, which in sets:
            progress(f"{name}: parity on {which} pictures", 0, 1)
            scored = _measure(
                *(detector, predictor, pictures, which, found),
                threshold=run.calibration(name)[0].image,
                in_int8=in_int8,
                recorded=bundle.config.parity.categories.get(name),
            )
            progress(f"{name}: parity on {which} pictures", 1, 1)
            if scored and which != "golden":
                compared.add(name)
    return compared


def _is_of_run(name: str, run: Run, bundle: Bundle, found: Verification) -> bool:
    if name not in run.categories:
        found.refuse("run", f'{run.folder}: the run has no category "{name}"')
        return False
    differences = differences_from_run(name, run, bundle)
    if differences:
        found.refuse(
            "run",
            f"{name} was exported from another run than {run.folder} "
            f"({', '.join(differences)}); name its own run, or export this one",
        )
        return False
    same = "detector, hyper-parameters, data and threshold"
    if int8_facts(name, bundle) is not None:
        same = "detector, hyper-parameters and data, a threshold of its own for int8,"
    found.ok("run", f"{name}: {same} of {run.folder}")
    return True


def _splits_of(run: Run, found: Verification) -> dict[str, CategorySplit]:
    """Give the run's splits; empty, with a warning, where its data is not there."""
    try:
        splits = load_splits(load_config(run.config_path))
        refuse_changed_data(run, splits)
    except (ConfigError, DatasetError) as error:
        reason = _one_line(error)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
    else:
        return {split.category: split for split in splits}
    found.warn("data", f"the run's pictures are not compared, goldens only: {reason}")
    return {}


def _golden_images(
    bundle: Bundle, predictor: Predictor, found: Verification
) -> list[tuple[str, Image]]:
    replayed = set()
    if found.check is not None:  # else they cannot be scored, which is said already
        replayed = {r.image for r in found.check.results if r.score is not None}
    return [
        (
            golden.image,
            decode_bytes(bundle.read(golden.image), predictor.rules, name=golden.image),
        )
        for golden in bundle.config.parity.goldens
        if golden.category == predictor.category and golden.image in replayed
    ]


def _measure(
    detector: Any,
    predictor: Predictor,
    images: Iterable[tuple[str, Image]],
    which: str,
    found: Verification,
    *,
    threshold: float,
    in_int8: dict[str, Any] | None,
    recorded: CategoryParity | None,
) -> bool:
    """Score pictures by both; give whether there were any.

    Args:
        threshold: the run's.
        in_int8: what the bundle says of a graph in 8 bits.
        recorded: what its export measured.
    """
    name = predictor.category
    try:
        meter = measure_parity(
            detector,
            predictor.engine,
            images,
            threshold=threshold,
            candidate_threshold=predictor.threshold,
            which=which,
            tiling=predictor.settings.tiling,
        )
    except DatasetError as error:
        found.warn("parity", f"{name}: {which} pictures not compared: {error}")
        return False
    except ImageError as error:
        found.disagree("parity", f"{name}: {which} pictures: {error}")
        return True
    if meter.n_images:
        if in_int8 is None:
            _judge_parity(name, meter, found)
        else:
            told = 0 if recorded is None else recorded.label_flips
            _judge_int8(name, meter, found, in_int8, told)
    return meter.n_images > 0


def _note(name: str, meter: ParityMeter, found: Verification) -> CategoryParity:
    result = meter.result()
    found.parity.append(
        {"category": name, "flipped_images": list(meter.flipped)}
        | {key: getattr(result, key) for key in result.__slots__}
    )
    return result


def _judge_parity(name: str, meter: ParityMeter, found: Verification) -> None:
    result = _note(name, meter, found)
    on = f"{name}: {meter.n_images} {meter.images} pictures"
    problems = meter.problems()
    if problems:
        found.disagree("parity", f"{on}: {'; '.join(problems)}; export the run again")
        return
    for warning in meter.warnings():
        found.warn("parity", f"{on}: {warning}")
    share = result.max_map_diff_of_range
    maps = "" if share is None else f", maps by {share:.1e} of their range"
    found.ok(
        "parity",
        f"{on}: checkpoint and bundle differ by at most {result.max_rel_score_diff:.1e}"
        f" of a score{maps}, {len(meter.flipped) or 'no'} label flips; closest score "
        "to the threshold "
        f"{result.min_threshold_distance:.3g} away",
    )


def _judge_int8(
    name: str,
    meter: ParityMeter,
    found: Verification,
    in_int8: dict[str, Any],
    told: int,
) -> None:
    """8 bits give other scores: judged are the labels, each by its own threshold.

    Args:
        told: labels that differed at export; these pictures may hold all of them.
    """
    _note(name, meter, found)
    flips, allowed = len(meter.flipped), max(meter.allowed_int8_flips, told)
    text = (
        f"{name}: {meter.n_images} {meter.images} pictures: {flips} labels of the "
        f"bundle in int8 differ from the checkpoint's ({allowed} may), scores by at "
        f"most {meter.max_rel_score_diff:.1e}"
    )
    if flips <= allowed:
        found.ok("parity", text)
    elif in_int8.get("accepted_quality_loss"):
        found.warn("parity", f"{text}; it was exported with --accept-quality-loss")
    else:
        found.disagree("parity", f"{text}: {', '.join(meter.flipped[:5])}")


def _one_line(error: PyimganoError) -> str:
    """Give a problem's words, or the first of several."""
    lines = str(error).splitlines()
    if len(lines) == 1:
        return lines[0]
    return f"{lines[0].rstrip(':')}: {lines[1].strip(' -')}; ..."
