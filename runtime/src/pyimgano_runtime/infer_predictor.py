"""What judges in one `infer` command: bundle, thresholds, regions, provider, reload."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_options import opened, say, warn_fallback, warn_unlisted
from .errors import ConfigError

if TYPE_CHECKING:
    from .bundle import Bundle
    from .ledger import Ledger
    from .predictor import Predictor
    from .row_output import RowWriter


def open_predictor(
    options: argparse.Namespace, writer: RowWriter | Ledger
) -> Predictor:
    """Give what judges the pictures, once the bundle is checked."""
    from .predictor import Predictor
    from .region_flags import RegionFlags

    thresholds = None
    if options.thresholds is not None:
        from .thresholds_file import read_thresholds_file

        thresholds = read_thresholds_file(options.thresholds)
    if options.reload and options.expect_sha256 is not None:
        raise ConfigError(
            "--reload, --expect-sha256: give one of them; the second takes one release "
            "and no other"
        )
    bundle = opened(options)
    writer.keep_out_of(bundle.root)
    if options.health_file is not None:
        from .health import refuse_health_file

        refuse_health_file(Path(options.health_file), bundle.root)
    warn_unlisted(bundle.unlisted_files())
    regions = RegionFlags.of(options)

    def predictor_on(bundle: Bundle) -> Predictor:
        return Predictor.open(
            bundle,
            category=options.category,
            threads=options.threads,
            threshold=options.threshold,
            thresholds=thresholds,
            regions=regions,
            providers=options.provider,
        )

    if not options.reload:
        predictor = predictor_on(bundle)
    else:
        from .reload import ReloadingPredictor

        predictor = ReloadingPredictor(
            bundle.root,
            predictor_on,
            say=say,
            allow_hard_links=options.allow_hard_links,
            threads=options.threads,
            providers=options.provider,
            needs_map=bool(options.save_maps or options.save_overlays),
            needs_regions=bool(options.save_masks),
        )
    warn_fallback(predictor.provider_in_use)
    rules = predictor.settings.regions
    if options.review_band is not None and rules and rules.policy == "any_region":
        raise ConfigError(
            "--review-band: is a band of scores, but the label follows regions alone "
            '(policy "any_region"); leave it out, or set --region policy=both'
        )
    return predictor


def say_regions(predictor: Predictor) -> None:
    """Say by which rules regions are found; the rows hold what was found."""
    from .region_words import region_sentence

    if predictor.settings.regions is None:
        return
    if predictor.regions_missing is not None:
        say(f"no regions: {predictor.regions_missing}")
        return
    say(f"regions: {region_sentence(predictor.settings)}")
