"""Where the rows of `infer` go, and the pictures beside them.

Used by `pyimgano-runtime infer` and by `pyimgano infer`, so that both write the same.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from .errors import ConfigError
from .row_format import JsonLines, RowFormat, json_in, looks_like_rows

if TYPE_CHECKING:
    from .drift_watch import DriftWatch
    from .inputs import Input, Inputs
    from .ledger import Ledger
    from .predictor import Predictor

SHOWN_FAILURES: Final = 5
AGAIN_S: Final = 0.5  # one Ctrl-C may come twice, by the terminal and by a wrapper
_NO_MORE: Final[Any] = object()


@dataclass(slots=True)
class Tally:
    """How many pictures came out how."""

    done: int = 0
    failed: int = 0
    anomalies: int = 0  # by label
    decided: Counter[str] = field(default_factory=Counter)
    stopped: bool = False  # by SIGTERM, before all were done

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        self.done += 1
        self.failed += not row["ok"]
        self.anomalies += row["label"] == "anomaly"
        if row["ok"]:
            self.decided[row["decision"]] += 1

    def summary(self) -> str:
        """Give the last line of a command."""
        review = self.decided["review"]
        return (
            f"{self.done} pictures: {self.decided['anomaly']} anomaly, "
            f"{self.decided['normal']} normal, "
            + (f"{review} review, " if review else "")
            + f"{self.failed} failed"
        )


def write_rows(
    predictor: Predictor,
    inputs: Inputs,
    writer: RowWriter | Ledger,
    saver: PictureSaver,
    *,
    say: Callable[[str], None],
    decode_workers: int | None = None,
    review_band: float | None = None,
    tally: Tally | None = None,
    observe: Callable[[dict[str, Any]], None] | None = None,
    idle: Callable[[], None] | None = None,
    total: int | None = None,
    drain: Drain | None = None,
    watch: DriftWatch | None = None,
) -> Tally:
    """Judge each input, write its row and its pictures, and say how it went.

    SIGTERM ends it after the pictures at hand, SIGINT after the row: see `Drain`.

    Args:
        say: takes a line for the person at the screen; stdout may be carrying rows.
        decode_workers: see `rows.predict_inputs`; None: as many as suit this machine.
        review_band: see `rows.decision_of`.
        tally: goes on from here, where some inputs have their row from before.
        observe: told each row once it is written.
        idle: called each time there is no input at present.
        total: how many inputs there are, where that is known.
        drain: one that is at work already; default: one for this call.
        watch: is shown every picture that was scored.
    """
    from .rows import default_decode_workers, predict_inputs

    tally = Tally() if tally is None else tally
    if decode_workers is None:
        decode_workers = default_decode_workers()
    with (
        Drain() if drain is None else nullcontext(drain) as drain,
        writer,
        drain.rows(),
    ):
        rows = predict_inputs(
            *(predictor, _until_asked(inputs, drain, idle, open_end=total is None)),
            with_map=saver.needed,
            decode_workers=decode_workers,
            review_band=review_band,
        )
        failed_before = tally.failed
        with closing(rows):
            for row, image, prediction in rows:
                # First the pictures: a kill between leaves no row without them.
                if image is not None and prediction is not None:
                    saver.save(Path(row["input"]), image, prediction)
                writer.write(row)
                tally.add(row)
                if observe is not None:
                    observe(row)
                if watch is not None and image is not None and prediction is not None:
                    watch.add(image, prediction)
                # The rows go to a file: say on the screen what is wrong.
                shown = tally.failed - failed_before <= SHOWN_FAILURES
                if row["error"] is not None and writer.to_file and shown:
                    say(f"failed: {row['error']['message']}")
                drain.after_row()
        writer.cut_short = drain.cut_short
    tally.stopped = drain.cut_short
    if tally.stopped:
        of = "" if total is None else f" of {total}"
        say(f"stopped by SIGTERM after {tally.done}{of} pictures")
    say(tally.summary())
    return tally


def _until_asked(
    inputs: Inputs,
    drain: Drain,
    idle: Callable[[], None] | None,
    *,
    open_end: bool,
) -> Iterator[Input | None]:
    """Give inputs until a signal asks for the end.

    Args:
        open_end: where they end after the signal, whoever sent them had it too.
    """
    source = iter(inputs)
    while True:
        with drain.waiting():
            item = next(source, _NO_MORE)
        if item is _NO_MORE:
            drain.cut_short = drain.asked and open_end
            return
        if drain.asked:
            drain.cut_short = True
            return
        if item is None and idle is not None:
            idle()
        yield item


class RowWriter:
    """Writes rows to stdout, or to a file that is complete or absent."""

    def __init__(
        self, output: str | None, *, force: bool, form: RowFormat | None = None
    ) -> None:
        self._form: RowFormat = JsonLines() if form is None else form
        self._path = None if output is None else Path(output)
        self._stream: TextIO = sys.stdout
        self._has_rows = False
        self.cut_short = False  # set where inputs were left
        if self._path is None:
            return
        from .atomic import refuse_existing_file

        if not self._path.name:
            raise ConfigError(f'--output "{output}": is a folder, expected a file')
        refuse_existing_file(self._path, force=force, is_ours=looks_like_rows)
        self._temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.new")

    @property
    def to_file(self) -> bool:
        """Whether the rows go to a file, not to stdout."""
        return self._path is not None

    def keep_out_of(self, bundle: Path) -> None:
        """Refuse to write into a bundle's folder.

        Raises:
            ConfigError: the file would lie in it.
        """
        if self._path is not None:
            refuse_inside(self._path, bundle)

    def __enter__(self) -> RowWriter:
        if self._path is not None:
            self._open(self._path)
        self._stream.write(self._form.head)
        return self

    def _open(self, path: Path) -> None:
        try:
            self._stream = self._temporary.open("w", encoding="utf-8", newline="\n")
        except OSError as cause:
            raise ConfigError(
                f"--output {path}: cannot be written ({cause.strerror}); "
                "name a file in a folder that exists and that you may write to"
            ) from cause

    def write(self, row: dict[str, Any]) -> None:
        """Write one row."""
        self._stream.write(self._form.text(row, self._stream.encoding or "utf-8"))
        self._has_rows = True
        if self._path is None:
            self._stream.flush()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._path is None:
            return
        try:
            # A run that was stopped before its first row replaces no older file.
            if kind is None and (self._has_rows or not self.cut_short):
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._temporary.replace(self._path)
        finally:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)


def refuse_inside(path: Path, bundle: Path, *, flag: str = "--output") -> None:
    """Refuse an output that would lie in a bundle's folder.

    Raises:
        ConfigError: it would.
    """
    if path.resolve().is_relative_to(bundle.resolve()):
        raise ConfigError(
            f"{flag} {path}: lies in the bundle, which stays as it was released; "
            "name a file beside it"
        )


class Drain:
    """What signals do to a run: none of them comes between a row and its counts.

    SIGTERM is a wish: the pictures at hand are finished, then no more. While rows are
    written, SIGINT waits until the row at hand is through; so it meets no lock of a
    thread that decodes either. It ends at once what waits for an input, and further
    ones end all: a row may hang on a pipe that nobody reads.
    """

    def __init__(self) -> None:
        self.asked = False  # by SIGTERM
        self.cut_short = False  # and there were inputs left
        self._held = False
        self._interrupted = False  # and it waits
        self._first_s: float | None = None  # when the first interrupt came
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Drain:
        if threading.current_thread() is not threading.main_thread():
            return self  # to which alone signals come
        self._held = True
        # Another one is there where nobody wants it to end us (`nohup`), or where our
        # caller sees to it.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._take(signal.SIGINT, self._interrupt)
        if signal.getsignal(signal.SIGTERM) is not None:  # None: set from C, for good
            self._take(signal.SIGTERM, self._ask)
        self._held = False
        if self._interrupted:
            self.__exit__(None, None, None)
        return self

    def _take(
        self, number: signal.Signals, handler: Callable[[int, Any], None]
    ) -> None:
        self._before[number] = signal.getsignal(number)
        signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def _interrupt(self, number: int, frame: Any) -> None:
        now, first = time.monotonic(), self._first_s
        again = first is not None and now - first >= AGAIN_S
        self._first_s = now if first is None else first
        self._interrupted = True
        if again or not self._held:
            self.after_row()

    @contextmanager
    def rows(self) -> Iterator[None]:
        """Let an interrupt wait until a row is through, or all are.

        Raises:
            KeyboardInterrupt: there was one. It also goes before a closed pipe, whose
                reader had the same Ctrl-C.
        """
        self._held = True
        try:
            yield
        except BrokenPipeError:
            self.after_row()
            raise
        finally:
            self._held = False
        self.after_row()

    def after_row(self) -> None:
        """Let an interrupt that waited go on, once."""
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let an interrupt end the block at once: nothing is at stake."""
        held, self._held = self._held, False
        try:
            self.after_row()
            yield
        finally:
            self._held = held

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._held = True  # until both are given back
        for number, handler in reversed(self._before.items()):
            signal.signal(number, handler)
        if kind is None:
            self.after_row()


