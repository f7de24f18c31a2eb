"""How often drift alarms ring without drift, and whether they ring with it.

    python benchmarks/drift_false_alarms.py --output results
    PYIMGANO_TEST_DATA=... python benchmarks/drift_false_alarms.py --output results \
        --sets mvtec_screw magnetic_tile elpv_mono sdu_composite

Simulated: references of n values, windows of 200, drawn from one distribution. Real:
a third of a set's normals (whole groups) trains patchcore (preset fast); the others are
scored by its bundle and parted by groups again and again: two thirds are the reference,
one third the window, or halves where that were too few pictures. Then the window's
pictures are made brighter or blurred and scored again. Everything is seeded; finished
sets are kept. stdout is the JSON and the tables of docs/drift.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyimgano_runtime import Predictor
from pyimgano_runtime.drift import (
    BRIGHTNESS,
    LEAST_REFERENCE,
    LEAST_WINDOW,
    SCORE,
    SHARPNESS,
    WINDOW,
    read_statistic,
)
from pyimgano_runtime.picture_statistics import picture_statistics
from pyimgano_runtime.reference import distribution_of

Values = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
# (m, 3): score, brightness, sharpness of each picture
Table = npt.NDArray[np.float64]

NAMES = (SCORE, BRIGHTNESS, SHARPNESS)
SIZES = (20, 30, 50, 100, 200, 500, 2000)
REFERENCES, WINDOWS = 200, 20  # simulated of each kind: 4,000 windows
PARTINGS = 1000  # of a real set
DEFECT_SHARE = 0.05


def main() -> None:
    """Run what is missing, and print JSON and tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=())
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"schema_version": "1.0", "sets": {}}
    results["simulated"] = kept(options.output / "simulated.json", simulated)
    for name in options.sets:
        results["sets"][name] = kept(
            options.output / f"{name}.json", lambda name=name: real(name)
        )
    print(json.dumps(results, indent=2))
    print("\n" + simulated_table(results["simulated"]))
    if results["sets"]:
        print("\n" + real_table(results["sets"]))


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Give a result that is there, or make and keep it."""
    if not path.exists():
        path.write_text(json.dumps(make(), indent=2), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


# --- simulated ---------------------------------------------------------------------


def shapes() -> dict[str, Callable[[np.random.Generator, int], Values]]:
    """Give what the values of one picture's statistic may look like."""
    return {
        "normal": lambda rng, n: rng.normal(100, 10, n),
        "skewed": lambda rng, n: 20 * rng.lognormal(0, 0.6, n),
        "two peaks": lambda rng, n: rng.normal(90, 4, n) + 25 * (rng.random(n) < 0.4),
    }


def simulated() -> list[dict[str, Any]]:
    """Give rates of alarms for each shape and number of reference values."""
    found = []
    for number, (shape, draw) in enumerate(shapes().items()):
        for n in SIZES:
            rng = np.random.default_rng([number, n])
            found.append({"shape": shape, "n": n} | simulated_rates(draw, n, rng))
            print(found[-1], file=sys.stderr)
    return found


