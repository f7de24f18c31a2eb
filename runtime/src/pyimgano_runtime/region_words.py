"""What regions a category reports, in one sentence for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .region_rules import RegionRules

if TYPE_CHECKING:
    from .infer_config import CategorySettings

_FOLLOWS: Final = {
    "image_threshold": "the label follows the score alone",
    "any_region": "one region makes the label anomaly, whatever the score",
    "both": "the label is anomaly where the score and a region say so",
}
_DEFAULTS: Final = RegionRules()


def region_sentence(settings: CategorySettings) -> str:
    """Give the sentence; empty where no regions are looked for."""
    rules, roi = settings.regions, settings.roi
    if rules is None:
        return ""
    text = _FOLLOWS[rules.policy]
    changed = [
        f"{name} {getattr(rules, name)}"
        for name in rules.__slots__
        if name != "policy" and getattr(rules, name) != getattr(_DEFAULTS, name)
    ]
    if settings.thresholds.pixel is not None:
        text += f"; map values from {settings.thresholds.pixel:.6g} on"
    if changed:
        text += "; " + ", ".join(changed)
    if roi is not None:
        shape = "rectangle" if roi.rectangle is not None else "polygon"
        text += f"; inside of a {shape} only"
    return text
