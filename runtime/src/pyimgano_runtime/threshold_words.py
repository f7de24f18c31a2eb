"""Where a threshold comes from, in one sentence: the same on every screen and card."""

from __future__ import annotations

from .infer_config import RateBounds, ThresholdProvenance


def describe_threshold(provenance: ThresholdProvenance) -> str:
    """Give method, pictures, promise, what was counted, who set it and when.

    A rate is promised only where the method promises one.
    """
    where = _method(provenance)
    if provenance.n_images:
        pictures = (
            "labelled pictures"
            if provenance.method == "best_f1"
            else "held-out normals"
        )
        where += (
            f" on {provenance.n_images} {pictures} in {provenance.n_groups} groups "
            f"({provenance.source})"
        )
    parts = [where, promise_of(provenance)]
    if provenance.bounds is not None:
        parts.append(_counted(provenance.bounds))
    parts.append(f"set by {provenance.set_by}, {provenance.set_at}")
    parts += provenance.warnings
    return "; ".join(parts)


def _method(provenance: ThresholdProvenance) -> str:
    """Give the method with the number that it was given, and what was counted."""
    facts = provenance.parameters
    text = provenance.method
    number = facts.get("contamination", facts.get("quantile"))
    if isinstance(number, (int, float)):
        text += f" {number:g}"
    if isinstance(facts.get("f1"), (int, float)):
        text += f" ({facts['f1']:.3f})"
    pixels = facts.get("statistic") == "pixels of normal maps"
    return f"{text} of all pixels" if pixels else text


def promise_of(provenance: ThresholdProvenance) -> str:
    """Give `promises about 1.00% false alarms (asked: 1.00%)`, or that it does not."""
    used = provenance.used_false_alarm_rate
    if used is None:
        return "promises no false-alarm rate"
    about = "about" if provenance.approximate else "at most"
    text = f"promises {about} {used:.2%} false alarms"
    asked = provenance.requested_false_alarm_rate
    return text if asked is None else f"{text} (asked: {asked:.2%})"


def _counted(bounds: RateBounds) -> str:
    low, high = bounds.by_images
    text = (
        f"{bounds.images_above} of {bounds.n_images} normals reach it "
        f"({bounds.confidence:.0%} bounds {low:.2%} to {high:.2%}"
    )
    if bounds.n_groups != bounds.n_images:
        low, high = bounds.by_groups
        text += f"; by groups {low:.2%} to {high:.2%}"
    return text + ")"
