"""How a predictor travels to another process: as a path, never as a session.

    pickle.dumps(predictor)   # path and sha256 of the bundle, and what `open` was given
    pickle.loads(data)        # opens that very bundle again, or refuses it

For process pools, Ray and Dask, which pickle what they hand on. No file of ours is a
pickle, and none is ever read from one: unpickle only what your own processes wrote.
"""

from __future__ import annotations

import os
from collections import deque
from threading import Lock
from typing import Any, Final

from .bundle import open_bundle
from .errors import PyimganoError
from .predictor import Predictor

# A pool pickles the predictor with each task: without this, each task would open the
# bundle. More than the categories of the largest bundle that we know, 15.
KEPT: Final = 16

# (process, what it was made of, predictor), the newest last. With the process, as what
# a fork inherits has lost the threads of onnxruntime.
_kept: deque[tuple[int, tuple[Any, ...], Predictor]] = deque(maxlen=KEPT)
_lock = Lock()


def by_path(predictor: Predictor, options: dict[str, Any] | None) -> tuple[Any, ...]:
    """Give what pickle keeps of a predictor: how to open it again.

    Args:
        options: what `Predictor.open` was given beside the bundle; None: it was made
            around an engine, which cannot travel.

    Raises:
        TypeError: it was made around an engine.
    """
    bundle = predictor.bundle
    if options is None or bundle is None:
        raise TypeError(
            f"this predictor was made around an engine ({predictor.engine.name}) that "
            "lives in this process, so it cannot be pickled, expected one that "
            "Predictor.open made of a bundle; export a bundle and open that"
        )
    place = (str(bundle.root), bundle.sha256, bundle.allow_hard_links)
    return open_again, (type(predictor), place, options)


def open_again(
    kind: type[Predictor], place: tuple[str, str, bool], options: dict[str, Any]
) -> Predictor:
    """Give the predictor that was pickled, opened again in this process.

    The last few stay open here, as long as the process lives. Where the bundle is not
    there, or is another one than it was, the predictor raises the BundleError whatever
    it is asked for, rather than this function: a `multiprocessing.Pool` waits for ever
    for a task that its worker could not unpickle, and other pools break without a word
    of why.

    Args:
        place: folder, sha256 of infer_config.json, whether hard links are allowed.
        options: of `Predictor.open`.
    """
    made_of = (kind, place, options)
    with _lock:
        for process, known, predictor in _kept:
            if process == os.getpid() and known == made_of:
                return predictor
        try:
            predictor = _open(kind, place, options)
        except PyimganoError as error:
            refusal = (
                "the bundle of a predictor from another process cannot be opened here: "
                f"{error}; where it was replaced on purpose, open the new one by "
                "Predictor.open and start the workers again"
            )
            return _Refused(type(error), refusal)
        _kept.append((os.getpid(), made_of, predictor))
        return predictor


def _open(
    kind: type[Predictor], place: tuple[str, str, bool], options: dict[str, Any]
) -> Predictor:
    """Open a predictor, on a bundle that another one here has open where there is."""
    for process, (_, other, _), predictor in _kept:
        if process == os.getpid() and other == place and predictor.bundle is not None:
            return kind.open(predictor.bundle, **options)
    root, sha256, allow_hard_links = place
    bundle = open_bundle(root, allow_hard_links=allow_hard_links, expect_sha256=sha256)
    return kind.open(bundle, **options)


class _Refused(Predictor):
    """A predictor without a bundle: whatever it is asked for, it raises the error."""

    def __init__(self, kind: type[PyimganoError], refusal: str) -> None:
        # And no more: what else a predictor has is missing here.
        self._refusal = kind, refusal

    def __getattr__(self, name: str) -> Any:
        kind, refusal = self._refusal
        raise kind(refusal)
