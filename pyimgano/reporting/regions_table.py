"""The terminal table of `pyimgano defects`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .tables import open_console, open_table


def print_regions(rows: list[dict[str, Any]]) -> None:
    """Print one line for each region, and how many maps have one."""
    console = open_console()
    table = open_table("regions")
    table.add_column("map", overflow="fold")
    for title in ("region", "area", "box x0, y0, x1, y1", "highest", "mean"):
        table.add_column(title, justify="right")
    for title in ("fill", "aspect", "solidity"):
        table.add_column(title, justify="right")
    for row in rows:
        name = Path(row["map"]).name
        if not row["regions"]:
            table.add_row(name, "none", "", "", f"{row['largest']:.4g}")
        for region in row["regions"]:
            table.add_row(
                *(name, str(region["id"]), f"{region['area']:.0f}"),
                ", ".join(map(str, region["bbox"])),
                *(f"{region[key]:.4g}" for key in ("max_score", "mean_score")),
                *(f"{region[key]:.2f}" for key in ("fill_ratio", "aspect", "solidity")),
            )
    console.print(table)
    n_with = sum(bool(row["regions"]) for row in rows)
    n = sum(len(row["regions"]) for row in rows)
    left_out = sum(row["left_out"] for row in rows)
    more = f" ({left_out} more are left out by max_regions)" if left_out else ""
    console.print(f"{n_with} of {len(rows)} maps have regions, {n} in all{more}")
