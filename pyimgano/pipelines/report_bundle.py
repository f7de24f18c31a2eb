"""Gathers what a report tells of a bundle: what the bundle itself holds, no more."""

from __future__ import annotations

from typing import Final

from pyimgano_runtime.binomial_bounds import CONFIDENCE, clopper_pearson
from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.infer_config import RateBounds
from pyimgano_runtime.int8_words import int8_sentence
from pyimgano_runtime.region_words import region_sentence

from ..reporting.model_facts import bundle_facts, graph_facts, model_facts
from ..reporting.report_facts import (
    Counted,
    Gallery,
    Report,
    ReportCategory,
    mapping_of,
)
from ..reporting.report_gallery import golden_gallery

SPEED: Final = (
    "Times are not in a bundle: they are those of a device. pyimgano benchmark "
    "measures them on this machine."
)


def report_of_bundle(bundle: Bundle, *, with_pictures: bool) -> Report:
    """Give what there is to say of a bundle; no model is run.

    Raises:
        BundleError: a golden was changed, or cannot be read.
    """
    config = bundle.config
    return Report(
        kind="bundle",
        name=f"{config.bundle.name} {config.bundle.version}",
        finished=config.bundle.created,
        categories=tuple(
            _category(bundle, name, with_pictures) for name in config.categories
        ),
        facts=bundle_facts(bundle),
        speed=SPEED,
        exported="Compared at the export: "
        f"{config.parity.reference} (trained) and {config.parity.candidate} (exported) "
        f"on {config.parity.machine}.",
    )


def _category(bundle: Bundle, name: str, with_pictures: bool) -> ReportCategory:
    config = bundle.config
    settings = config.categories[name]
    training = mapping_of(mapping_of(config.training, "categories"), name)
    metrics = mapping_of(training, "metrics")
    counted = Counted.of_rates(mapping_of(training, "counts"), metrics)
    parity = config.parity.categories.get(name)
    return ReportCategory(
        name=name,
        settings=settings,
        training=training,
        metrics=metrics,
        counted=counted,
        achieved=_bounds(counted),
        parity=parity,
        in_int8=int8_sentence(dict(training), parity),
        gallery=golden_gallery(bundle, name)
        if with_pictures
        else Gallery(note="Pictures were left out on request."),
        model_facts=(
            *model_facts(training, settings.tiling, region_sentence(settings)),
            *graph_facts(config, name),
        ),
    )


def _bounds(counted: Counted) -> RateBounds | None:
    """Give the bounds of the false-alarm rate; which parts there were is not kept."""
    if not counted.good:
        return None
    bounds = clopper_pearson(counted.alarms, counted.good)
    facts = (counted.good, counted.alarms, bounds)
    return RateBounds(CONFIDENCE, *facts, *facts)
