"""What changed between two releases: facts side by side, and scores on the goldens.

The pictures are the goldens of both bundles, each once; both bundles score them here,
so that a difference is one of the models and not of two machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.check import difference_of_range, relative_difference
from pyimgano_runtime.decode import decode_bytes
from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.infer_config import Golden, ThresholdProvenance
from pyimgano_runtime.predictor import Prediction, Predictor

from ..detectors.interface import Progress

DIFF_SCHEMA_VERSION: Final = "1.0"


def diff_bundles(a: Bundle, b: Bundle, *, progress: Progress) -> dict[str, Any]:
    """Give the differences of two bundles as a JSON object.

    `facts` are rows {what, a, b, changed, relative_change}; those that are equal stand
    there too.

    Raises:
        BundleError: a file of one is missing or was changed, or a model is refused.
    """
    a.verify_files()
    b.verify_files()
    names = list(dict.fromkeys((*a.config.categories, *b.config.categories)))
    categories = {}
    for done, name in enumerate(names, start=1):
        progress("compare", done - 1, len(names))
        categories[name] = _category(name, a, b)
        progress("compare", done, len(names))
    facts = _rows(_release(a), _release(b))
    return {
        "schema_version": DIFF_SCHEMA_VERSION,
        "verdict": _verdict(a, b, facts, categories),
        "a": _identity(a),
        "b": _identity(b),
        "facts": facts,
        "categories": categories,
    }


def _identity(bundle: Bundle) -> dict[str, Any]:
    info = bundle.config.bundle
    return {
        "path": str(bundle.root),
        "name": info.name,
        "version": info.version,
        "created": info.created,
        "sha256": bundle.sha256,
    }


def _release(bundle: Bundle) -> dict[str, Any]:
    """Give what belongs to the bundle as a whole."""
    config = bundle.config
    info = config.bundle
    facts: dict[str, Any] = {
        "name": info.name,
        "version": info.version,
        "created": info.created,
    }
    facts |= {f"made with.{name}": v for name, v in info.producer.items()}
    facts |= {f"input rules.{k}": _plain(v) for k, v in asdict(config.input).items()}
    facts["goldens"] = len(config.parity.goldens)
    return facts


def _category(name: str, a: Bundle, b: Bundle) -> dict[str, Any]:
    in_a, in_b = (name in bundle.config.categories for bundle in (a, b))
    if not (in_a and in_b):
        status = "removed" if in_a else "added"
        facts = _rows(
            _category_facts(name, a) if in_a else {},
            _category_facts(name, b) if in_b else {},
        )
        return {"status": status, "facts": facts, "goldens": [], "label_flips": []}
    goldens = list(_golden_scores(name, a, b))
    return {
        "status": "common",
        "facts": _rows(_category_facts(name, a), _category_facts(name, b)),
        "goldens": goldens,
        "label_flips": [row["image"] for row in goldens if row["flips"]],
    }


def _category_facts(name: str, bundle: Bundle) -> dict[str, Any]:
    """Give everything that is said of a category, under names a person knows."""
    config = bundle.config
    settings = config.categories[name]
    training = _mapping(_mapping(config.training.get("categories")).get(name))
    facts: dict[str, Any] = {"detector": training.get("detector")}
    for block in ("hyper_parameters", "backbone", "counts"):
        for key, value in _mapping(training.get(block)).items():
            facts[f"{block}.{key}"] = value
    facts["data_fingerprint"] = training.get("data_fingerprint")
    files = {entry.path: entry for entry in config.files}
    for step, model in enumerate(settings.graph):
        spec = config.models[model]
        place = "model" if len(settings.graph) == 1 else f"model {step + 1}"
        facts[f"{place}.sha256"] = files[spec.file].sha256
        facts[f"{place}.size"] = files[spec.file].size
        facts[f"{place}.precision"] = spec.precision
        facts[f"{place}.opset"] = spec.opset
    geometry = settings.map_geometry
    facts["map_geometry"] = None if geometry is None else _plain(asdict(geometry))
    tiling = settings.tiling
    roi, regions = settings.roi, settings.regions
    facts["roi"] = None if roi is None else _plain(asdict(roi))
    for key, value in ({} if regions is None else asdict(regions)).items():
        facts[f"regions.{key}"] = value
    facts["tiling"] = None if tiling is None else _plain(tiling.to_dict())
    for kind, provenance in settings.thresholds.provenance.items():
        facts[f"threshold.{kind}"] = getattr(settings.thresholds, kind)
        facts |= _provenance(f"provenance.{kind}", provenance)
    facts["calibration.n_images"] = settings.calibration.n_images
    facts["calibration.highest_score"] = max(
        settings.calibration.image_scores, default=None
    )
    if settings.reference is not None:
        for key in ("brightness", "sharpness"):
            facts[f"reference.{key}.mean"] = getattr(settings.reference, key).mean
    for key, value in _mapping(training.get("metrics")).items():
        if key != "reasons":
            facts[f"metrics.{key}"] = value
    parity = config.parity.categories.get(name)
    if parity is not None:
        facts |= {f"parity.{key}": value for key, value in asdict(parity).items()}
    return facts


def _provenance(place: str, provenance: ThresholdProvenance) -> dict[str, Any]:
    keys = (
        "method", "source", "approximate", "requested_false_alarm_rate",
        "used_false_alarm_rate", "n_images", "n_groups", "fingerprint", "set_by",
        "set_at",
    )  # fmt: skip
    return {f"{place}.{key}": getattr(provenance, key) for key in keys}


def _rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give one row a fact: equal ones too."""
    names = list(dict.fromkeys((*a, *b)))
    blocks = list(dict.fromkeys(map(_block, names)))
    # What only B has stands beside the others of its block.
    names.sort(key=lambda name: blocks.index(_block(name)))
    return [
        {
            "what": name,
            "a": a.get(name),
            "b": b.get(name),
            "changed": a.get(name) != b.get(name),
            "relative_change": _relative_change(a.get(name), b.get(name)),
        }
        for name in names
    ]


