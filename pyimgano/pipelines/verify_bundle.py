"""Judges a bundle before its release: every finding at once, each one line.

Document, files, signature, graph, goldens; with a run also parity: the trained
checkpoint and the bundle score the same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyimgano_exporters.graph_checks import check_exported
from pyimgano_exporters.parity import TOLERANCES, allowed_int8_flips, may_be_ties
from pyimgano_runtime.bundle import Bundle, open_bundle
from pyimgano_runtime.check import GoldenResult, check_bundle
from pyimgano_runtime.errors import BundleError, ExportError, ParityError
from pyimgano_runtime.infer_config import FILE_NAME, CategoryParity
from pyimgano_runtime.int8_words import int8_sentence

from ..detectors.interface import Progress
from ..signing import check_signature
from ..workbench.artifacts import Run
from .run_parity import compare_with_run
from .same_run import int8_facts
from .verification import Verification

PARITY_IMAGES: Final = 50  # a second look; the export compared 200


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """What is asked about a bundle."""

    run: Run | None = None  # whose checkpoints the bundle must score like
    parity_images: int | None = PARITY_IMAGES  # None: all
    expect_sha256: str | None = None  # lower-case hex
    signature: Path | None = None
    public_key: Path | None = None  # goes with `signature`


def verify_bundle(
    folder: Path, request: VerifyRequest, *, progress: Progress
) -> Verification:
    """Give the judgement about a bundle folder.

    Raises:
        ConfigError: the public key, or model-signing itself, cannot be used.
    """
    run = None if request.run is None else str(request.run.folder)
    found = Verification(str(folder.absolute()), run)
    try:
        bundle = open_bundle(folder)
    except BundleError as error:
        found.refuse("document", str(error))
        return found
    found.bundle, found.sha256 = str(bundle.root), bundle.sha256
    info = bundle.config.bundle
    found.ok(
        "document",
        f"{info.name} {info.version}, schema {bundle.config.schema_version}, "
        f"categories: {', '.join(bundle.config.categories)}",
    )
    _expected_sha256(bundle, request, found)
    _files(bundle, found)
    _signature(bundle, request, found)
    _recorded(bundle, found)
    failed = {finding.what for finding in found.failed}
    foreign = [what for what in ("sha256", "signature") if what in failed]
    if foreign:
        found.warn(
            "scores",
            "graphs, goldens and parity were not run: the "
            f"{' and the '.join(foreign)} was refused, so the bundle is from elsewhere",
        )
    elif "file" not in failed and _graphs(bundle, found, progress):
        _scores(bundle, request, found, progress)
    else:
        found.warn("scores", "not compared: what is refused above was never run")
    return found


def file_problems(bundle: Bundle) -> list[str]:
    """Give what is wrong with a bundle's files: changed, missing or not listed."""
    problems = []
    for entry in bundle.config.files:
        try:
            bundle.read(entry.path)
        except BundleError as error:
            problems.append(str(error))
    problems += [
        f"{bundle.root / path}: is not in the list of files; remove it"
        for path in bundle.unlisted_files()
    ]
    return problems


def _expected_sha256(
    bundle: Bundle, request: VerifyRequest, found: Verification
) -> None:
    wanted = request.expect_sha256
    if wanted is None:
        return
    if wanted == bundle.sha256:
        found.ok("sha256", "infer_config.json is the expected one")
    else:
        found.refuse(
            "sha256",
            f"infer_config.json has {bundle.sha256}, expected {wanted}; this is "
            "another release, or it was changed",
        )


def _files(bundle: Bundle, found: Verification) -> None:
    problems = file_problems(bundle)
    for problem in problems:
        found.refuse("file", problem)
    if not problems:
        size = sum(entry.size for entry in bundle.config.files) / 1e6
        found.ok(
            "files",
            f"{len(bundle.config.files)} files, {size:.1f} MB: size and sha256 as "
            "listed, no other file in the folder",
        )


def _signature(bundle: Bundle, request: VerifyRequest, found: Verification) -> None:
    if request.signature is None or request.public_key is None:
        return
    read = {entry.path: entry.sha256 for entry in bundle.config.files}
    read[FILE_NAME] = bundle.sha256
    try:
        text = check_signature(bundle.root, read, request.signature, request.public_key)
    except BundleError as error:
        found.refuse("signature", str(error))
    else:
        found.ok("signature", text)


def _recorded(bundle: Bundle, found: Verification) -> None:
    """Judge what the document says of itself: tolerances, parity, calibration."""
    config = bundle.config
    precise = all(m.precision == "fp32" for m in config.models.values())
    for name in ("score_rel", "map_of_range"):
        told = config.parity.tolerances[name]
        if precise and told > TOLERANCES[name]:
            found.refuse(
                "tolerances",
                f"parity.tolerances.{name} is {told:g}, expected at most "
                f"{TOLERANCES[name]:g}; export the bundle again",
            )
    for name, category in config.categories.items():
        parity = config.parity.categories.get(name)
        if parity is None or not parity.n_images:
            found.warn("recorded", f"{name}: the export compared no picture with torch")
        else:
            _recorded_flips(name, parity, bundle, found)
        codes = [c for p in category.thresholds.provenance.values() for c in p.warnings]
        for code in dict.fromkeys(codes):
            found.warn("threshold", f"{name}: {_in_words(code, name, bundle)}")