def json_text(value: Any, stream: TextIO, *, indent: int | None = None) -> str:
    """Give JSON that the stream can hold: a file's name need not be valid text."""
    return json_in(value, stream.encoding or "utf-8", indent=indent)


class PictureSaver:
    """Saves maps and overlays beside the rows, one file a picture."""

    def __init__(
        self,
        maps: str | None,
        overlays: str | None,
        predictor: Any,
        *,
        force: bool,
        masks: str | None = None,
    ) -> None:
        self._maps = Path(maps) if maps else None
        self._overlays = Path(overlays) if overlays else None
        self._masks = Path(masks) if masks else None
        self._predictor = predictor
        self._names: set[str] = set()
        self.needed = bool(maps or overlays)
        if masks:
            _require_regions(predictor)
        if not self.needed and not masks:
            return
        from .atomic import refuse_existing

        if not predictor.engine.has_map:
            raise ConfigError(
                "--save-maps and --save-overlays: this bundle's model gives a score "
                "only, no anomaly map"
            )
        if overlays:
            from .pictures import require_opencv

            require_opencv()
        for folder in (self._maps, self._overlays, self._masks):
            if folder is not None:
                refuse_existing(folder, force=force)
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as cause:
                    raise ConfigError(
                        f"{folder}: cannot be made ({cause.strerror}); "
                        "name a folder in a place you may write to"
                    ) from cause

    def pass_by(self, row: dict[str, Any]) -> None:
        """Take note of a row of before, so that no name is given twice."""
        if (self.needed or self._masks is not None) and row["ok"]:
            self._stem(Path(row["input"]))

    def _stem(self, path: Path) -> str:
        from .paths import plain_name

        return plain_name(f"{path.parent.name}_{path.stem}", self._names)

    def save(self, path: Path, image: Any, prediction: Any) -> None:
        """Save what was asked for of one picture."""
        stem = self._stem(path)
        if self._maps is not None:
            from .pictures import save_map

            save_map(self._maps / f"{stem}.npy", prediction.anomaly_map)
        if self._overlays is not None:
            from .pictures import save_overlay

            save_overlay(
                self._overlays / f"{stem}.png", image, prediction, self._predictor
            )
        if self._masks is not None and prediction.found is not None:
            from .pictures import save_mask

            size = (image.shape[0], image.shape[1])
            save_mask(self._masks / f"{stem}.png", prediction, size)


def _require_regions(predictor: Any) -> None:
    if predictor.settings.regions is None:
        raise ConfigError(
            f"--save-masks: {predictor.category} looks for no regions; set a rule by "
            "--region, such as --region min_area=0"
        )
    if predictor.regions_missing is not None:
        raise ConfigError(f"--save-masks: {predictor.regions_missing}")
