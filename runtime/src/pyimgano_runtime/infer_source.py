"""From the options of `infer` to what is judged: files, a list, a folder, a stream."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_options import say
from .errors import ConfigError, raise_all
from .inputs import Input, Inputs, file_inputs
from .quick_dataclass import dataclass
from .sources import is_wanted, list_inputs

if TYPE_CHECKING:
    from .infer_config import InputRules
    from .ledger import Ledger

FROM_STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be judged, listed as far as it can be before the model is open."""

    before: Sequence[Path]  # files before the list on stdin, or all
    after: Sequence[Path] | None  # files after that list; None: there is no list

    @property
    def total(self) -> int | None:
        """How many inputs there are, where that is known."""
        return len(self.before) if self.after is None else None


def refuse_contradictions(options: argparse.Namespace) -> None:
    """Refuse options that have no meaning together, all at once.

    Raises:
        ConfigError: with every problem.
    """
    watch, stream = options.watch is not None, _is_stream(options)
    listed = options.input.count(FROM_STDIN)
    problems = [
        (listed > 1, f'INPUT "{FROM_STDIN}": is stdin, which can be read once only'),
        (options.null and not listed, f'--null: needs the INPUT "{FROM_STDIN}"'),
        (
            bool(options.pattern) and stream,
            "--pattern: chooses files of folders; leave it out with --frames, --video",
        ),
        (
            not watch and options.settle is not None,
            "--settle: how long a watched file must stand still; needs --watch",
        ),
        (
            not watch and options.poll is not None,
            "--poll: how often a folder is looked through; needs --watch",
        ),
        (
            options.resume and options.output is None,
            "--resume: goes on with the rows of a file; needs --output",
        ),
        (
            options.resume and stream,
            "--resume: a stream cannot be asked for the same frames again; leave it "
            "out, or save the frames as files",
        ),
        (
            options.force and (options.resume or watch),
            "--force: begins anew, --resume and --watch go on with what is there; "
            "give one of them",
        ),
    ]
    raise_all(message for wrong, message in problems if wrong)
    if watch:
        _keep_out_of_watched(options)


def list_source(options: argparse.Namespace) -> Source:
    """List the files that the command names; refuse what is not there.

    Raises:
        ConfigError: a folder without pictures, or an empty INPUT.
    """
    if not options.input:
        return Source((), ())
    listed = partial(list_inputs, patterns=options.pattern)
    if FROM_STDIN not in options.input:
        return Source(listed(options.input), None)
    place = options.input.index(FROM_STDIN)
    parts = (options.input[:place], options.input[place + 1 :])
    before, after = (listed(part) if part else [] for part in parts)
    return Source(before, after)


def open_source(
    source: Source,
    options: argparse.Namespace,
    rules: InputRules,
    ledger: Ledger | None,
) -> Iterator[Input | None]:
    """Give the inputs that have no row yet.

    Raises:
        ConfigError: the stream or folder cannot be opened.
    """
    if options.watch is not None:
        return _watched(options, set() if ledger is None else ledger.done)
    if options.video is not None:
        from .video import video_inputs

        return video_inputs(options.video)
    if options.frames is not None:
        from .path_list import STDIN
        from .raw_frames import frame_inputs

        return frame_inputs(STDIN, options.frames, max_pixels=rules.max_pixels)
    inputs: Inputs = file_inputs(source.before)
    if source.after is not None:
        from .path_list import STDIN, listed_inputs

        on_stdin = listed_inputs(STDIN, null=options.null)
        inputs = chain(inputs, on_stdin, file_inputs(source.after))
    return iter(inputs) if ledger is None else ledger.without_done(inputs)


def decode_workers(options: argparse.Namespace) -> int | None:
    """Give how many threads decode: none for streams, whose pixels come decoded."""
    return 0 if _is_stream(options) else options.decode_workers


def _watched(options: argparse.Namespace, done: set[bytes]) -> Iterator[Input | None]:
    from .watch import DEFAULT_POLL_S, DEFAULT_SETTLE_S, Watched, watched_inputs

    watched = Watched(
        Path(options.watch),
        wanted=lambda inside: is_wanted(inside, options.pattern),
        settle_s=DEFAULT_SETTLE_S if options.settle is None else options.settle,
        poll_s=DEFAULT_POLL_S if options.poll is None else options.poll,
    )
    return watched_inputs(watched, done, say)


def _is_stream(options: argparse.Namespace) -> bool:
    return options.frames is not None or options.video is not None


def _keep_out_of_watched(options: argparse.Namespace) -> None:
    """Refuse to write where every new file is judged."""
    folder = Path(options.watch).resolve()
    for flag in ("output", "run_report", "save_maps", "save_overlays"):
        given = getattr(options, flag)
        if given and Path(given).resolve().is_relative_to(folder):
            raise ConfigError(
                f"--{flag.replace('_', '-')} {given}: lies in the watched folder, "
                "whose files are judged; name a place outside of it"
            )
