"""Takes a replaced bundle into use while pictures are judged.

    predictor = ReloadingPredictor("bundle", Predictor.open, say=print)
    for image in camera:
        prediction = predictor.predict(image)     # by the newest bundle that passed

At most every few seconds, before a picture, `infer_config.json` is looked at. Where
it is another file, the folder is opened and its goldens are replayed in a thread of
its own; the bundle in use goes on judging meanwhile, and gives way only to one that has
passed. A folder that is refused is tried again, at growing intervals: it may be a copy
that was not complete yet.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from .bundle import Bundle, open_bundle
from .check import CheckReport, check_bundle
from .errors import BundleError, ConfigError, PyimganoError
from .infer_config import FILE_NAME
from .predictor import Image, Prediction, Predictor

EVERY_S: Final = 2.0
LONGEST_PAUSE_S: Final = 300.0  # between two attempts at a bundle that is refused

Identity = tuple[int, int, int, int]  # device, inode, ns of the last change, size


class ReloadingPredictor(Predictor):
    """A Predictor on a bundle folder that may be replaced while it is used.

    Each picture is judged by one bundle as a whole. The attributes (`bundle`,
    `threshold`, ...) are those of the bundle that judged last, for the one thread that
    judges; where several do, each takes `current` and uses that.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        predictor_on: Callable[[Bundle], Predictor],
        *,
        say: Callable[[str], None],
        allow_hard_links: bool = False,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        needs_map: bool = False,
        needs_regions: bool = False,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the bundle that is there; its own goldens are left to `check`.

        Args:
            folder: the bundle's.
            predictor_on: makes the predictor of a bundle, with all that was asked for;
                called again for each replacement, in another thread.
            say: takes a line for each replacement and each reason to refuse one.
            allow_hard_links: see `open_bundle`.
            threads, providers: with which the goldens are replayed: those that
                `predictor_on` uses.
            needs_map: refuse a replacement whose model gives no anomaly map.
            needs_regions: refuse one that looks for no regions.
            every_s: seconds that pass at least between two looks at the folder.
            clock: gives seconds.

        Raises:
            BundleError, ConfigError: see `Predictor.open`.
        """
        self._folder = Path(folder).absolute()
        if self._folder.name == FILE_NAME:
            self._folder = self._folder.parent
        self._predictor_on = predictor_on
        self._say = say
        self._allow_hard_links = allow_hard_links
        self._threads = threads
        self._providers = providers
        self._needs_map = needs_map
        self._needs_regions = needs_regions
        self._every_s = every_s
        self._clock = clock
        self._candidate: _Candidate | None = None
        self._told = ""  # why the newest replacement was refused
        self._pause_s = every_s  # between two attempts at the same one
        self._next_try = 0.0
        self._next_look = clock() + every_s
        self._tried = self._identity()  # before: what comes meanwhile is another file
        self._use(predictor_on(self._open_folder()))

    @property
    def current(self) -> Predictor:
        """The predictor in use: it keeps its bundle when this one takes another."""
        return self._current

    def predict_batch(
        self, images_u8: Sequence[Image], *, with_map: bool = True
    ) -> list[Prediction]:
        """Judge pictures by one bundle: the newest one that has passed its goldens."""
        self.refresh()
        return self._current.predict_batch(images_u8, with_map=with_map)

    def refresh(self, *, wait: bool = False) -> None:
        """Look for a replacement, and take one that has passed; called by `predict`.

        Args:
            wait: for the goldens of one that is there, and look at once.
        """
        if self._candidate is None:
            if not wait and self._clock() < self._next_look:
                return
            found = self._identity()
            self._next_look = self._clock() + self._every_s
            if found is None or not self._is_due(found, at_once=wait):
                return
            self._tried = found
            self._candidate = _Candidate(self._examined)
        candidate = self._candidate
        if wait:
            candidate.join()
        if candidate.is_alive():
            return
        self._candidate = None
        self._take(candidate)

    def _take(self, candidate: _Candidate) -> None:
        made, problem = candidate.outcome
        if made is None:
            self._refused(problem)
            return
        assert made.bundle is not None
        before = self.bundle.sha256 if self.bundle else ""
        self._told = ""
        if made.bundle.sha256 == before:
            return
        self._use(made)
        self._say(
            f"{self._folder}: replaced; from here on pictures are judged by bundle "
            f"{made.bundle.sha256}"
        )

    def _is_due(self, found: Identity, *, at_once: bool) -> bool:
        """Whether to examine the file that is there: a new one, or one to try again."""
        if found != self._tried:
            self._pause_s = self._every_s
            return True
        return bool(self._told) and (at_once or self._clock() >= self._next_try)

    def _refused(self, problem: str) -> None:
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._next_try = self._clock() + self._pause_s
        if problem == self._told:
            return
        self._told = problem
        kept = self.bundle.sha256 if self.bundle else ""
        self._say(
            f"warning: {self._folder}: the new bundle is not taken ({problem}); {kept} "
            "goes on judging"
        )

    def _use(self, predictor: Predictor) -> None:
        self._current = predictor
        # Whatever a predictor says of itself is said of the one in use.
        vars(self).update(vars(predictor))

    def _open_folder(self) -> Bundle:
        return open_bundle(self._folder, allow_hard_links=self._allow_hard_links)

    def _examined(self) -> Predictor:
        """Give the predictor of the folder as it is now, its goldens passed."""
        bundle = self._open_folder()
        predictor = self._predictor_on(bundle)
        if predictor.category != self.category:
            raise ConfigError(
                f'it holds the category "{predictor.category}", expected '
                f'"{self.category}"'
            )
        if self._needs_map and not predictor.engine.has_map:
            raise ConfigError("its model gives no anomaly map, which is asked for")
        if self._needs_regions and not predictor.finds_regions:
            raise ConfigError("it looks for no regions, whose masks are asked for")
        report = check_bundle(bundle, threads=self._threads, providers=self._providers)
        if not report.ok:
            raise BundleError(_why_not(report))
        return predictor

    def _identity(self) -> Identity | None:
        """Tell one infer_config.json from another; None where there is none now."""
        try:
            facts = (self._folder / FILE_NAME).stat()
        except OSError:
            return None  # between two renames, or on a share that is away
        return facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a ReloadingPredictor cannot be pickled; send the path of its bundle, and "
            "make one there"
        )


class _Candidate(threading.Thread):
    """Opens and checks a bundle beside the one that judges."""

    def __init__(self, examined: Callable[[], Predictor]) -> None:
        super().__init__(name="bundle reload")
        self._examined = examined
        self.outcome: tuple[Predictor | None, str] = (None, "its check was broken off")
        self.start()

    def run(self) -> None:
        try:
            self.outcome = (self._examined(), "")
        except (PyimganoError, OSError) as error:
            self.outcome = (None, str(error))
        except MemoryError:
            self.outcome = (None, "out of memory for two bundles at once")


def _why_not(report: CheckReport) -> str:
    if any(result.agrees is False for result in report.results):
        return "its goldens come out with other scores here than at its export"
    return f"nothing proves its model of {', '.join(report.unproven)}: no golden judged"
