"""One JSON row a picture: the same from every engine and command."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import ImageError

if TYPE_CHECKING:
    from .predictor import Image, Prediction, Predictor

ROW_SCHEMA_VERSION: Final = "1.0"


def scored_row(
    name: str, predictor: Predictor, prediction: Prediction, ms: dict[str, float]
) -> dict[str, Any]:
    """Give the row of a picture that was scored."""
    return {
        "schema_version": ROW_SCHEMA_VERSION,
        "input": name,
        "category": predictor.category,
        "ok": True,
        "score": prediction.score,
        "p_value": prediction.p_value,
        "threshold": prediction.threshold,
        "threshold_source": prediction.threshold_source,
        "label": prediction.label,
        "ms": {step: round(value, 3) for step, value in ms.items()},
        "bundle_sha256": predictor.bundle.sha256 if predictor.bundle else None,
        "error": None,
    }


def error_row(name: str, predictor: Predictor, error: ImageError) -> dict[str, Any]:
    """Give the row of a picture that could not be scored."""
    return {
        "schema_version": ROW_SCHEMA_VERSION,
        "input": name,
        "category": predictor.category,
        "ok": False,
        "score": None,
        "p_value": None,
        "threshold": predictor.threshold,
        "threshold_source": predictor.threshold_source,
        "label": None,
        "ms": None,
        "bundle_sha256": predictor.bundle.sha256 if predictor.bundle else None,
        "error": {"code": error.code, "message": str(error), "stage": error.stage},
    }


def predict_files(
    predictor: Predictor, paths: Iterable[Path], *, with_map: bool
) -> Iterator[tuple[dict[str, Any], Image | None, Prediction | None]]:
    """Give (row, pixels, prediction) of each file, in order, one row each.

    A picture that cannot be read or scored gives an error row and two Nones; the
    next one goes on.
    """
    for path in paths:
        start = time.perf_counter()
        try:
            image = predictor.read(path)
            decode_ms = (time.perf_counter() - start) * 1000
            prediction = predictor.predict(image, with_map=with_map)
        except ImageError as error:
            yield error_row(str(path), predictor, error), None, None
            continue
        except MemoryError:
            lack = ImageError(
                f"{path}: too large for the memory that is left; use smaller pictures "
                "or allow more by --max-memory",
                code="OUT_OF_MEMORY",
                stage="decode",
            )
            yield error_row(str(path), predictor, lack), None, None
            continue
        total_ms = (time.perf_counter() - start) * 1000
        ms = {"decode": decode_ms, **prediction.ms, "total": total_ms}
        yield scored_row(str(path), predictor, prediction, ms), image, prediction
