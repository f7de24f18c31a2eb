"""The worst mistakes and clearest finds of a benchmark, as small pictures in a folder.

`gallery.json` says what each picture is; a leaderboard page shows them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime.atomic import write_bytes, write_text
from pyimgano_runtime.predictor import Prediction, Predictor

from ..datasets.images import Image, read_mask, shrunk
from ..datasets.rows import ManifestRow
from .heat_scale import HeatScale
from .overview_facts import InspectedPart
from .overview_gallery import Group, choose
from .picture_drawing import jpeg, ringed

CASES_FILE: Final = "gallery.json"
MAX_SIDE: Final = 256  # pixels
JPEG_QUALITY: Final = 80
N_MISTAKES: Final = 4
N_FOUND: Final = 2
N_ACCEPTED: Final = 2


def write_cases(
    folder: Path,
    rows: Sequence[ManifestRow],
    per_image: Sequence[Mapping[str, Any]],
    predictor: Predictor,
    *,
    n_mistakes: int = N_MISTAKES,
    n_found: int = N_FOUND,
    n_accepted: int = N_ACCEPTED,
) -> None:
    """Write pictures and gallery.json; only chosen pictures are predicted again.

    Args:
        folder: is made where it does not exist.
        rows: the test rows, with the pictures' places.
        per_image: their scores by one engine.
        predictor: of that engine; gives the heat maps.

    Raises:
        DatasetError: a mask cannot be read.
        ImageError: a picture cannot be read.
    """
    known = {row.image: row for row in rows}
    scored = {str(row["input"]): row for row in per_image if row.get("ok", True)}
    parts = [_part(known[name], row) for name, row in scored.items() if name in known]
    folder.mkdir(parents=True, exist_ok=True)
    groups = []
    n_drawn = 0
    for group in choose(
        parts,
        predictor.threshold,
        n_mistakes=n_mistakes,
        n_found=n_found,
        n_accepted=n_accepted,
    ):
        cases = []
        for part in group.parts:
            n_drawn += 1
            files = _draw(folder, f"{n_drawn:02d}", known[part.name], predictor)
            cases.append(_case(part, scored[part.name], files))
        groups.append(_described(group, cases))
    payload = {"schema_version": "1.0", "kind": "cases", "groups": groups}
    text = json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / CASES_FILE, text + "\n")


def _part(row: ManifestRow, scored: Mapping[str, Any]) -> InspectedPart:
    return InspectedPart(
        name=row.image,
        image_path=row.image_path,
        mask_path=row.mask_path,
        map_path=None,
        label_true=int(scored["label_true"]),
        kind=(defect_kind(row.meta) or "anomaly") if row.label else "normal",
        score=float(scored["score"]),
        p_value=scored.get("p_value"),
        label=str(scored["label"]),
        ms=0.0,
    )


def defect_kind(meta: Any) -> str | None:
    """Give what a data set calls a kind of defect, by the names that are used for it.

    Args:
        meta: of a row; anything else names none.
    """
    for key in ("defect", "defect_type", "kind"):
        if isinstance(meta, dict) and isinstance(meta.get(key), str):
            return str(meta[key])
    return None


def _described(group: Group, cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "title": group.title,
        "order": group.order,
        "n_all": group.n_all,
        "cases": cases,
    }


def _case(
    part: InspectedPart, scored: Mapping[str, Any], files: dict[str, str | None]
) -> dict[str, Any]:
    return {
        "input": part.name,
        "kind": part.kind,
        "score": part.score,
        "threshold": scored["threshold"],
        "label_true": part.label_true,
        "label": part.label,
        "verdict": part.verdict,
        "files": files,
    }


def _draw(
    folder: Path, stem: str, row: ManifestRow, predictor: Predictor
) -> dict[str, str | None]:
    """Write a picture's photograph and heat map, give the names of both files."""
    image = predictor.read(row.image_path)
    size = (image.shape[0], image.shape[1])
    mask = read_mask(row.mask_path, size, predictor.rules, above=row.mask_above)
    photo = f"{stem}-photo.jpg"
    _save(folder / photo, image if mask is None else ringed(image, mask))
    prediction = predictor.predict(image)
    if prediction.anomaly_map is None:
        return {"photo": photo, "heat": None}
    heat = f"{stem}-heat.jpg"
    _save(folder / heat, _heated(image, prediction, predictor))
    return {"photo": photo, "heat": heat}


def _heated(image: Image, prediction: Prediction, predictor: Predictor) -> Image:
    """Colours with one meaning in all pictures of the category, as in overlays."""
    assert prediction.anomaly_map is not None
    colours = HeatScale.of(predictor.settings, predictor.threshold)
    return colours.over(image, prediction.anomaly_map, mode=prediction.map_mode)


def _save(path: Path, image: Image) -> None:
    write_bytes(path, jpeg(shrunk(image, MAX_SIDE), JPEG_QUALITY))
