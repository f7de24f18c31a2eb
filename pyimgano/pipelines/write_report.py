"""Makes the HTML report of a run or a bundle, whichever folder was named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyimgano_runtime.atomic import finish_swap, write_text
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.infer_config import FILE_NAME

from ..detectors.interface import Progress
from ..reporting.report_facts import Report
from ..reporting.report_page import report_html
from .report_bundle import report_of_bundle
from .report_run import report_of_run
from .result_folder import open_result


def write_report(
    source: Path,
    page: Path,
    *,
    bundle: Path | None,
    gallery: int,
    progress: Progress,
    warn: Callable[[str], None],
) -> Report:
    """Write the page, complete or absent, and give what it tells.

    Args:
        source: a run folder, or a bundle.
        bundle: of a run: its bundle, where that lies elsewhere.
        gallery: pictures of a category, at most; 0: none.
        warn: told what the page has to do without, a line at a time.

    Raises:
        ConfigError: neither a run nor a bundle, or it is damaged.
        BundleError: the bundle is refused.
    """
    report = _report(source, bundle, gallery, progress, warn)
    write_text(page, report_html(report))
    return report


def _report(
    source: Path,
    bundle: Path | None,
    gallery: int,
    progress: Progress,
    warn: Callable[[str], None],
) -> Report:
    finish_swap(source)
    if not source.exists():
        raise ConfigError(
            f"{source}: no such folder, expected a run or a bundle; check the path"
        )
    if not (source / "report.json").is_file():
        if not (source / FILE_NAME).is_file() and source.name != FILE_NAME:
            raise ConfigError(
                f"{source}: is neither a run (no report.json) nor a bundle (no "
                f'{FILE_NAME}); name the --output folder of "pyimgano train" or of '
                '"pyimgano bundle export"'
            )
        opened = open_bundle(source)
        if bundle is not None:
            raise ConfigError(
                f"--bundle {bundle}: belongs to a run, and {source} is a bundle "
                "already; leave it out, or name the run"
            )
        return report_of_bundle(opened, with_pictures=gallery > 0)
    result = open_result(source)
    if result.kind != "run":
        raise ConfigError(
            f"{source}: is a benchmark, expected a training run or a bundle; its own "
            f"page is {source / 'leaderboard.html'}"
        )
    named = None if bundle is None else open_bundle(bundle)
    return report_of_run(result, named, gallery=gallery, progress=progress, warn=warn)
