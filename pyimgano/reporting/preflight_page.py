"""Preflight's report as one page with pictures: one file, no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._version import __version__
from pyimgano_runtime.atomic import write_text
from pyimgano_runtime.decode import decoder_name, read_image
from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.infer_config import InputRules

from ..datasets.images import shrunk
from ..datasets.issues import (
    ISSUE_CODES,
    IssueSeverity,
    PreflightIssue,
    PreflightReport,
)
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from .html_page import render
from .picture_drawing import data_uri

TEMPLATE: Final = "preflight.html.j2"
THUMBNAIL_SIDE: Final = 160  # px
PICTURED_PER_CODE: Final = 24  # issues of one picture each; the others are text
CLUSTERS: Final = 200
PER_CLUSTER: Final = 6  # pictures of one cluster


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One small picture of the page."""

    uri: str
    caption: str
    kind: str  # "picture" or "mask"


@dataclass(frozen=True, slots=True)
class Finding:
    """One issue with its pictures; `more` are left out."""

    message: str
    thumbnails: tuple[Thumbnail, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Section:
    """All issues of one code."""

    code: str
    severity: IssueSeverity
    meaning: str
    advice: str
    total: int
    findings: tuple[Finding, ...]


def write_preflight_page(
    path: Path, report: PreflightReport, splits: Sequence[CategorySplit], *, title: str
) -> int:
    """Write the page and give how many pictures it holds.

    Args:
        splits: the rows that the report speaks of.
        title: the manifest or root that was examined.
    """
    painter = _Painter(splits)
    sections = painter.sections(report)
    facts = {
        "title": title,
        "report": report,
        "summary": report.summary,
        "sections": sections,
        "version": __version__,
    }
    write_text(path, render(TEMPLATE, facts))
    return painter.n_pictures


def is_page(head: bytes) -> bool:
    """Whether a file that begins so is a page of preflight."""
    return head.startswith(b"<!DOCTYPE html>") and b"<title>Preflight of" in head


class _Painter:
    """Finds the pictures of issues and makes them small."""

    def __init__(self, splits: Sequence[CategorySplit]) -> None:
        self.n_pictures = 0
        self._rules = InputRules(reference_decoder=decoder_name())
        self._rows: dict[tuple[str, str], ManifestRow] = {
            (row.category, row.image): row
            for split in splits
            for row in (*split.train, *split.val, *split.test)
        }

    def sections(self, report: PreflightReport) -> list[Section]:
        """Give the issues by code, errors first."""
        by_code: dict[tuple[IssueSeverity, str], list[PreflightIssue]] = {}
        for issue in report.issues:
            by_code.setdefault((issue.severity, issue.code), []).append(issue)
        totals = report.summary["issues"]["by_code"]
        return [
            Section(
                code=code,
                severity=severity,
                meaning=ISSUE_CODES[code].meaning,
                advice=ISSUE_CODES[code].advice,
                total=totals[code][severity],
                findings=tuple(
                    self._finding(issue, number) for number, issue in enumerate(issues)
                ),
            )
            for (severity, code), issues in by_code.items()
        ]

    def _finding(self, issue: PreflightIssue, number: int) -> Finding:
        context = issue.context
        if "images" in context:
            listed, limit = context["images"], CLUSTERS
        elif "image" in context:
            listed, limit = [context], PICTURED_PER_CODE
        else:
            return Finding(issue.message, (), 0)
        if number >= limit:
            return Finding(issue.message, (), 0)
        shown = _both_sides(listed)
        thumbnails = [
            thumbnail
            for one in shown
            for thumbnail in self._thumbnails(one, with_mask="mask" in context)
        ]
        more = context.get("n_images", len(listed)) - len(shown)
        return Finding(issue.message, tuple(thumbnails), more)

    def _thumbnails(self, facts: dict[str, Any], *, with_mask: bool) -> list[Thumbnail]:
        row = self._rows.get((facts["category"], facts["image"]))
        if row is None:
            return []
        split = facts.get("split")
        caption = f"{row.image} ({split})" if split else row.image
        made = [self._thumbnail(row.image_path, caption, "picture")]
        if with_mask and row.mask_path is not None and row.mask_path.is_file():
            made.append(self._thumbnail(row.mask_path, "its mask", "mask"))
        return [thumbnail for thumbnail in made if thumbnail is not None]

    def _thumbnail(self, path: Path, caption: str, kind: str) -> Thumbnail | None:
        try:
            pixels = read_image(path, self._rules)
        except ImageError:
            return None  # the issue says so in words
        self.n_pictures += 1
        return Thumbnail(data_uri(shrunk(pixels, THUMBNAIL_SIDE)), caption, kind)


def _both_sides(listed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the pictures of a cluster that are shown: one of each split comes first."""
    splits = dict.fromkeys(one.get("split") for one in listed)
    firsts = [next(o for o in listed if o.get("split") == split) for split in splits]
    rest = [one for one in listed if not any(one is first for first in firsts)]
    return [*firsts, *rest][:PER_CLUSTER]
