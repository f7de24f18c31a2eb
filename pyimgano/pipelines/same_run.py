"""Whether a bundle was exported from a certain run: one rule for all who ask."""

from __future__ import annotations

import json
from typing import Any, Final

from pyimgano_runtime.bundle import Bundle

from ..workbench.artifacts import Run
from ..workbench.config import load_config

_FACTS: Final = {
    "detector": "another detector",
    "hyper_parameters": "other hyper-parameters",
    "data_fingerprint": "other data",
}


def int8_facts(category: str, bundle: Bundle) -> dict[str, Any] | None:
    """Give what a bundle says of a category in 8 bits; None: it is in float32."""
    graph = bundle.config.categories[category].graph
    if all(bundle.config.models[model].precision == "fp32" for model in graph):
        return None
    named = bundle.config.training.get("categories") or {}
    facts = (named.get(category) or {}).get("int8")
    return facts if isinstance(facts, dict) else {}


def differences_from_run(category: str, run: Run, bundle: Bundle) -> list[str]:
    """Give what tells a category of a bundle from that of a run; empty: the same.

    Compared are detector, hyper-parameters, fingerprint of the data, tiling, ROI, rules
    of regions and the
    image threshold: of a bundle in 8 bits the one that it says the run had. The
    category stands in both.
    """
    trained = run.report["categories"][category]
    named = bundle.config.training.get("categories") or {}
    exported = named.get(category) or {}
    # Through JSON: a tuple in a run is a list in a bundle.
    found = [
        words
        for key, words in _FACTS.items()
        if json.dumps(trained.get(key)) != json.dumps(exported.get(key))
    ]
    thresholds, _ = run.calibration(category)
    deployed = bundle.config.categories[category]
    config = load_config(run.config_path).config
    if config.tiles != deployed.tiling:
        found.append("other tiles")
    defects = config.defects
    if (None if defects is None else defects.roi) != deployed.roi:
        found.append("another ROI")
    rules = None if defects is None else defects.rules(deployed.thresholds)
    if rules != deployed.regions:
        found.append("other rules of regions")
    in_int8 = int8_facts(category, bundle)
    told: Any = deployed.thresholds.image
    if in_int8 is not None:
        told = in_int8.get("image_threshold_fp32")
    if thresholds.image != told:
        found.append("another image threshold")
    return found
