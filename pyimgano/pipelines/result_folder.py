"""One way to read what `pyimgano train` and `pyimgano benchmark` leave behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pyimgano_runtime._reader import Fields, closest, parse_json, read_json
from pyimgano_runtime.atomic import finish_swap
from pyimgano_runtime.errors import ConfigError, raise_all
from pyimgano_runtime.threshold_words import describe_threshold

from ..metrics.report_keys import REPORT_KEYS, ReportKey, value_of
from ..workbench.artifacts import RUN_SCHEMA_VERSION, Run, open_run

DEPLOYED: Final = "onnx"  # the engine that devices run


@dataclass(frozen=True, slots=True)
class ResultFolder:
    """A finished training run or benchmark."""

    folder: Path
    kind: Literal["run", "benchmark"]
    report: dict[str, Any]

    @property
    def categories(self) -> dict[str, dict[str, Any]]:
        """What the report says of each category."""
        found: dict[str, dict[str, Any]] = self.report["categories"]
        return found

    @property
    def title(self) -> str:
        """Detector or model, as people call it."""
        named = self.report.get("model") or self.report.get("detector")
        if named is not None:
            return str(named)
        detectors = {str(facts.get("detector")) for facts in self.categories.values()}
        return ", ".join(sorted(detectors))  # a benchmark of an earlier version

    @property
    def finished(self) -> str | None:
        """When it was done; None in benchmarks of earlier versions."""
        value = self.report.get("finished")
        return None if value is None else str(value)

    def engines(self, category: str) -> list[str]:
        """Engines of a benchmark; a training run has none."""
        return list(self.categories[category].get("engines", ()))

    def engine(self, category: str, wanted: str | None) -> str | None:
        """The engine whose numbers count: the wanted one, else onnx, else the first.

        Raises:
            ConfigError: the wanted engine was not measured.
        """
        engines = self.engines(category)
        if not engines:
            return None
        if wanted is None:
            return DEPLOYED if DEPLOYED in engines else engines[0]
        if wanted not in engines:
            raise ConfigError(
                f"{self.folder}: {category}: --engine {wanted} was not measured; "
                f"there: {', '.join(engines)}"
            )
        return wanted

    def numbers(self, category: str, engine: str | None) -> dict[str, Any]:
        """All that was measured of a category, under the report's keys."""
        facts = self.categories[category]
        return facts if engine is None else facts | facts["engines"][engine]

    def thresholds(self, category: str) -> dict[str, float | None]:
        """The calibrated thresholds of a category."""
        facts = self.categories[category]
        image = facts.get("image_threshold", facts.get("threshold"))
        return {"image": image, "pixel": facts.get("pixel_threshold")}

    def threshold_words(self, category: str) -> str:
        """Where the image threshold comes from, in a sentence."""
        if self.kind == "run":
            thresholds, _ = Run(self.folder, self.report).calibration(category)
            return describe_threshold(thresholds.provenance["image"])
        facts = self.categories[category]
        promised = facts.get("promised_false_alarm_rate")
        if promised is None:
            return "promises no false-alarm rate"
        about = "about" if facts.get("promise_approximate") else "at most"
        return f"promises {about} {promised:.2%} false alarms"

    def config(self) -> dict[str, Any]:
        """The effective config of a run; of a benchmark, what its report says of it."""
        if self.kind == "run":
            read: dict[str, Any] = _object(self.folder / "config.json")
            return read
        known = ("model", "seed", "dataset", "dataset_name", "manifest", "root")
        facts = {key: self.report[key] for key in known if key in self.report}
        return facts | {
            f"{name}.hyper_parameters": category.get("hyper_parameters")
            for name, category in self.categories.items()
        }

    def environment(self) -> dict[str, Any]:
        """Machine and versions that made the numbers."""
        if self.kind == "run":
            return _object(self.folder / "environment.json")
        found: dict[str, Any] = self.report.get("environment") or {}
        return found

    def pictures(self, category: str, engine: str | None) -> dict[str, dict[str, Any]]:
        """The row of each test picture, by its name.

        Raises:
            ConfigError: per_image.jsonl is missing, damaged or of no such engine.
        """
        place = self.folder / "categories" / self.categories[category]["folder"]
        path = place / "per_image.jsonl"
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        problems: list[str] = []
        rows: dict[str, dict[str, Any]] = {}
        for index, line in enumerate(lines, start=1):
            fields = Fields(
                parse_json(line, f"{path}:{index}"), f"{path}:{index}", problems
            )
            if fields.payload.get("engine") != engine:
                continue
            name = fields.text("input")
            fields.number("score")
            fields.text("label", choices=("normal", "anomaly"))
            fields.integer("label_true", low=0, high=1)
            if name in rows:
                fields.problem("input", f'"{name}" stands twice')
            rows[name] = fields.payload
        if not rows and not problems:
            problems.append(f"{path}: no row of {engine or 'the run'}; make it again")
        raise_all(problems[:10])
        return rows


