"""Judges pictures as they come: any iterable in, one typed result each out, in order.

for result in predictor.stream(paths):
    if result.prediction is None:
        print(result.index, result.error)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import numpy as np

from .decode import check_array
from .errors import ImageError
from .rows import default_decode_workers

if TYPE_CHECKING:
    from .predictor import Image, Prediction, Predictor

ItemT = TypeVar("ItemT", bound="Image | str | os.PathLike[str]")

MOST_DECODE_WORKERS: Final = 1024
AHEAD_PER_WORKER: Final = 2  # decoded pictures, one of them at work


@dataclass(frozen=True, slots=True, eq=False)
class Streamed(Generic[ItemT]):
    """What came of one item of a stream: a prediction, or why there is none."""

    index: int  # its place in the iterable, from 0
    input: ItemT  # the item as it came: an array or a path
    prediction: Prediction | None  # None: see `error`
    error: ImageError | None  # its `code` and `stage` are those of the rows
    decode_ms: float  # wall-clock milliseconds to read and decode, or to check an array
    image: Image | None = field(default=None, repr=False)  # where it was asked for

    @property
    def ok(self) -> bool:
        """Whether there is a prediction."""
        return self.prediction is not None


def stream_pictures(
    predictor: Predictor,
    inputs: Iterable[ItemT],
    *,
    decode_workers: int | None = None,
    with_map: bool = True,
    with_image: bool = False,
    ahead: int | None = None,
) -> Generator[Streamed[ItemT], None, None]:
    """Give one result an item, in order; see `Predictor.stream`."""
    _refuse_one_picture(inputs)
    workers = default_decode_workers() if decode_workers is None else decode_workers
    _check_number("decode_workers", workers, least=0)
    most = max(workers * AHEAD_PER_WORKER, 1) if ahead is None else ahead
    _check_number("ahead", most, least=1)
    workers = min(workers, most)
    return _results(predictor, inputs, workers, most, with_map, with_image)


def _refuse_one_picture(inputs: object) -> None:
    """One path or picture is iterable too: by its letters, or by its rows."""
    if isinstance(inputs, (str, bytes, os.PathLike)):
        found = f"one path, {inputs!r}"
    elif isinstance(inputs, np.ndarray) and inputs.ndim != 4:
        found = f"one array of shape {inputs.shape}"
    else:
        return
    raise TypeError(
        f"stream: found {found}, expected an iterable of pictures and paths; "
        "put one picture into a list"
    )


def _check_number(name: str, value: int, *, least: int) -> None:
    if not isinstance(value, int) or not least <= value <= MOST_DECODE_WORKERS:
        raise ValueError(
            f"{name}: found {value!r}, expected a whole number from {least} to "
            f"{MOST_DECODE_WORKERS}"
        )


def _results(
    predictor: Predictor,
    inputs: Iterable[ItemT],
    workers: int,
    ahead: int,
    with_map: bool,
    with_image: bool,
) -> Generator[Streamed[ItemT], None, None]:
    def read(numbered: tuple[int, ItemT]) -> Streamed[ItemT]:
        return _read(predictor, *numbered)

    # Paths in a row are decoded ahead. An array needs no decoding: it is answered
    # before the next item is asked for, so that a live camera waits for nothing.
    for is_path, items in groupby(enumerate(inputs), key=_is_path):
        with closing(_each(read, items, workers if is_path else 0, ahead)) as pictures:
            for picture in pictures:
                result = _judged(predictor, picture, with_map)
                yield result if with_image else replace(result, image=None)


def _is_path(numbered: tuple[int, object]) -> bool:
    return isinstance(numbered[1], (str, os.PathLike))


def _each(
    read: Callable[[tuple[int, ItemT]], Streamed[ItemT]],
    items: Iterator[tuple[int, ItemT]],
    threads: int,
    ahead: int,
) -> Generator[Streamed[ItemT], None, None]:
    if threads == 0:
        yield from map(read, items)
        return
    from .ordered_threads import each_in_order

    with closing(each_in_order(read, items, threads=threads, ahead=ahead)) as pictures:
        yield from pictures


def _read(predictor: Predictor, index: int, item: ItemT) -> Streamed[ItemT]:
    """Give the pixels of an item, or why there are none."""
    start = time.perf_counter()
    image: Image | None = None
    error: ImageError | None = None
    try:
        if isinstance(item, (str, os.PathLike)):
            image = predictor.read(item)
        else:
            image = check_array(item, predictor.rules, f"item {index}")
    except ImageError as cause:
        error = _alone(cause)
    except MemoryError:
        error = _out_of_memory(index, item, "decode")
    decode_ms = (time.perf_counter() - start) * 1000
    return Streamed(index, item, None, error, decode_ms, image)


def _judged(
    predictor: Predictor, picture: Streamed[ItemT], with_map: bool
) -> Streamed[ItemT]:
    if picture.image is None:
        return picture
    try:
        prediction = predictor.predict(picture.image, with_map=with_map)
    except ImageError as cause:
        return replace(picture, error=_alone(cause))
    except MemoryError:
        error = _out_of_memory(picture.index, picture.input, "infer")
        return replace(picture, error=error)
    return replace(picture, prediction=prediction)


def _alone(error: ImageError) -> ImageError:
    """Give the error without the frames it came through: they hold pixels and bytes."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _out_of_memory(index: int, item: object, stage: str) -> ImageError:
    name = item if isinstance(item, (str, os.PathLike)) else f"item {index}"
    return ImageError(
        f"{name}: too large for the memory that is left; use smaller pictures, or a "
        "smaller `ahead`",
        code="OUT_OF_MEMORY",
        stage=stage,
    )