def _recorded_flips(
    name: str, parity: CategoryParity, bundle: Bundle, found: Verification
) -> None:
    facts = int8_facts(name, bundle)
    thresholds = bundle.config.categories[name].thresholds
    allowed = 0 if facts is None else allowed_int8_flips(parity.n_images)
    if facts is not None and facts.get("accepted_quality_loss"):
        found.warn(
            "recorded",
            f"{name}: exported with --accept-quality-loss: "
            + int8_sentence(bundle.config.training["categories"][name], parity),
        )
    elif facts is None and parity.label_flips and may_be_ties(parity, thresholds.image):
        found.warn(
            "recorded",
            f"{name}: parity.label_flips is {parity.label_flips}: a score lies "
            f"{parity.min_threshold_distance:.1e} from the threshold, where rounding "
            "decides between the labels of torch and onnxruntime",
        )
    elif parity.label_flips > allowed:
        found.refuse(
            "recorded",
            f"{name}: parity.label_flips is {parity.label_flips}, expected "
            f"{f'at most {allowed}' if allowed else 0}; export the bundle again",
        )


def _in_words(code: str, category: str, bundle: Bundle) -> str:
    """Give the sentence that training wrote under a code; the code if it wrote none."""
    categories = bundle.config.training.get("categories") or {}
    sentences = categories.get(category, {}).get("warnings")
    for sentence in sentences if isinstance(sentences, list) else []:
        if str(sentence).startswith(f"{code}:"):
            return str(sentence)
    return code


def _graphs(bundle: Bundle, found: Verification, progress: Progress) -> bool:
    """Check every model; give whether all may be run."""
    models = bundle.config.models
    good = True
    for done, (name, spec) in enumerate(models.items(), start=1):
        try:
            check_exported(bundle.read(spec.file), spec, spec.file)
        except ExportError as error:
            found.refuse("graph", f"{error}; export the bundle again")
            good = False
        else:
            found.ok(
                "graph",
                f"{spec.file}: operators, onnx checker, four shapes; "
                f"opset {spec.opset}, {spec.precision}",
            )
        progress(f"{name}: graph checks", done, len(models))
    return good


def _scores(
    bundle: Bundle, request: VerifyRequest, found: Verification, progress: Progress
) -> None:
    """Replay the goldens, then compare with the run where one is given."""
    try:
        found.check = check_bundle(bundle)
    except ParityError as error:
        found.disagree("goldens", str(error))
    except BundleError as error:
        found.refuse("goldens", str(error))
        return
    results = () if found.check is None else found.check.results
    proven = {
        name
        for name in bundle.config.categories
        if _judge_goldens(name, [r for r in results if r.category == name], found)
    }
    compared: set[str] = set()
    if request.run is not None:
        compared = compare_with_run(
            bundle,
            request.run,
            found,
            parity_images=request.parity_images,
            progress=progress,
        )
    if found.check is not None:
        _unproven(set(bundle.config.categories) - proven, compared, found)


def _judge_goldens(
    name: str, results: Sequence[GoldenResult], found: Verification
) -> bool:
    """Note how a category's goldens came out; give whether any could be judged."""
    agreed = [r for r in results if r.agrees]
    for result in results:
        if result.agrees is False:
            found.disagree("goldens", f"{name}: {_disagreement(result)}")
        elif result.agrees is None:
            found.warn(
                "goldens",
                f"{name}: {result.image} could not be judged: its decoder is "
                f'"{result.decoder}" here',
            )
    if agreed:
        engine = "" if found.check is None else found.check.engine
        score = max(r.score_rel_diff or 0.0 for r in agreed)
        maps = [r.map_diff_of_range for r in agreed if r.map_diff_of_range is not None]
        found.ok(
            "goldens",
            f"{name}: {len(agreed)} of {len(results)} agree in {engine}, scores differ "
            f"by at most {score:.1e}"
            + (f", maps by {max(maps):.1e} of their range" if maps else ""),
        )
    return any(r.agrees is not None for r in results)


def _unproven(names: set[str], compared: set[str], found: Verification) -> None:
    """A release needs some proof: goldens, or the run's own pictures."""
    for name in sorted(names):
        if name in compared:
            found.warn(
                "goldens",
                f"{name}: none could be judged: no device can prove this model",
            )
        else:
            found.refuse(
                "goldens",
                f"{name}: none could be judged and no held-out pictures of a run were "
                "compared, so nothing is proven; name a run (--run) whose pictures are "
                "still there, or export again with --goldens synthetic",
            )


def _disagreement(result: GoldenResult) -> str:
    assert result.score is not None
    text = (
        f"{result.image} scores {result.score:.6g}, expected "
        f"{result.expected_score:.6g} (relative difference {result.score_rel_diff:.1e}"
    )
    if result.map_diff_of_range is not None:
        text += f", map difference {result.map_diff_of_range:.1e} of its range"
    return text + (")" if result.label_same else ", the label flips)")
