"""Decodes inputs ahead of the model: in order, by threads, few of them waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from .errors import ImageError
from .inputs import Input, Inputs

if TYPE_CHECKING:
    from .predictor import Image

    # An input, its pixels or why there are none, and milliseconds.
    Loaded = tuple[Input, Image | ImageError, float]

AHEAD_PER_WORKER: Final = 2  # decoded pictures, one of them at work


def loaded(
    read: Callable[[Input], Image], inputs: Inputs, *, workers: int
) -> Generator[Loaded, None, None]:
    """Give each input with its pixels, in order.

    Where the source has nothing at present, all that wait are given at once. Closing it
    early waits for the work at hand and begins no more.

    Args:
        read: gives the pixels of a picture file, by its path or its bytes.
        workers: threads that decode; 0 decodes each when its turn comes.
    """

    def load(item: Input) -> Loaded:
        return _load(read, item)

    source = iter(inputs)
    head = list(islice(source, 2))
    if workers == 0 or len(head) < 2:
        yield from (load(item) for item in chain(head, source) if item is not None)
        return
    from .ordered_threads import each_in_order

    items, ahead = chain(head, source), workers * AHEAD_PER_WORKER
    with closing(each_in_order(load, items, threads=workers, ahead=ahead)) as done:
        yield from done


def too_large(name: str) -> ImageError:
    """Give the error for a picture that the memory does not hold."""
    return ImageError(
        f"{name}: too large for the memory that is left; use smaller pictures "
        "or allow more by --max-memory",
        code="OUT_OF_MEMORY",
        stage="decode",
    )


def _load(read: Callable[[Input], Image], item: Input) -> Loaded:
    if item.pixels is not None:
        return item, item.pixels, item.decode_ms
    start = time.perf_counter()
    image: Image | ImageError
    try:
        image = read(item)
    except ImageError as error:
        image = error
    except MemoryError:
        image = too_large(item.name)
    return item, image, (time.perf_counter() - start) * 1000