def _block(name: str) -> str:
    """Give the first word of a dotted name."""
    return name.partition(".")[0]


def _relative_change(old: Any, new: Any) -> float | None:
    """(new - old) / |old| of two numbers; None where that says nothing."""
    both = all(
        isinstance(value, (int, float)) and not isinstance(value, bool)
        for value in (old, new)
    )
    if not both or old == new or old == 0:
        return None
    return float((new - old) / abs(old))


def _plain(value: Any) -> Any:
    """A tuple becomes a list, as in JSON."""
    return list(value) if isinstance(value, tuple) else value


def _mapping(value: Any) -> dict[str, Any]:
    """Give an object of the free part of a document; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class _Picture:
    """A golden of one or both bundles."""

    golden: Golden
    home: Bundle
    side: str  # "a", "b" or "both"


def _golden_scores(name: str, a: Bundle, b: Bundle) -> Iterator[dict[str, Any]]:
    predictors = [Predictor.open(bundle, category=name) for bundle in (a, b)]
    for picture in _pictures(name, a, b):
        data = picture.home.read(picture.golden.image)
        found = [_predict(p, data, picture.golden.image) for p in predictors]
        yield _golden_row(picture, *found)


def _pictures(name: str, a: Bundle, b: Bundle) -> list[_Picture]:
    """Give the goldens of both, each once by its pixels."""
    pictures: dict[str, _Picture] = {}
    for side, bundle in (("a", a), ("b", b)):
        for golden in bundle.config.parity.goldens:
            if golden.category != name:
                continue
            known = pictures.get(golden.pixels_sha256)
            if known is None:
                made = _Picture(golden, bundle, side)
            elif known.side == side:
                continue
            else:
                made = _Picture(known.golden, known.home, "both")
            pictures[golden.pixels_sha256] = made
    return list(pictures.values())


def _predict(predictor: Predictor, data: bytes, name: str) -> Prediction | str:
    """Judge a picture by a bundle's own rules, or say why it refuses it."""
    try:
        return predictor.predict(decode_bytes(data, predictor.rules, name=name))
    except ImageError as error:
        return str(error)


def _golden_row(
    picture: _Picture, a: Prediction | str, b: Prediction | str
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "image": picture.golden.image,
        "in": picture.side,
        "pixels_sha256": picture.golden.pixels_sha256,
        "relative_difference": None,
        "map_difference_of_range": None,
        "flips": False,
    }
    for side, found in (("a", a), ("b", b)):
        row[f"score_{side}"] = None if isinstance(found, str) else found.score
        row[f"label_{side}"] = None if isinstance(found, str) else found.label
        row[f"error_{side}"] = found if isinstance(found, str) else None
    if isinstance(a, str) or isinstance(b, str):
        return row
    row["relative_difference"] = relative_difference(b.score, a.score)
    row["flips"] = a.label != b.label
    maps = (a.anomaly_map, b.anomaly_map)
    if maps[0] is not None and maps[1] is not None and maps[0].shape == maps[1].shape:
        row["map_difference_of_range"] = difference_of_range(maps[1], maps[0])
    return row


def _verdict(
    a: Bundle,
    b: Bundle,
    facts: list[dict[str, Any]],
    categories: Mapping[str, dict[str, Any]],
) -> str:
    """Say in words what kind of change this is."""
    if a.sha256 == b.sha256:
        return "identical: same infer_config.json"
    phrases = {
        name: _phrase(category)
        for name, category in categories.items()
        if category["status"] == "common"
    }
    several = len(set(phrases.values())) > 1
    parts = [f"{n}: {text}" for n, text in phrases.items()] if several else []
    parts = parts or list(dict.fromkeys(phrases.values()))
    for status in ("added", "removed"):
        names = [n for n, c in categories.items() if c["status"] == status]
        if names:
            parts.append(f"{status}: {', '.join(names)}")
    rules = [row for row in facts if row["what"].startswith("input rules.")]
    if any(row["changed"] for row in rules):
        parts.append("other input rules")
    return "; ".join(parts)


def _phrase(category: Mapping[str, Any]) -> str:
    changed = {row["what"] for row in category["facts"] if row["changed"]}
    rows = {row["what"]: row for row in category["facts"]}
    text = "same model"
    if any(what.startswith("model") and what.endswith("sha256") for what in changed):
        text = _other_model(changed, rows)
    values = {"threshold.image", "threshold.pixel"} & changed
    text += ", other thresholds" if values else ", same thresholds"
    flips, goldens = len(category["label_flips"]), len(category["goldens"])
    if flips:
        text += f", {flips} of {goldens} goldens get another label"
    return text


def _other_model(changed: set[str], rows: Mapping[str, Any]) -> str:
    detector = rows["detector"]
    if "detector" in changed:
        return f"other model (detector {detector['a']} -> {detector['b']})"
    reasons = [
        words
        for words, prefix in (
            ("hyper-parameters", "hyper_parameters."),
            ("backbone", "backbone."),
            ("data", "data_fingerprint"),
            ("precision", "model.precision"),
        )
        if any(what.startswith(prefix) for what in changed)
    ]
    if reasons:
        return f"other model (other {', '.join(reasons)})"
    return "other model (same detector, hyper-parameters and data)"
