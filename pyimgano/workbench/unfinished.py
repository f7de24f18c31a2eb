"""What a training keeps beside its output until it is complete, to go on from.

    .run.work/  work.json            what is trained: config, data, versions
                states/<folder>/     states and scratch files of the category at work
                finished/<folder>/   files of a finished category, as in a run

A kill at any moment leaves a folder that `--resume` goes on from; it is deleted when
the run is complete. Whoever writes to it holds the lock of the output folder.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from pyimgano_runtime._reader import read_json
from pyimgano_runtime._version import __version__
from pyimgano_runtime.atomic import write_text
from pyimgano_runtime.errors import ConfigError, PyimganoError

from ..datasets.fingerprints import (
    fingerprint,
    picture_digests,
    test_fingerprint,
    training_fingerprint,
)
from ..datasets.splits import CategorySplit
from .artifacts import write_json
from .config import WorkbenchConfig
from .labelled_rows import Labelled

SHOWN: Final = 5  # differences in words
SECONDS_BETWEEN: Final = 10.0  # two writings of the time that a fit took so far


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """The folder beside one output folder."""

    folder: Path

    @classmethod
    def beside(cls, output: Path) -> UnfinishedRun:
        """Give that of an output folder, which may not be there."""
        return cls(output.with_name(f".{output.name}.work"))

    @property
    def replaces(self) -> bool:
        """Whether it was begun with leave to replace the output folder."""
        found = self._read() or {}
        return found.get("replaces") is True

    def can_be_resumed(self) -> bool:
        """Whether it holds something that took time to learn."""
        with suppress(OSError):  # a name too long, or a place that cannot be read
            return any(self.folder.glob("finished/*/entry.json")) or any(
                self.folder.glob("states/*/*.state")
            )
        return False

    @contextmanager
    def at_work(
        self, identity: Mapping[str, Any], *, resume: bool, replaces: bool
    ) -> Iterator[None]:
        """Begin or go on; what is worth it stays when the block is left by an error.

        After a refusal nothing stays: what it names must change first, and then this
        is another training.

        Raises:
            ConfigError: another training began it, or the folder is none of ours.
        """
        if resume and self.folder.exists():
            self._refuse_other(identity)
        else:
            self.delete()
            self.folder.mkdir()
            write_json(self.folder / "work.json", {**identity, "replaces": replaces})
        try:
            yield
        except PyimganoError:
            self.delete()
            raise
        except BaseException:
            if not self.can_be_resumed():
                self.delete()
            raise

    def delete(self) -> None:
        """Delete it, if it is there.

        Raises:
            ConfigError: the folder is none that a training began.
        """
        if not self.folder.exists():
            return
        # A kill while work.json is written leaves its beginning, under another name.
        others = [
            path
            for path in self.folder.iterdir()
            if not path.name.startswith(".work.json.")
        ]
        if not (self.folder / "work.json").is_file() and others:
            raise ConfigError(
                f"{self.folder}: is not a folder that a training began (no work.json), "
                "so it is not deleted; move it, or name another output folder"
            )
        # work.json goes last: a kill in between leaves a folder that is ours.
        for name in ("states", "unfinished", "finished"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree(self.folder)

    def _read(self) -> dict[str, Any] | None:
        with suppress(ConfigError):
            found = read_json(self.folder / "work.json")
            return found if isinstance(found, dict) else None
        return None

    def _refuse_other(self, identity: Mapping[str, Any]) -> None:
        found = self._read()
        if found is None:
            raise ConfigError(
                f"{self.folder}/work.json: cannot be read, so nobody knows what was "
                "trained; pass --force in place of --resume to begin anew"
            )
        found.pop("replaces", None)
        # As JSON: tuples and lists are the same there.
        was, is_now = _flat(found), _flat(json.loads(json.dumps(identity)))
        keys = [k for k in sorted({*was, *is_now}) if was.get(k) != is_now.get(k)]
        if not keys:
            return
        shown = [
            f"{key}: found {_short(is_now.get(key))}, expected {_short(was.get(key))}"
            for key in keys[:SHOWN]
        ]
        more = f"; and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        raise ConfigError(
            f"{self.folder}: another training was interrupted ({'; '.join(shown)}"
            f"{more}); set them back, name another output folder, or pass --force in "
            "place of --resume to begin anew"
        )


def identity_of(
    config: WorkbenchConfig,
    splits: Sequence[CategorySplit],
    labelled: Labelled,
    device: torch.device,
) -> dict[str, Any]:
    """Give everything that must be equal for a resumed training to be the same one."""
    data = {
        split.category: {
            "train and val pictures": training_fingerprint(split),
            "test pictures": test_fingerprint(split),
            "labelled pictures": fingerprint(
                picture_digests(labelled.get(split.category, ()))
            ),
        }
        for split in splits
    }
    return {
        "schema_version": "1.0",
        "versions": {"pyimgano": __version__, "torch": torch.__version__},
        "device": str(device),
        "config": config.to_dict(),
        "data": data,
    }


def _flat(value: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Give the leaves of a JSON object by dotted name."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            found |= _flat(inner, f"{at}{key}.")
        else:
            found[f"{at}{key}"] = inner
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}..."


@dataclass(slots=True)
class FitClock:
    """Seconds that a fit took in all its starts; kept in a file across a kill."""

    path: Path
    _before: float = 0.0
    _start: float = field(default_factory=time.perf_counter)
    _written: float = 0.0

    def __post_init__(self) -> None:
        with suppress(OSError, ValueError):
            self._before = float(self.path.read_text(encoding="utf-8"))
        self._written = self.seconds

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.perf_counter() - self._start

    def tick(self) -> None:
        """Keep the time, now and then; called often."""
        now = self.seconds
        if now - self._written >= SECONDS_BETWEEN:
            self._written = now
            write_text(self.path, f"{now:.3f}\n")
