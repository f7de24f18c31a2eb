"""What a graph in 8 bits costs, in one sentence for people."""

from __future__ import annotations

from typing import Any

from .infer_config import CategoryParity


def int8_sentence(training: dict[str, Any], parity: CategoryParity | None) -> str:
    """Give the sentence; empty where the category computes in float32.

    Args:
        training: what `infer_config.json` says of the category's training.
    """
    facts = training.get("int8")
    if not isinstance(facts, dict):
        return ""
    metrics = training.get("metrics")
    after = metrics.get("image_auroc") if isinstance(metrics, dict) else None
    text = f"image AUROC {_number(after)}, {_number(facts.get('image_auroc_fp32'))} in "
    text += "float32"
    if parity is not None:
        text += (
            f"; {parity.label_flips} labels of {parity.n_images} {parity.images} "
            f"pictures differ from float32 ({facts.get('label_flips_allowed')} may)"
        )
    text += (
        f"; ranges from {facts.get('range_images')} {facts.get('ranges_from')} normals"
    )
    if facts.get("accepted_quality_loss"):
        text += "; exported with --accept-quality-loss"
    return text


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else "not measured"
