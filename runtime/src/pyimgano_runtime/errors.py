"""The error tree of PyImgAno, shared by training, export and runtime.

PyimganoError                 all of ours; a CLI turns it into one line on stderr
  ConfigError                 a file or flag we refuse             (exit 2)
  DatasetError                data we refuse                       (exit 2)
  BundleError                 a bundle we refuse                   (exit 2; runtime 3)
  ImageError                  one picture we refuse: one error row, the rest goes on
  ExportError                 the graph could not be made          (exit 1)
    ParityError               it does not agree with torch         (exit 1; runtime 5)
  PluginError                 the code of another package failed   (exit 1)
  OutputError                 what was made cannot be written      (exit 1; runtime 5)

Every message says where, what was found, what was expected, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class PyimganoError(Exception):
    """Base of every error that PyImgAno raises on purpose."""


class ConfigError(PyimganoError):
    """A configuration file or command-line flag is refused."""


class DatasetError(PyimganoError):
    """Training or evaluation data is refused."""


class BundleError(PyimganoError):
    """A bundle is refused: missing, altered, unknown or too new."""


class ImageError(PyimganoError):
    """One picture is refused; the others are not concerned.

    Attributes:
        code: stable upper-case name of the reason, written into the error row.
        stage: where it happened: "read", "decode" or "infer".
    """

    def __init__(self, message: str, *, code: str, stage: str = "decode") -> None:
        super().__init__(message)
        self.code = code
        self.stage = stage

    def __reduce__(self) -> tuple[Any, ...]:
        # By default only the message would travel between processes, and an error that
        # cannot be made again breaks the pool that it comes through.
        return _made_again, (type(self), str(self), self.code, self.stage)


def _made_again(
    kind: type[ImageError], message: str, code: str, stage: str
) -> ImageError:
    return kind(message, code=code, stage=stage)


class ExportError(PyimganoError):
    """A graph could not be made, or breaks a rule of the contract."""


class ParityError(ExportError):
    """Two engines disagree about the same picture by more than the tolerance."""


class PluginError(PyimganoError):
    """A detector of another package raised; its traceback is the cause."""


class OutputError(PyimganoError):
    """What was made cannot be written: a full disk, a folder that went away."""


def raise_all(problems: Iterable[str], kind: type[PyimganoError] = ConfigError) -> None:
    """Raise one error that lists every problem, or return if there are none."""
    found = list(problems)
    if len(found) == 1:
        raise kind(found[0])
    if found:
        lines = "\n".join(f"  - {line}" for line in found)
        raise kind(f"{len(found)} problems:\n{lines}")
