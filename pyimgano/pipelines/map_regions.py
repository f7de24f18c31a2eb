"""Finds regions in maps that were saved, to tune the rules without inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pyimgano_runtime.atomic import refuse_existing
from pyimgano_runtime.errors import ConfigError, ImageError, raise_all
from pyimgano_runtime.infer_config import CategorySettings, select_category
from pyimgano_runtime.paths import plain_name
from pyimgano_runtime.pictures import write_mask
from pyimgano_runtime.region_flags import (
    RegionFlags,
    float32_threshold,
    parse_roi,
    rules_with,
)
from pyimgano_runtime.region_rules import RegionRules, Roi
from pyimgano_runtime.regions import FloatMap, find_regions, region_mask

from ..inference.config import load_infer_config, parse_document

SCHEMA_VERSION: Final = "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSettings:
    """Everything that makes regions of a map."""

    threshold: float
    mode: str
    rules: RegionRules
    roi: Roi | None

    def to_json(self) -> dict[str, Any]:
        """Give them as they are echoed."""
        roi = None if self.roi is None else asdict(self.roi)
        shared = {"pixel_threshold": self.threshold, "map_mode": self.mode, "roi": roi}
        return shared | asdict(self.rules)


def region_settings(
    document: Path | None, category: str | None, flags: RegionFlags
) -> RegionSettings:
    """Give the settings of a document, or the defaults, with flags in their place.

    Args:
        document: a bundle's or run's infer_config.json, or the bundle's folder; None:
            flags alone, of a map that covers its whole picture.

    Raises:
        ConfigError: no pixel threshold, an unknown category or rule; all at once.
    """
    if document is None:
        return _of_flags(flags)
    config = parse_document(load_infer_config(document), str(document))
    name = select_category(list(config.categories), category)
    settings: CategorySettings = config.categories[name]
    if settings.map_geometry is None:
        raise ConfigError(
            f"{document}: {name}: the model gives no map, so there are no regions"
        )
    rules = settings.regions or RegionRules()
    settings = flags.applied_to(replace(settings, regions=rules), name)
    geometry, pixel = settings.map_geometry, settings.thresholds.pixel
    assert geometry is not None  # else refused just now
    assert pixel is not None
    return RegionSettings(
        threshold=pixel,
        mode=geometry.mode,
        rules=settings.regions or rules,
        roi=settings.roi,
    )


def _of_flags(flags: RegionFlags) -> RegionSettings:
    problems: list[str] = []
    if flags.pixel_threshold is None:
        problems.append(
            "--pixel-threshold: missing; give it, or the document that holds it by "
            "--infer-config"
        )
    rules = rules_with(RegionRules(), flags.rules, problems)
    roi = None if flags.roi is None else parse_roi(flags.roi, problems)
    threshold = 0.0
    if flags.pixel_threshold is not None:
        threshold = float32_threshold(flags.pixel_threshold, problems)
    raise_all(problems)
    return RegionSettings(threshold=threshold, mode="stretch", rules=rules, roi=roi)


def list_maps(given: Sequence[Path]) -> list[Path]:
    """Give .npy files, and those in folders, sorted.

    Raises:
        ConfigError: a folder without any, or a file that is not there.
    """
    found: list[Path] = []
    problems = []
    for path in given:
        inside = sorted(path.rglob("*.npy")) if path.is_dir() else [path]
        if not inside:
            problems.append(
                f"--map {path}: holds no .npy files; infer --save-maps writes them"
            )
        elif not path.exists():
            problems.append(f"--map {path}: no such file; check the path")
        found += inside
    raise_all(problems)
    return found


def read_map(path: Path) -> FloatMap:
    """Give a map (h, w) float32 as `infer --save-maps` wrote it.

    Raises:
        ConfigError: no such array, or one with values that are not finite.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise ConfigError(
            f"{path}: cannot be read as a map ({cause}); expected a .npy file that "
            "infer --save-maps wrote"
        ) from cause
    if values.ndim != 2 or values.size == 0 or values.dtype.kind != "f":
        raise ConfigError(
            f"{path}: found {values.dtype} of shape {values.shape}, expected float32 "
            "of shape (h, w)"
        )
    if not np.isfinite(values).all():
        raise ConfigError(f"{path}: holds NaN or infinity, expected finite values")
    return np.ascontiguousarray(values, dtype=np.float32)


def find_in_maps(
    maps: Sequence[Path],
    settings: RegionSettings,
    *,
    size: tuple[int, int] | None,
    masks: Path | None,
    force: bool,
) -> list[dict[str, Any]]:
    """Give one row for each map, and write its mask where a folder is given.

    Args:
        size: (height, width) of the pictures in pixels; None: that of the map, so
            areas and boxes count cells.

    Raises:
        ConfigError: a map that cannot be read; nothing is written then.
    """
    if masks is not None:
        refuse_existing(masks, force=force)
    read = [(path, read_map(path)) for path in maps]
    rows, names = [], set[str]()
    for path, values in read:
        own = size or (values.shape[0], values.shape[1])
        try:
            found = find_regions(
                *(values, own),
                threshold=settings.threshold,
                mode=settings.mode,
                rules=settings.rules,
                roi=settings.roi,
            )
        except ImageError as error:
            raise ConfigError(f"{path}: {error}") from error
        rows.append(
            {
                "schema_version": SCHEMA_VERSION,
                "map": str(path),
                "largest": float(values.max()),
                "image_size": list(own),
                "regions": [region.to_json() for region in found.regions],
                "left_out": found.left_out,
            }
        )
        if masks is not None:
            masks.mkdir(parents=True, exist_ok=True)
            mask = region_mask(found.labels, own, settings.mode)
            write_mask(masks / f"{plain_name(path.stem, names)}.png", mask)
    return rows
