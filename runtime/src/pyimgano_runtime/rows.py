"""One JSON row a picture: the same from every engine and command."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .cores import usable_cores
from .errors import ImageError
from .inputs import Input, Inputs, file_inputs
from .providers import CPU
from .read_ahead import loaded, too_large

if TYPE_CHECKING:
    from .predictor import Image, Prediction, Predictor

    # A row, the pixels and what was said of them; two Nones beside an error row.
    Judged = tuple[dict[str, Any], Image | None, Prediction | None]

ROW_SCHEMA_VERSION: Final = "1.1"
MOST_WORKERS: Final = 4  # by default: more only wait for the graph


def default_decode_workers() -> int:
    """Give how many threads decode where nobody says: the usable cores, a few."""
    return min(usable_cores(), MOST_WORKERS)


def decision_of(prediction: Prediction, review_band: float | None) -> str:
    """Give what to do with a part: "normal", "anomaly", or "review" by a person.

    Args:
        review_band: the part of the threshold by which a score may differ from it and
            be for review; None: the decision is the label.
    """
    if review_band is not None:
        distance = abs(prediction.score - prediction.threshold)
        if distance <= review_band * abs(prediction.threshold):
            return "review"
    return prediction.label


def scored_row(
    name: str,
    predictor: Predictor,
    prediction: Prediction,
    ms: dict[str, float],
    *,
    review_band: float | None = None,
) -> dict[str, Any]:
    """Give the row of a picture that was scored; `review_band`: see `decision_of`."""
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
        "decision": decision_of(prediction, review_band),
        "regions": None
        if prediction.found is None
        else [region.to_json() for region in prediction.found.regions],
        "ms": {step: round(value, 3) for step, value in ms.items()},
        "bundle_sha256": predictor.bundle.sha256 if predictor.bundle else None,
        **_other_provider(predictor),
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
        "decision": None,
        "regions": None,
        "ms": None,
        "bundle_sha256": predictor.bundle.sha256 if predictor.bundle else None,
        **_other_provider(predictor),
        "error": {"code": error.code, "message": str(error), "stage": error.stage},
    }


def _other_provider(predictor: Predictor) -> dict[str, str]:
    """Give the field that says what computed, where that is not the CPU."""
    provider = predictor.provider
    return {} if provider in (None, CPU) else {"provider": provider}


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    *,
    with_map: bool,
    decode_workers: int = 0,
) -> Generator[Judged, None, None]:
    """Give (row, pixels, prediction) of each file: see `predict_inputs`."""
    return predict_inputs(
        *(predictor, file_inputs(paths)),
        with_map=with_map,
        decode_workers=decode_workers,
    )


def predict_inputs(
    predictor: Predictor,
    inputs: Inputs,
    *,
    with_map: bool,
    decode_workers: int = 0,
    review_band: float | None = None,
) -> Generator[Judged, None, None]:
    """Give (row, pixels, prediction) of each input, in order, one row each.

    A picture that cannot be read or scored gives an error row and two Nones; the
    next one goes on. Close it where not all are wanted.

    Args:
        decode_workers: threads that decode pictures while others are scored, a few
            ahead and no more; 0 decodes each when its turn comes.
        review_band: see `decision_of`.
    """
    pictures = loaded(
        lambda item: _read(predictor, item), inputs, workers=decode_workers
    )
    with closing(pictures):
        for item, image, decode_ms in pictures:
            if isinstance(image, ImageError):
                row = error_row(item.name, predictor, image)
                judged: Judged = row, None, None
            else:
                judged = _judged(
                    *(predictor, item.name, image, decode_ms, with_map, review_band)
                )
            if item.state is not None:
                judged[0]["file"] = item.state.to_json()
            yield judged


def _read(predictor: Predictor, item: Input) -> Image:
    if item.fetch is not None:
        return predictor.decode(item.fetch(), name=item.name)
    assert item.path is not None, "an input has a path, bytes or pixels"
    return predictor.read(item.path)


def _judged(
    predictor: Predictor,
    name: str,
    image: Image,
    decode_ms: float,
    with_map: bool,
    review_band: float | None,
) -> Judged:
    start = time.perf_counter()
    try:
        prediction = predictor.predict(image, with_map=with_map)
    except ImageError as error:
        return error_row(name, predictor, error), None, None
    except MemoryError:
        return error_row(name, predictor, too_large(name)), None, None
    total_ms = decode_ms + (time.perf_counter() - start) * 1000
    ms = {"decode": decode_ms, **prediction.ms, "total": total_ms}
    row = scored_row(name, predictor, prediction, ms, review_band=review_band)
    return row, image, prediction