def open_result(folder: Path) -> ResultFolder:
    """Give a finished training run or benchmark.

    Raises:
        ConfigError: neither of them is there, or its report is damaged.
    """
    finish_swap(folder)
    path = folder / "report.json"
    if not path.is_file():
        raise ConfigError(
            f"{folder}: is no finished training run or benchmark (no report.json); "
            'find them with "pyimgano runs list"'
        )
    report = _object(path)
    kind = kind_of(report)
    if kind == "run":
        run = open_run(folder)
        problems: list[str] = []
        for _, category in Fields(run.report, str(path), problems).each("categories"):
            _check_numbers(category)
        raise_all(problems)
        return ResultFolder(folder, "run", run.report)
    if kind == "suite":
        raise ConfigError(
            f"{folder}: is a suite of many benchmarks, expected one of them; name "
            f"a folder of {folder / 'cells'}"
        )
    if kind != "benchmark":
        raise ConfigError(
            f"{path}: is neither of a training run nor of a benchmark; expected the "
            '--output folder of "pyimgano train" or "pyimgano benchmark"'
        )
    _check_benchmark(report, path)
    return ResultFolder(folder, "benchmark", report)


def kind_of(report: Mapping[str, Any]) -> str | None:
    """Give "run", "benchmark" or "suite"; None where it is something else."""
    if report.get("kind") in ("benchmark", "suite"):
        return str(report["kind"])
    return "run" if "recipe" in report else None


def measured(
    results: Sequence[Mapping[str, Any]],
) -> list[ReportKey]:
    """Give the report keys that at least one of some reports has a number for."""
    return [
        key
        for key in REPORT_KEYS
        if any(value_of(numbers, key.name) is not None for numbers in results)
    ]


def _check_benchmark(report: dict[str, Any], path: Path) -> None:
    """Check what is read of a benchmark's report."""
    problems: list[str] = []
    fields = Fields(report, str(path), problems)
    fields.text("schema_version", choices=(RUN_SCHEMA_VERSION,))
    categories = fields.each("categories")
    if fields.payload.get("categories") == {}:
        fields.problem("categories", "found none, expected those that were measured")
    for _, category in categories:
        folder = category.text("folder", "-")
        if folder in (".", "..") or set(folder) & set("/\\:"):
            category.problem("folder", f'found "{folder}", expected a plain name')
        category.fields("counts")
        engines = category.each("engines")
        if category.payload.get("engines") == {}:
            category.problem("engines", "found none, expected at least one")
        for _, engine in engines:
            _check_numbers(engine)
    raise_all(problems)


def _check_numbers(fields: Fields) -> None:
    """Every report key is a number or null."""
    for key in REPORT_KEYS:
        outer, _, inner = key.name.rpartition(".")
        at = fields
        name = key.name
        if key.name not in fields.payload and outer:
            if not fields.has(outer):
                continue
            at, name = fields.fields(outer), inner
        if at.has(name):
            at.number(name)


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object; make it again")
    return value


def common_categories(
    a: ResultFolder, b: ResultFolder, wanted: Sequence[str]
) -> list[str]:
    """Give the categories that both have, in A's order; only the wanted if any.

    Raises:
        ConfigError: there is none, or a wanted one is not in both.
    """
    common = [name for name in a.categories if name in b.categories]
    if not common:
        raise ConfigError(
            f"no category is in both: {a.folder} has {', '.join(a.categories)}; "
            f"{b.folder} has {', '.join(b.categories)}"
        )
    raise_all(
        f'--category: no "{name}" in both folders ({closest(name, common)})'
        for name in wanted
        if name not in common
    )
    return [name for name in common if name in wanted] if wanted else common
