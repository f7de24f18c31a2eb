"""The report of a run or a bundle: one file, without script, network or fonts."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np

from pyimgano_runtime._version import __version__

from .chart_parts import Style
from .charts import (
    Scored,
    histogram,
    histogram_rows,
    operating_points,
    pr_chart,
    roc_chart,
)
from .heat_scale import HeatScale
from .html_page import render
from .overview_facts import difference, percent, score_text
from .report_facts import Card, Report, ReportCategory, number_of
from .report_words import (
    GLOSSARY,
    MANY,
    data_rows,
    headline,
    kind_rows,
    not_measured,
    number_rows,
    parity_words,
    speed_rows,
    threshold_rows,
)
from .threshold_story import (
    achieved_sentence,
    label_rule,
    origin_words,
    promise_sentence,
)

TEMPLATE: Final = "report.html.j2"
LOOK: Final = Style("c6", "", "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z")


def is_page(head: bytes) -> bool:
    """Whether a file that begins so is a report."""
    return head.startswith(b"<!DOCTYPE html>") and b"<title>Report of" in head


def report_html(report: Report) -> str:
    """Give the whole page."""
    shown = [_category(c, f"c{n}") for n, c in enumerate(report.categories, start=1)]
    facts = {
        "report": report,
        "headline": headline(report.counted),
        "finished": report.finished.replace("T", " ").replace("Z", " UTC"),
        "tiles": _tiles(report),
        "categories": shown,
        "facts": report.facts,
        "glossary": GLOSSARY,
        "n_pictures": len(report.uris),
        "picture_mb": f"{sum(map(len, report.uris)) / 1e6:.1f}",
        "n_photographs": report.n_photographs,
        "version": __version__,
    }
    return render(TEMPLATE, facts)


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """(what, number, explanation) of the figures at the top."""
    counted, categories = report.counted, report.categories
    promised = [c.promised for c in categories if c.promised is not None]
    tiles = [
        (
            "Defects found",
            f"{counted.found} of {counted.defective}" if counted.defective else "-",
            "of the defective test pictures"
            if counted.defective
            else "no defective picture was tested",
        ),
        (
            "False alarms",
            f"{counted.alarms} of {counted.good}" if counted.good else "-",
            f"of the good test pictures; promised: about {percent(max(promised), 2)}"
            if promised
            else "of the good test pictures; nothing was promised",
        ),
    ]
    parities = [c.parity for c in categories if c.parity is not None]
    if parities:
        total = sum(parity.n_images for parity in parities)
        flips = sum(parity.label_flips for parity in parities)
        largest = max(parity.max_rel_score_diff for parity in parities)
        tiles.append(
            (
                "Same verdict after export",
                f"{total - flips} of {total}",
                f"largest score difference: {difference(largest)}",
            )
        )
    times = [
        time
        for category in categories
        if isinstance(latency := category.metrics.get("latency_ms"), dict)
        and (time := number_of(latency, "p50")) is not None
    ]
    if times:
        tiles.append(
            (
                "Time per picture",
                f"{max(times):.0f} ms",
                "half take less, before export",
            )
        )
    return tiles


def _category(category: ReportCategory, anchor: str) -> dict[str, Any]:
    origin = category.settings.thresholds.provenance["image"]
    pixel = category.settings.thresholds.provenance.get("pixel")
    rules = category.settings.regions
    by_regions = rules is not None and rules.policy == "any_region"
    promising = pixel if by_regions and pixel is not None else origin
    warnings = category.training.get("warnings")
    return {
        "name": category.name,
        "anchor": anchor,
        "headline": headline(category.counted),
        "counted": category.counted,
        "detector": category.training.get("detector", "a detector"),
        "data": data_rows(category),
        "kinds": kind_rows(category),
        "thresholds": threshold_rows(category),
        "rule": label_rule(category.settings.regions),
        "origin": origin_words(origin, MANY),
        "promise": promise_sentence(promising, MANY),
        "achieved": achieved_sentence(origin, category.achieved, MANY),
        "set_by": f"Set by {origin.set_by}, {origin.set_at}.",
        "pixel_origin": None if pixel is None else origin_words(pixel, MANY),
        "warnings": _warnings(warnings),
        "histograms": _histograms(category),
        "curves": _curves(category),
        "numbers": number_rows(category),
        "missing": not_measured(category),
        "parity": parity_words(category),
        "speed": speed_rows(category),
        "gallery": _gallery(category),
        "model_facts": category.model_facts,
        "has_scores": bool(category.parts),
    }


def _warnings(warnings: Any) -> list[tuple[str, str]]:
    """Give (code, words) of each warning; without a code where it has none."""
    told = []
    for text in warnings if isinstance(warnings, (list, tuple)) else ():
        code, colon, words = str(text).partition(": ")
        has_code = bool(colon) and re.fullmatch(r"[A-Z0-9_]+", code) is not None
        told.append((code, words) if has_code else ("", str(text)))
    return told


# --- charts -------------------------------------------------------------------------


def _scored(category: ReportCategory) -> Scored | None:
    if not category.parts:
        return None
    return Scored(
        category.name,
        LOOK,
        np.array([part.score for part in category.parts], dtype=np.float64),
        np.array([part.defective for part in category.parts]),
        category.threshold,
    )


def _histograms(category: ReportCategory) -> list[dict[str, Any]]:
    charts = []
    normal = np.array(category.settings.calibration.image_scores, dtype=np.float64)
    if len(normal):
        label = "the good pictures that set the threshold"
        nothing = np.zeros(len(normal), dtype=np.bool_)
        charts.append(
            _histogram(
                "Pictures that set the threshold",
                f"{category.settings.calibration.n_images} good ones. What lies right "
                "of the dashed line would be flagged.",
                Scored(label, LOOK, normal, nothing, category.threshold),
            )
        )
    scored = _scored(category)
    if scored is not None:
        counted = category.counted
        words = (
            f"{counted.good} good ones upwards, {counted.defective} defective ones "
            "downwards, each as shares of their own number. Perfect would be: all good "
            "left, all defective right of the line."
            if counted.defective
            else f"{counted.good} good ones; no defective one was tested."
        )
        charts.append(_histogram("Test pictures", words, scored))
    return charts


def _histogram(title: str, words: str, scored: Scored) -> dict[str, Any]:
    both = bool(scored.anomalous.any())
    heads = ["Score", "Good", "Defective"]
    rows = [(at, str(good), str(bad)) for at, good, bad in histogram_rows(scored)]
    return {
        "title": title,
        "words": words,
        "drawing": histogram(scored),
        "heads": heads if both else heads[:2],
        "rows": rows if both else [row[:2] for row in rows],
    }


def _curves(category: ReportCategory) -> dict[str, Any] | None:
    scored = _scored(category)
    if scored is None or not scored.has_both:
        return None
    counted = category.counted
    points = [
        ("as it is set", category.threshold, counted.alarms, counted.found),
        *(
            ("would give", p.threshold, p.alarms, p.found)
            for p in operating_points(scored)
        ),
    ]
    return {
        "roc": roc_chart([scored], names=("good ones flagged", "defective ones found")),
        "pr": pr_chart(
            [scored], names=("defective ones found", "alarms that are right")
        ),
        "rows": [
            (
                what,
                score_text(threshold),
                f"{alarms} of {counted.good}",
                f"{found} of {counted.defective}",
                percent(found / (found + alarms)) if found + alarms else "-",
            )
            for what, threshold, alarms, found in points
        ],
    }


# --- pictures -----------------------------------------------------------------------


def _gallery(category: ReportCategory) -> dict[str, Any]:
    gallery = category.gallery
    cards = [card for group in gallery.groups for card in group.cards]
    has_heat = any(card.heat for card in cards)
    return {
        "note": gallery.note,
        "groups": [
            {"group": group, "cards": [_card(c, category) for c in group.cards]}
            for group in gallery.groups
        ],
        "has_truth": any(card.has_truth for card in cards),
        "scale": HeatScale.of(category.settings).bar() if has_heat else None,
    }


def _card(card: Card, category: ReportCategory) -> dict[str, Any]:
    ring = ", the true defect ringed in yellow" if card.has_truth else ""
    threshold = category.threshold
    return {
        "card": card,
        "photo_alt": f"{card.title}: {card.kind}, {card.verdict}{ring}",
        "heat_alt": f"Heat map of {card.title}",
        "score": score_text(card.score),
        "of_threshold": percent(card.score / threshold) if threshold > 0 else None,
        "p_value": None if card.p_value is None else f"{card.p_value:.2g}",
    }
