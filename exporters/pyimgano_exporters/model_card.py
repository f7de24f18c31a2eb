"""MODEL_CARD.md: what a person must know before trusting a bundle."""

from __future__ import annotations

from typing import Any, Final

from pyimgano_runtime.infer_config import InferConfig
from pyimgano_runtime.int8_words import int8_sentence
from pyimgano_runtime.region_words import region_sentence
from pyimgano_runtime.threshold_words import describe_threshold
from pyimgano_runtime.tiling import Tiling

_APPROXIMATE: Final = "; about, since the folds' models are not the final one"


def model_card(config: InferConfig) -> str:
    """Give the model card of a bundle as Markdown."""
    lines = [
        f"# {config.bundle.name} {config.bundle.version}",
        "",
        f"Made {config.bundle.created} with "
        + ", ".join(f"{k} {v}" for k, v in config.bundle.producer.items())
        + ".",
        "",
        "Scores are raw: higher means more anomalous, there is no upper bound.",
        "Run it with `pyimgano-runtime infer --bundle . PICTURES` (`--category NAME` "
        "where there are several), prove it on a device with "
        "`pyimgano-runtime check .`.",
    ]
    for name in config.categories:
        lines += ["", f"## {name}", "", *_category_lines(config, name)]
    lines += ["", "## Goldens", "", _goldens_line(config)]
    return "\n".join(lines) + "\n"


def _joined_by(tiling: Tiling) -> str:
    if tiling.score != "top_k":
        return tiling.score
    return f"mean of the highest {tiling.top_k}"


def _category_lines(config: InferConfig, name: str) -> list[str]:
    category = config.categories[name]
    training = config.training["categories"][name]
    parity = config.parity.categories[name]
    lines = [f"- Detector: `{training['detector']}`"]
    weights = training.get("backbone")
    if weights:
        lines.append(
            f"- Backbone weights: {weights['source']}, licence {weights['licence']}, "
            f"sha256 `{weights['sha256']}`"
        )
    *before, head = category.graph
    for model in before:
        users = sum(model in c.graph for c in config.categories.values())
        lines.append(
            f"- Backbone: `{config.models[model].file}`, shared by {users} categories; "
            f"this one's head: `{config.models[head].file}`"
        )
    counts = training["counts"]
    lines.append(
        f"- Trained on {counts['train_normals']} normal images; tested on "
        f"{counts['test_normals']} normal and {counts['test_anomalies']} anomalous"
    )
    learned = training.get("learned_from")
    if learned:
        lines.append(f"- Learned from {learned['in_words']}")
    tiling = category.tiling
    if tiling is not None:
        height, width = tiling.size
        lines.append(
            f"- Pictures are cut into tiles of {height} x {width} pixels that share at "
            f"least {tiling.overlap:.0%} of a side; a picture's score is the "
            f"{_joined_by(tiling)} of its tiles' scores"
        )
    lines.append(f"- Data fingerprint: `{training['data_fingerprint']}`")
    for kind, provenance in category.thresholds.provenance.items():
        value = getattr(category.thresholds, kind)
        sentence = describe_threshold(provenance)
        lines.append(
            f"- {kind.capitalize()} threshold {value:.6g}: "
            f"{sentence}" + (_APPROXIMATE if "promises about" in sentence else "")
        )
    for warning in training.get("warnings", []):
        lines.append(f"- Warning: {warning}")
    lines.append(
        f"- Parity with torch on {parity.n_images} {parity.images} images: largest "
        f"relative score difference {parity.max_rel_score_diff:.1e}, "
        f"{parity.label_flips} label flips, closest score to the threshold "
        f"{parity.min_threshold_distance:.3g} away"
    )
    regions = region_sentence(category)
    if regions:
        lines.append(f"- Defect regions: {regions}")
    in_int8 = int8_sentence(training, parity)
    if in_int8:
        lines.append(f"- Convolutions in 8 bits: {in_int8}")
    lines += [
        "",
        "| metric on the test images | value | 95 % interval |",
        "|---|---|---|",
    ]
    metrics = training["metrics"]
    for key, value in metrics.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low_high = metrics.get(f"{key}_ci95")
            interval = f"{low_high[0]:.3f} to {low_high[1]:.3f}" if low_high else ""
            lines.append(f"| {key} | {value:.4f} | {interval} |")
    for key, reason in metrics.get("reasons", {}).items():
        lines.append(f"| {key} | not measured | {reason} |")
    return lines


def _goldens_line(config: InferConfig) -> str:
    goldens = config.parity.goldens
    if not goldens:
        return "None: `check` cannot prove this model on a device."
    kinds = {golden.kind for golden in goldens}
    licence: Any = config.training.get("image_licence")
    if kinds == {"synthetic"}:
        derived = f" Licence of the training pictures: {licence}." if licence else ""
        return (
            f"{len(goldens)} synthetic pictures, drawn from per-pixel statistics of "
            "the training normals (from noise alone where there were fewer than 20): "
            "no photograph is in this bundle." + derived
        )
    listed = ", ".join(f"`{golden.image}`" for golden in goldens)
    return (
        f"{len(goldens)} real photographs travel with this bundle ({listed}). "
        f"Licence of the photographs: {licence}."
    )
