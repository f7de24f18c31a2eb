"""The whole of `pyimgano score`: list, hand out parts, count, report."""

from __future__ import annotations

import hashlib
import os
import pickle
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import (
    AbstractContextManager,
    closing,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._version import __version__
from pyimgano_runtime.atomic import only_writer
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.errors import (
    BundleError,
    ConfigError,
    OutputError,
    raise_all,
)
from pyimgano_runtime.peak_memory import peak_rss_mb
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.thresholds_file import read_thresholds_file

from ..ray_cluster import require_ray
from ..source_date import timestamp
from .listing import Listing, fixed_head
from .local_workers import score_locally
from .order import SCORE_SCHEMA_VERSION, ScoreOrder
from .part_worker import Outcome, PartJob
from .places import canonical, is_url, plain
from .score_folder import ScoreFolder

DECODE_WORKERS_OF_URLS: Final = 8  # they wait for the network
MOST_TOLD: Final = 20  # parts that are left out
KINDS: Final = {"BundleError": BundleError, "ConfigError": ConfigError}

Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """The command's options as given; None where an option was left out."""

    bundle: Path
    inputs: tuple[str, ...]
    output: str
    engine: str = "local"
    ray_address: str | None = None
    workers: int | None = None
    threads: int | None = None
    decode_workers: int | None = None
    category: str | None = None
    threshold: float | None = None
    thresholds: Path | None = None
    review_band: float | None = None
    root: str | None = None
    column: str | None = None
    part_size: int = 1000
    jsonl: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Team:
    """Who scores: how many workers, with how many threads each."""

    workers: int | None  # None: as many as the cluster has room for
    threads: int
    decode_workers: int


def choose_team(options: ScoreOptions, *, remote: bool = False) -> Team:
    """Give workers and threads so that no core is asked for twice.

    Args:
        remote: whether pictures are at URLs: who reads them waits for the network.

    By default a worker for each core with one thread: that scores more pictures than
    one worker with all cores, since decoding and Python run beside each other too.
    """
    cores = usable_cores()
    if options.engine == "ray":
        workers, threads = options.workers, options.threads or 1
    elif options.workers is not None:
        workers = options.workers
        threads = options.threads or max(1, cores // workers)
    else:
        threads = options.threads or 1
        workers = max(1, cores // threads)
    decoding = options.decode_workers
    if decoding is None:
        decoding = DECODE_WORKERS_OF_URLS if remote else threads
    return Team(workers, threads, decoding)


def run_score(options: ScoreOptions, *, progress: Progress, say: Say) -> dict[str, Any]:
    """Score what is not scored yet; give the report.

    Raises:
        ConfigError: an option, an input or the output folder is refused.
        BundleError: the bundle is refused, here or on another machine.
        OutputError: rows cannot be written, or workers are lost again and again; what
            is finished stays.
    """
    options = _plain(options)
    team = choose_team(options)
    predictor, order = _order(options, team)
    folder = ScoreFolder(options.output)
    _refuse_overlap(options, folder)
    with _only_writer(folder):
        with folder.errors_as(ConfigError):
            document = folder.begin(
                order,
                force=options.force,
                before_deleting=lambda: _try_listing(options, order, progress),
            )
        if document is None:
            document = _list(options, order, folder, progress)
        else:
            with folder.errors_as(OutputError):
                folder.sweep()
        _tell_of_listing(document, say)
        team = choose_team(options, remote=document["remote"])
        job = PartJob(
            output=str(folder.files.local or folder.files),
            start=uuid.uuid4().hex,
            predictor=pickle.dumps(predictor),
            review_band=order.review_band,
            part_size=order.part_size,
            n_inputs=document["n_inputs"],
            jsonl=order.jsonl,
            decode_workers=team.decode_workers,
        )
        run = _Run(options, team, folder, document, progress, say)
        try:
            run.score(job)
            report = run.report(order)
            with folder.errors_as(OutputError):
                folder.write_report(report)
        except BaseException:  # whatever ended it: what is finished is told
            with suppress(OSError):  # that of the same cause; the first one is told
                run.count()  # a worker may not have said so yet
                folder.write_report(run.report(order))
            raise
    return report


def _tell_of_listing(document: dict[str, Any], say: Say) -> None:
    for category, count in document["skipped"].items():
        say(f"{count:,} lines of category {category} are passed by")
    if document["links"]:
        links = "1 link" if document["links"] == 1 else f"{document['links']:,} links"
        say(f"not followed: {links} to folders; name those as inputs of their own")


def _order(options: ScoreOptions, team: Team) -> tuple[Predictor, ScoreOrder]:
    """Open the bundle as workers will, and give what makes the rows."""
    file, digest = None, None
    if options.thresholds is not None:
        file = read_thresholds_file(options.thresholds)
        digest = hashlib.sha256(options.thresholds.read_bytes()).hexdigest()
    bundle = open_bundle(options.bundle.absolute())
    predictor = Predictor.open(
        bundle,
        category=options.category,
        threads=team.threads,
        threshold=options.threshold,
        thresholds=file,
    )
    order = ScoreOrder(
        inputs=tuple(_place(one) for one in options.inputs),
        root=None if options.root is None else _place(options.root),
        column=options.column,
        bundle_sha256=bundle.sha256,
        category=predictor.category,
        threshold=predictor.threshold,
        threshold_source=predictor.threshold_source,
        thresholds_sha256=digest,
        review_band=options.review_band,
        part_size=options.part_size,
        jsonl=options.jsonl,
    )
    return predictor, order


def _place(name: str) -> str:
    return name if is_url(name) else str(Path(name).absolute())


def _plain(options: ScoreOptions) -> ScoreOptions:
    """Give the options with paths in the place of "file://" URLs."""
    return replace(
        options,
        inputs=tuple(map(plain, options.inputs)),
        output=plain(options.output),
        root=None if options.root is None else plain(options.root),
    )


def _refuse_overlap(options: ScoreOptions, folder: ScoreFolder) -> None:
    """Refuse an output in what is read, which it would change, or around it.

    Raises:
        ConfigError: all of it.
    """
    output = canonical(str(folder.files.local or folder.files))
    needed = [("--bundle", str(options.bundle))]
    needed += [("--input", place) for place in options.inputs]
    if options.root is not None:
        needed.append(("--root", options.root))
    if options.thresholds is not None:
        needed.append(("--thresholds", str(options.thresholds)))
    problems = []
    for flag, place in needed:
        head, is_pattern = fixed_head(place)
        whole = canonical(head)
        is_listed = flag != "--root" and not is_pattern  # as a whole
        if output == whole or (is_listed and output.startswith(whole)):
            problems.append(
                f"--output {folder.files}: lies in {flag} {place}, which is read; name "
                "a folder outside of it"
            )
        elif whole.startswith(output):
            problems.append(
                f"--output {folder.files}: {flag} {place} lies in it, which is read; "
                "name a folder of its own"
            )
    raise_all(problems)


def _only_writer(folder: ScoreFolder) -> AbstractContextManager[None]:
    local = folder.files.local
    if local is None:
        return nullcontext()  # object stores have no locks
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise ConfigError(
            f"--output {local}: cannot be made ({cause.strerror}); name a folder in a "
            "place you may write to"
        ) from cause
    return only_writer(Path(os.path.realpath(local)))  # whatever link leads to it


def _listing(options: ScoreOptions, order: ScoreOrder) -> Listing:
    return Listing(
        *(options.inputs, order.category),
        root=options.root,
        column=options.column,
        output=canonical(options.output),
    )


def _try_listing(options: ScoreOptions, order: ScoreOrder, progress: Progress) -> None:
    """List everything and keep nothing: a mistake is found before rows are deleted.

    Raises:
        ConfigError: the mistake.
    """
    if options.engine == "ray":
        require_ray()
    n_inputs = 0
    for entry in _listing(options, order).entries():
        n_inputs += len(entry)
        if n_inputs % order.part_size < len(entry):
            progress("inputs checked", n_inputs, n_inputs)


def _list(
    options: ScoreOptions, order: ScoreOrder, folder: ScoreFolder, progress: Progress
) -> dict[str, Any]:
    listing = _listing(options, order)
    try:
        return folder.write_index(
            order,
            listing.entries(),
            listed=lambda count: progress("inputs listed", count, count),
            facts=lambda: {
                "skipped": dict(listing.skipped),
                "links": listing.links,
                "remote": listing.remote,
            },
        )
    except ConfigError:
        with suppress(OSError):  # the first error is told
            folder.discard()
        raise


class _Run:
    """One start: the parts that are missing, and what became of them."""

    def __init__(
        self,
        options: ScoreOptions,
        team: Team,
        folder: ScoreFolder,
        document: dict[str, Any],
        progress: Progress,
        say: Say,
    ) -> None:
        self.options = options
        self.team = team
        self.folder = folder
        self.document = document
        self.progress = progress
        self.say = say
        self.finished: dict[int, dict[str, Any]] = {}
        self.count()
        self.before = len(self.finished)
        self.rows_before = self.n_rows
        self.lost: list[str] = []
        self.not_done: dict[int, str] = {}  # why, of each part that failed alone
        self.again: list[dict[str, int]] = []
        self.workers: set[str] = set()
        self.started = time.monotonic()
        self.seconds = 0.0

    def count(self) -> None:
        """Look into the folder for the parts that are complete."""
        self.finished = self.folder.finished(
            part_size=self.document["order"]["part_size"],
            n_inputs=self.document["n_inputs"],
        )

    @property
    def n_rows(self) -> int:
        return sum(done["rows"] for done in self.finished.values())

    def score(self, job: PartJob) -> None:
        """Score the parts that are missing."""
        n_parts, n_inputs = self.document["n_parts"], self.document["n_inputs"]
        missing = [n for n in range(n_parts) if n not in self.finished]
        if self.before:
            self.say(
                f"{self.rows_before:,} of {n_inputs:,} inputs are scored already "
                f"({self.before:,} of {n_parts:,} parts)"
            )
        if not missing:
            return
        rows = self.rows_before
        self.progress("inputs scored", rows, n_inputs)
        try:
            with closing(self._outcomes(job, missing)) as outcomes:
                for outcome in outcomes:
                    self.workers.add(outcome["worker"])
                    if "lost" in outcome:
                        self._not_done(outcome)
                        continue
                    self._check(outcome)
                    if outcome["begun_before"]:
                        self._begun_again(outcome)
                    self.finished[outcome["part"]] = outcome["done"]
                    rows += outcome["done"]["rows"]
                    self.progress("inputs scored", rows, n_inputs)
        finally:
            self.seconds = time.monotonic() - self.started
        self._refuse_incomplete(n_parts)

    def _refuse_incomplete(self, n_parts: int) -> None:
        """Say so where parts are missing though nothing ended the run.

        Raises:
            OutputError: there are some.
        """
        missing = [n for n in range(n_parts) if n not in self.finished]
        if missing:
            first = self.not_done.get(missing[0], "no worker has said why")
            raise OutputError(
                f"{len(missing):,} of {n_parts:,} parts have no rows, all others are "
                f"finished; first, part {missing[0]}: {first}. The same command again "
                "goes on with them"
            )

    def _not_done(self, outcome: Outcome) -> None:
        self.not_done[outcome["part"]] = outcome["lost"]
        if len(self.not_done) <= MOST_TOLD:
            self.say(f"part {outcome['part']} is left out: {outcome['lost']}")

    def _outcomes(
        self, job: PartJob, missing: list[int]
    ) -> Generator[Outcome, None, None]:
        if self.options.engine == "ray":
            from .ray_workers import score_on_ray

            return score_on_ray(
                job,
                missing,
                address=self.options.ray_address,
                workers=self.team.workers,
                threads=self.team.threads,
            )
        assert self.team.workers is not None
        return score_locally(job, missing, workers=self.team.workers, lost=self._lost)

    def _begun_again(self, outcome: Outcome) -> None:
        self.again.append({key: outcome[key] for key in ("part", "begun_before")})
        if self.options.engine == "ray":  # which tells of no lost worker itself
            self.say(
                f"part {outcome['part']} was begun before by a worker that was lost; "
                f"scored by {outcome['worker']}"
            )

    def _lost(self, line: str) -> None:
        self.lost.append(line)
        self.say(line)

    def _check(self, outcome: Outcome) -> None:
        where = f"worker {outcome['worker']}"
        if "refused" in outcome:
            raise KINDS[outcome["kind"]](f"{where}: {outcome['refused']}")
        if "failed" in outcome:
            hint = "make room" if outcome["disk_full"] else "look at the cause"
            raise OutputError(
                f"{where}: {outcome['failed']}; what is finished stays: {hint}, then "
                "start the same command again"
            )

    def report(self, order: ScoreOrder) -> dict[str, Any]:
        """Give what is finished by now, of this start and earlier ones."""
        counts = {"inputs": self.document["n_inputs"], "rows": self.n_rows}
        for name in ("ok", "anomaly", "normal", "review"):
            counts[name] = sum(done[name] for done in self.finished.values())
        counts["failed"] = counts["rows"] - counts["ok"]
        complete = len(self.finished) == self.document["n_parts"]
        scored = counts["rows"] - self.rows_before
        return {
            "schema_version": SCORE_SCHEMA_VERSION,
            "kind": "score",
            "state": "finished" if complete else "incomplete",
            "finished": timestamp(),
            "counts": counts,
            "errors": self._errors(),
            "parts": {
                "planned": self.document["n_parts"],
                "finished": len(self.finished),
                "of_earlier_starts": self.before,
                "left_out": {
                    str(part): self.not_done[part] for part in sorted(self.not_done)
                },
            },
            "skipped": self.document["skipped"],
            "this_start": {
                "engine": self.options.engine,
                "workers": len(self.workers) or self.team.workers,
                "threads_of_each": self.team.threads,
                "scored": scored,
                "seconds": round(self.seconds, 2),
                "per_second": round(scored / self.seconds, 2) if scored else None,
                "lost_workers": self.lost,
                "parts_begun_again": self.again,
                "peak_rss_mb": peak_rss_mb(),
                "peak_rss_mb_of_a_worker": self._largest_worker(),
            },
            "order": order.to_json(),
            "pyimgano": __version__,
        }

    def _largest_worker(self) -> float | None:
        known = [done["peak_rss_mb"] for done in self.finished.values()]
        return max((one for one in known if one is not None), default=None)

    def _errors(self) -> list[dict[str, Any]]:
        """Give each kind of error, how often, and its first input."""
        found: dict[str, dict[str, Any]] = {}
        for number in sorted(self.finished):
            for code, error in self.finished[number]["errors"].items():
                known = found.setdefault(code, {"code": code, **error, "count": 0})
                known["count"] += error["count"]
        return sorted(found.values(), key=lambda e: (-e["count"], e["code"]))
