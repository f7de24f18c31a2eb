"""The demo's device: a process that can import neither torch nor this package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyimgano_runtime
from pyimgano_exporters.parity import SCORE_REL
from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.check import relative_difference
from pyimgano_runtime.errors import ExportError, ParityError
from pyimgano_runtime.paths import plain_name

from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from ..reporting.overview_facts import Agreement, CategoryResult, InspectedPart
from ..workbench.artifacts import Run

# The device has numpy, onnxruntime and the runtime; whatever else is installed here
# must not help. A module that is None cannot be imported.
DEVICE_PROGRAM: Final = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
for name in ("torch", "onnx", "pyimgano", "pyimgano_exporters"):
    sys.modules[name] = None
from pyimgano_runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""


def check(bundle: Bundle) -> str:
    """Replay the goldens on the device; give one sentence."""
    report = json.loads(on_device("check", str(bundle.root), "--json"))
    judged = [result for result in report["results"] if result["agrees"] is not None]
    agreed = sum(result["agrees"] for result in judged)
    return (
        f"All files of the copy are unchanged, and {agreed} of {len(judged)} golden "
        f"pictures in it score as they did after training ({report['engine']})."
    )


def inspect(
    bundle: Bundle, run: Run, split: CategorySplit, workspace: Path
) -> tuple[list[dict[str, Any]], CategoryResult]:
    """Let the device score a category's test pictures, and compare with the run."""
    name = split.category
    settings = bundle.config.categories[name]
    has_map = settings.map_geometry is not None
    stem = plain_name(name, set())
    rows_path, maps = workspace / f"{stem}.jsonl", workspace / f"{stem}-maps"
    arguments = ["infer", "--bundle", str(bundle.root), "--category", name]
    arguments += ["--output", str(rows_path)]
    arguments += ["--save-maps", str(maps)] if has_map else []
    # Folders, not files: a command line has a limit, and the smallest is 32 kB.
    folders = sorted({str(row.image_path.parent) for row in split.test})
    on_device(*arguments, *folders)

    by_path = {str(row.image_path): row for row in split.test}
    trained = {row["input"]: row for row in _read_rows(_per_image(run, name))}
    rows, parts, taken = [], [], set[str]()
    for row in _read_rows(rows_path):
        known = by_path[row["input"]]
        # The runtime names a map by the folder and name of its picture.
        map_name = plain_name(
            f"{known.image_path.parent.name}_{known.image_path.stem}", taken
        )
        parts.append(_part(known, row, maps / f"{map_name}.npy" if has_map else None))
        rows.append(row | {"input": f"data/{known.image}", "label_true": known.label})
    result = CategoryResult(
        name=name,
        parts=tuple(parts),
        settings=settings,
        report=run.report["categories"][name],
        agreement=_agreement(parts, trained),
    )
    return rows, result


def _part(
    known: ManifestRow, row: Mapping[str, Any], map_path: Path | None
) -> InspectedPart:
    return InspectedPart(
        name=known.image,
        image_path=known.image_path,
        mask_path=known.mask_path,
        map_path=map_path,
        label_true=known.label,
        kind=_kind(known.meta) if known.label else "good",
        score=row["score"],
        p_value=row["p_value"],
        label=row["label"],
        ms=row["ms"]["total"],
    )


def _kind(meta: Mapping[str, Any]) -> str:
    """In words, with how easily a person sees it where that is known."""
    defect = str(meta.get("defect") or "defective")
    severity = meta.get("severity")
    if severity is None:
        return defect
    degree = "faint" if severity < 1 / 3 else "clear" if severity < 2 / 3 else "obvious"
    return f"{degree} {'missing piece' if defect == 'missing' else defect}"


def _agreement(
    parts: list[InspectedPart], trained: Mapping[str, Mapping[str, Any]]
) -> Agreement:
    pairs = [(part, trained[part.name]) for part in parts]
    return Agreement(
        n_images=len(pairs),
        max_rel_score_diff=max(
            relative_difference(part.score, row["score"]) for part, row in pairs
        ),
        label_flips=sum(part.label != row["label"] for part, row in pairs),
    )


def refuse_disagreement(result: CategoryResult) -> None:
    """Hold the copy to the promise that it scores like the trained model.

    Raises:
        ParityError: a verdict differs, or a score by more than the tolerance.
    """
    agreement = result.agreement
    if agreement.label_flips or not agreement.max_rel_score_diff <= SCORE_REL:
        raise ParityError(
            f"{result.name}: the copied bundle does not score like the trained model: "
            f"{agreement.label_flips} verdicts differ, scores by "
            f"{agreement.max_rel_score_diff:.1e} relative (tolerance {SCORE_REL:.0e}); "
            "please report this with the versions of onnxruntime and torch"
        )


def _per_image(run: Run, category: str) -> Path:
    return run.category_folder(category) / "per_image.jsonl"


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def on_device(*arguments: str) -> str:
    """Run `pyimgano-runtime` without torch, elsewhere; give its stdout.

    Raises:
        ExportError: it failed; says what it said.
    """
    home = Path(pyimgano_runtime.__file__).parent.parent
    finished = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", DEVICE_PROGRAM, str(home), *arguments],
        cwd=home.anchor,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if finished.returncode:
        raise ExportError(
            f'"pyimgano-runtime {arguments[0]}" ended with exit code '
            f"{finished.returncode} in a process without torch: "
            f"{finished.stderr.strip() or 'it said nothing'}"
        )
    return finished.stdout
