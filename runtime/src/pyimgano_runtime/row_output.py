"""Where the rows of `infer` go, and the pictures beside them.

Used by `pyimgano-runtime infer` and by `pyimgano infer`, so that both write the same.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from .errors import ConfigError

if TYPE_CHECKING:
    from .predictor import Predictor

SHOWN_FAILURES: Final = 5


@dataclass(slots=True)
class Tally:
    """How many pictures came out how."""

    done: int = 0
    failed: int = 0
    anomalies: int = 0
    stopped: bool = False  # by SIGTERM, before all were done

    def summary(self) -> str:
        """Give the last line of a command."""
        normal = self.done - self.failed - self.anomalies
        return (
            f"{self.done} pictures: {self.anomalies} anomaly, {normal} normal, "
            f"{self.failed} failed"
        )


def write_rows(
    predictor: Predictor,
    paths: Sequence[Path],
    writer: RowWriter,
    saver: PictureSaver,
    *,
    say: Callable[[str], None],
    decode_workers: int | None = None,
    observe: Callable[[dict[str, Any]], None] | None = None,
) -> Tally:
    """Judge each file, write its row and its pictures, and say how it went.

    SIGTERM ends it after the picture at hand.

    Args:
        say: takes a line for the person at the screen; stdout may be carrying rows.
        decode_workers: see `rows.predict_files`; None: as many as suit this machine.
        observe: told each row once it is written.
    """
    from .rows import default_decode_workers, predict_files

    tally = Tally()
    if decode_workers is None:
        decode_workers = default_decode_workers()
    rows = predict_files(
        *(predictor, paths), with_map=saver.needed, decode_workers=decode_workers
    )
    with writer, Drain() as drain, closing(rows):
        for path, (row, image, prediction) in zip(paths, rows, strict=True):
            writer.write(row)
            if observe is not None:
                observe(row)
            tally.done += 1
            tally.failed += not row["ok"]
            # The rows go to a file: say on the screen what is wrong.
            shown = writer.to_file and tally.failed <= SHOWN_FAILURES
            if row["error"] is not None and shown:
                say(f"failed: {row['error']['message']}")
            tally.anomalies += row["label"] == "anomaly"
            if image is not None and prediction is not None:
                saver.save(path, image, prediction)
            if drain.asked:
                break
    tally.stopped = drain.asked
    if tally.stopped:
        say(f"stopped by SIGTERM after {tally.done} of {len(paths)} pictures")
    say(tally.summary())
    return tally


class RowWriter:
    """Writes JSONL rows to stdout, or to a file that is complete or absent."""

    def __init__(self, output: str | None, *, force: bool) -> None:
        self._path = None if output is None else Path(output)
        self._stream: TextIO = sys.stdout
        if self._path is None:
            return
        from .atomic import refuse_existing_file

        if not self._path.name:
            raise ConfigError(f'--output "{output}": is a folder, expected a file')
        refuse_existing_file(self._path, force=force, is_ours=_looks_like_rows)
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
        if self._path is None:
            return
        if self._path.resolve().is_relative_to(bundle.resolve()):
            raise ConfigError(
                f"--output {self._path}: lies in the bundle, which stays as it was "
                "released; name a file beside it"
            )

    def __enter__(self) -> RowWriter:
        if self._path is None:
            return self
        try:
            self._stream = self._temporary.open("w", encoding="utf-8", newline="\n")
        except OSError as cause:
            raise ConfigError(
                f"--output {self._path}: cannot be written ({cause.strerror}); "
                "name a file in a folder that exists and that you may write to"
            ) from cause
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Write one row."""
        self._stream.write(json_text(row, self._stream) + "\n")
        if self._path is None:
            self._stream.flush()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._path is None:
            return
        try:
            if kind is None:
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._temporary.replace(self._path)
        finally:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)


def _looks_like_rows(head: bytes) -> bool:
    """Whether a file begins as `rows.py` begins its first row."""
    return re.match(rb'\{"schema_version": "[0-9.]+", "input": "', head) is not None


class Drain:
    """Turns SIGTERM into a wish: the picture at hand is finished, then no more."""

    def __enter__(self) -> Drain:
        self.asked = False
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def json_text(value: Any, stream: TextIO, *, indent: int | None = None) -> str:
    """Give JSON that the stream can hold: a file's name need not be valid text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, indent=indent)
    return text


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

    def save(self, path: Path, image: Any, prediction: Any) -> None:
        from .paths import plain_name

        stem = plain_name(f"{path.parent.name}_{path.stem}", self._names)
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
