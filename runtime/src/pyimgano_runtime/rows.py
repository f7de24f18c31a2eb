"""One JSON row a picture: the same from every engine and command."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .cores import usable_cores
from .errors import ImageError
from .providers import CPU

if TYPE_CHECKING:
    from .predictor import Image, Prediction, Predictor

    # A row, the pixels and what was said of them; two Nones beside an error row.
    Judged = tuple[dict[str, Any], Image | None, Prediction | None]

ROW_SCHEMA_VERSION: Final = "1.0"
AHEAD_PER_WORKER: Final = 2  # decoded pictures, one of them at work
MOST_WORKERS: Final = 4  # by default: more only wait for the graph


def default_decode_workers() -> int:
    """Give how many threads decode where nobody says: the usable cores, a few."""
    return min(usable_cores(), MOST_WORKERS)


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
    """Give (row, pixels, prediction) of each file, in order, one row each.

    A picture that cannot be read or scored gives an error row and two Nones; the
    next one goes on. Close it where not all are wanted.

    Args:
        decode_workers: threads that decode pictures while others are scored, a few
            ahead and no more; 0 decodes each when its turn comes.
    """
    with closing(_decoded(predictor, paths, decode_workers)) as decoded:
        for path, (image, decode_ms) in zip(paths, decoded, strict=True):
            if isinstance(image, ImageError):
                yield error_row(str(path), predictor, image), None, None
            else:
                yield _judged(predictor, path, image, decode_ms, with_map)


def _judged(
    predictor: Predictor, path: Path, image: Image, decode_ms: float, with_map: bool
) -> Judged:
    start = time.perf_counter()
    try:
        prediction = predictor.predict(image, with_map=with_map)
    except ImageError as error:
        return error_row(str(path), predictor, error), None, None
    except MemoryError:
        return error_row(str(path), predictor, _too_large(path)), None, None
    total_ms = decode_ms + (time.perf_counter() - start) * 1000
    ms = {"decode": decode_ms, **prediction.ms, "total": total_ms}
    return scored_row(str(path), predictor, prediction, ms), image, prediction


def _decoded(
    predictor: Predictor, paths: Sequence[Path], workers: int
) -> Generator[tuple[Image | ImageError, float], None, None]:
    """Give the pixels of each file, or why there are none, and milliseconds."""

    def decode(index: int) -> tuple[Image | ImageError, float]:
        start = time.perf_counter()
        image: Image | ImageError
        try:
            image = predictor.read(paths[index])
        except ImageError as error:
            image = error
        except MemoryError:
            image = _too_large(paths[index])
        return image, (time.perf_counter() - start) * 1000

    if workers == 0 or len(paths) == 1:
        yield from map(decode, range(len(paths)))
        return
    from .ordered_threads import in_order

    ahead = workers * AHEAD_PER_WORKER
    with closing(in_order(decode, len(paths), threads=workers, ahead=ahead)) as decoded:
        yield from decoded


def _too_large(path: Path) -> ImageError:
    return ImageError(
        f"{path}: too large for the memory that is left; use smaller pictures "
        "or allow more by --max-memory",
        code="OUT_OF_MEMORY",
        stage="decode",
    )