def simulated_rates(
    draw: Callable[[np.random.Generator, int], Values],
    n: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Give the rates of alarms of windows, of three statistics drawn alike."""
    by_test = {"shift": 0, "psi": 0, "ks": 0}
    by_reference = []
    rings = {"defects": 0, "shift_0.5": 0, "shift_1": 0}
    for _ in range(REFERENCES):
        reference = np.stack([draw(rng, n) for _ in NAMES], axis=1)
        alarms = 0
        for _ in range(WINDOWS):
            window = np.stack([draw(rng, WINDOW) for _ in NAMES], axis=1)
            tests = alarms_of(reference, n, window)
            alarms += bool(tests)
            for test in tests:
                by_test[test] += 1
        by_reference.append(alarms / WINDOWS)
        sd = float(reference[:, 0].std())
        bad = window.copy()
        bad[: round(DEFECT_SHARE * WINDOW), 0] += 10 * sd
        rings["defects"] += bool(alarms_of(reference, n, bad))
        for size in (0.5, 1):
            moved = window + np.array([size * sd, 0, 0])
            rings[f"shift_{size:g}"] += bool(alarms_of(reference, n, moved))
    windows = REFERENCES * WINDOWS
    return {
        "windows": windows,
        "false_alarms": float(np.mean(by_reference)),
        "of_the_worst_twentieth": float(np.quantile(by_reference, 0.95)),
        "by_test": {test: count / windows for test, count in by_test.items()},
        **{key: count / REFERENCES for key, count in rings.items()},
    }


def alarms_of(reference: Table, n_groups: int, window: Table) -> set[str]:
    """Give which tests ring, of any of the three statistics."""
    return {
        test
        for column, name in enumerate(NAMES)
        for test in read_statistic(
            *(name, distribution_of(reference[:, column], n_groups)),
            window[:, column],
            reference_scores=reference[:, column] if name == SCORE else None,
        ).alarms
    }


def simulated_table(cells: list[dict[str, Any]]) -> str:
    """Give the Markdown table of the simulation."""
    lines = [
        "| values | reference parts | no drift | 5 % defects | scores + 0.5 sd "
        "| scores + 1 sd |",
        "|---|---|---|---|---|---|",
    ]
    for cell in cells:
        numbers = (*(cell["defects"], cell["shift_0.5"], cell["shift_1"]),)
        shown = " | ".join(f"{number:.1%}" for number in numbers)
        shown = f"{cell['false_alarms']:.2%} | {shown}"
        lines.append(f"| {cell['shape']} | {cell['n']} | {shown} |")
    return "\n".join(lines)


# --- real --------------------------------------------------------------------------

EDITS = ("as it is", "brighter 10", "brighter 20", "blur 1 px", "blur 2 px")


def edited(image: Image, edit: str) -> Image:
    """Give a picture as another lamp or lens would have taken it."""
    import cv2

    kind, *number = edit.split()
    if kind == "brighter":
        return np.clip(image.astype(np.int16) + int(number[0]), 0, 255).astype(np.uint8)
    if kind == "blur":
        return np.asarray(cv2.GaussianBlur(image, (0, 0), float(number[0])), np.uint8)
    return image


def real(name: str) -> dict[str, Any]:
    """Give the rates of alarms of one set."""
    home = Path(os.environ["PYIMGANO_TEST_DATA"]) / name
    lines = (home / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    rng = np.random.default_rng(8)
    fitted, judged = parted([r for r in rows if r["label"] == 0], 1 / 3, rng)
    defects = [row for row in rows if row["label"] == 1]
    with tempfile.TemporaryDirectory(prefix="drift-") as scratch:
        predictor = trained(home, fitted, judged, Path(scratch))
        tables = {edit: table(predictor, home, judged, edit) for edit in EDITS}
        of_defects = table(predictor, home, defects, EDITS[0])
        own = own_reference(predictor, tables[EDITS[0]])
    groups = [group_of(row) for row in judged]
    return {
        "brightness_sd": float(tables[EDITS[0]][:, 1].std()),
        "trained_on": len(fitted),
        "pictures": len(judged),
        "groups": len(set(groups)),
    } | partings(groups, tables, of_defects, rng) | {"own_reference": own}  # fmt: skip


def group_of(row: dict[str, Any]) -> str:
    """Give which part a row shows."""
    return str(row["group_id"] or row["image_path"])


def parted(
    rows: list[dict[str, Any]], share: float, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Give two parts of rows, the first with this share of the groups."""
    groups = sorted({group_of(row) for row in rows})
    chosen = set(rng.permutation(groups)[: round(share * len(groups))])
    first = [row for row in rows if group_of(row) in chosen]
    return first, [row for row in rows if group_of(row) not in chosen]


def trained(
    home: Path,
    fitted: list[dict[str, Any]],
    judged: list[dict[str, Any]],
    scratch: Path,
) -> Predictor:
    """Give the bundle of a patchcore."""
    manifest = scratch / "manifest.jsonl"
    with manifest.open("w", encoding="utf-8") as stream:
        for split, rows in (("train", fitted), ("test", judged)):
            for row in rows:
                moved = row | {"split": split, "mask_path": None}
                stream.write(json.dumps(moved) + "\n")
    config = scratch / "config.json"
    payload = {
        "dataset": {"manifest_path": str(manifest), "root": str(home.absolute())},
        "model": {"name": "patchcore", "preset": "fast"},
        "evaluation": {"pixel_metrics": False, "bootstrap_resamples": 0},
    }
    config.write_text(json.dumps(payload), encoding="utf-8")
    run, bundle = scratch / "run", scratch / "bundle"
    command = (sys.executable, "-m", "pyimgano.cli")
    for arguments in (
        ("train", "--config", config, "--output", run),
        ("bundle", "export", "--run", run, "--output", bundle, "--goldens", "none"),
    ):
        subprocess.run(
            [*command, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL
        )
    return Predictor.open(bundle)


def table(
    predictor: Predictor, home: Path, rows: list[dict[str, Any]], edit: str
) -> Table:
    """Give score, brightness and sharpness of each row's picture, (m, 3)."""
    found = []
    for row in rows:
        image = edited(predictor.read(home / row["image_path"]), edit)
        score = predictor.predict(image, with_map=False).score
        of_picture = picture_statistics(image)
        found.append((score, of_picture.brightness, of_picture.sharpness))
    return np.asarray(found, dtype=np.float64).reshape(len(rows), 3)


def own_reference(predictor: Predictor, found: Table) -> dict[str, Any]:
    """Say what a bundle's own reference says of normals it has never seen."""
    reference = predictor.settings.reference
    assert reference is not None
    scores = np.asarray(predictor.settings.calibration.image_scores)
    known = (reference.scores, reference.brightness, reference.sharpness)
    told = {}
    for column, (name, distribution) in enumerate(zip(NAMES, known, strict=True)):
        assert distribution is not None
        reading = read_statistic(
            *(name, distribution, found[:, column]),
            reference_scores=scores if name == SCORE else None,
        )
        told[name] = {"shift": reading.shift, "alarms": list(reading.alarms)}
    return told


def partings(
    groups: list[str],
    tables: dict[str, Table],
    of_defects: Table,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Give the rates of alarms over random partings into reference and window."""
    names = np.asarray(sorted(set(groups)))
    member = np.asarray(groups)
    rings: dict[str, list[bool]] = {edit: [] for edit in EDITS}
    rings["5 % defects"] = []
    sizes = []
    share = 2 / 3 if len(groups) >= 4 * LEAST_WINDOW else 1 / 2
    n_reference = round(share * len(names))
    for _ in range(PARTINGS):
        chosen = rng.permutation(names)[:n_reference]
        inside = np.isin(member, chosen)
        reference, n_groups = tables[EDITS[0]][inside], len(chosen)
        sizes.append(int((~inside).sum()))
        for edit in EDITS:
            window = tables[edit][~inside]
            rings[edit].append(bool(alarms_of(reference, n_groups, window)))
        window = tables[EDITS[0]][~inside]
        n_bad = max(1, round(DEFECT_SHARE * len(window)))
        window[:n_bad] = of_defects[rng.choice(len(of_defects), n_bad)]
        rings["5 % defects"].append(bool(alarms_of(reference, n_groups, window)))
    return {
        "reference_groups": n_reference,
        "judged": n_reference >= LEAST_REFERENCE,
        "window": int(np.median(sizes)),
        "alarms": {key: float(np.mean(values)) for key, values in rings.items()},
    }


def real_table(cells: dict[str, dict[str, Any]]) -> str:
    """Give the Markdown table of the real sets."""
    keys = ("as it is", "5 % defects", *EDITS[1:])
    heads = ("set", "reference parts", "window", "brightness sd", *keys)
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, cell in cells.items():
        shown = (f"{cell['alarms'][key]:.1%}" for key in keys)
        facts = (
            *(name, str(cell["reference_groups"]), str(cell["window"])),
            f"{cell['brightness_sd']:.1f}",
        )
        lines.append("| " + " | ".join((*facts, *shown)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
