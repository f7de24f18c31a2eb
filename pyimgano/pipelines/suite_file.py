"""The suite file: which detectors on which data sets, read strictly.

    {"models": ["patchcore", {"name": "padim", "preset": "fast"}],
     "datasets": [{"dataset": "manifest", "manifest_path": "screw/manifest.jsonl"}],
     "seeds": [0], "precisions": ["fp32", "int8"]}

Only `models` and `datasets` are required. A name instead of a path is one of the
suites that ship with the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import Fields, closest, nearest, parse_json
from pyimgano_runtime.errors import ConfigError, PyimganoError, raise_all

from ..datasets.catalog import DATASETS, DataSource, list_dataset_categories
from ..detectors import detector_class, read_detector_config

PRECISIONS: Final = ("fp32", "int8")
MAX_SEED: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SuiteModel:
    """A detector with its hyper-parameters."""

    name: str
    preset: str | None
    options: dict[str, Any]
    label: str  # what the leaderboard calls it


@dataclass(frozen=True, slots=True)
class SuiteDataset:
    """A data set, and the categories of it that are run."""

    source: DataSource
    name: str  # what the leaderboard calls it
    categories: tuple[str, ...]
    test_normal_fraction: float
    split_seed: int | None  # None: the cell's seed


@dataclass(frozen=True, slots=True)
class Suite:
    """Everything that is run, every name resolved."""

    path: str  # of the file, for messages
    models: tuple[SuiteModel, ...]
    datasets: tuple[SuiteDataset, ...]
    seeds: tuple[int, ...]
    precisions: tuple[str, ...]


def shipped_suites() -> list[str]:
    """Give the names of the suites that ship with the package."""
    folder = resources.files("pyimgano") / "resources" / "suites"
    return sorted(p.name.removesuffix(".json") for p in folder.iterdir())


def load_suite(named: str, *, base: Path | None = None) -> Suite:
    """Give a suite by the path of its file, or by the name of a shipped one.

    Args:
        base: the folder on which its relative paths stand; default: that of the file,
            for a shipped suite the working directory.

    Raises:
        ConfigError: no such suite, unknown keys, names, options or categories, data
            that cannot be read; all at once.
    """
    data, folder = _read(named)
    problems: list[str] = []
    fields = Fields(parse_json(data, named), named, problems)
    fields.text("schema_version", "1.0", choices=("1.0",))
    fields.text("description", "")
    models = tuple(_models(fields, named, problems))
    datasets = tuple(_datasets(fields, base or folder))
    seeds = tuple(_seeds(fields))
    precisions = fields.texts("precisions", ("fp32",))
    for name in precisions:
        if name not in PRECISIONS:
            fields.problem("precisions", f'"{name}": {closest(name, PRECISIONS)}')
    for key, values in (("seeds", seeds), ("precisions", precisions)):
        if len(set(values)) != len(values):
            fields.problem(key, "the same stands there twice; keep one")
        if not values and fields.has(key):
            fields.problem(key, "found none; leave the key out for its default")
    fields.finish()
    _refuse_equal_names(fields, models, datasets)
    raise_all(problems)  # what follows looks at the data
    return Suite(named, models, _with_categories(datasets, named), seeds, precisions)


def _read(named: str) -> tuple[bytes, Path]:
    """Give the bytes of a suite, and the folder of its relative paths."""
    path = Path(named)
    if path.is_file():
        return path.read_bytes(), path.absolute().parent
    shipped = shipped_suites()
    if named in shipped:
        place = resources.files("pyimgano") / "resources" / "suites" / f"{named}.json"
        return place.read_bytes(), Path.cwd()
    raise ConfigError(
        f"--suite: {named}: no such file, and no suite of this name ships with the "
        f"package ({closest(named, shipped)}); shipped: {', '.join(shipped)}"
    )


def _models(fields: Fields, where: str, problems: list[str]) -> list[SuiteModel]:
    models = []
    for index, item in enumerate(fields.array("models")):
        at = f"models[{index}]."
        entry = Fields(
            {"name": item} if isinstance(item, str) else item, where, problems, at=at
        )
        name = entry.text("name", "")
        preset = entry.maybe("preset", entry.text)
        options = dict(entry.fields("options", {}).payload)
        label = entry.text("label", f"{name}:{preset}" if preset else name)
        entry.finish()
        models.append(SuiteModel(name, preset, options, label))
        if not name:
            entry.problem("name", "missing; name a detector, such as patchcore")
            continue
        try:
            cls = detector_class(name, f"{where}: {at}name")
        except ConfigError as error:
            problems.append(str(error))
            continue
        read_detector_config(
            cls, options, f"{where}: {at}options", problems, preset=preset
        )
    if not models:
        fields.problem("models", 'found none, expected detectors such as "patchcore"')
    return models


def _datasets(fields: Fields, base: Path) -> list[SuiteDataset]:
    found = []
    for entry in fields.items("datasets"):
        kind = entry.text("dataset", "manifest")
        if kind not in DATASETS:
            hint = closest(kind, DATASETS)
            entry.problem("dataset", f'no kind of data set is called "{kind}" ({hint})')
        manifest = entry.maybe("manifest_path", entry.text)
        root = entry.maybe("root", entry.text)
        needed, other = ("root", manifest)
        if kind == "manifest":
            needed, other = ("manifest_path", None)
        if not entry.has(needed):
            entry.problem(needed, f'missing; dataset "{kind}" needs it')
        if other is not None:
            entry.problem("manifest_path", f'has no effect with dataset "{kind}"')
        source = DataSource(kind, _place(base, manifest), _place(base, root))
        found.append(
            SuiteDataset(
                source=source,
                name=entry.text("name", default_name(source)),
                categories=entry.texts("categories", ()),
                test_normal_fraction=entry.number(
                    "test_normal_fraction", 0.2, low=0.0, high=0.9
                ),
                split_seed=entry.integer("split_seed", low=0, high=MAX_SEED)
                if entry.has("split_seed")
                else None,
            )
        )
        entry.finish()
    if not found and not fields.problems:
        fields.problem("datasets", "found none, expected at least one")
    return found


def default_name(source: DataSource) -> str:
    """Give what people call a data set: the folder of its manifest, or its layout."""
    if source.manifest_path is not None:
        return source.manifest_path.parent.name or source.manifest_path.stem
    return source.dataset


def _place(base: Path, written: str | None) -> Path | None:
    return None if written is None else (base / Path(written).expanduser()).absolute()


def _seeds(fields: Fields) -> list[int]:
    seeds = []
    for index, value in enumerate(fields.array("seeds", [0])):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            fields.problem("seeds", f"[{index}]: found {value!r}, expected 0, 1, 2 ...")
        else:
            seeds.append(value)
    return seeds


def _refuse_equal_names(
    fields: Fields,
    models: tuple[SuiteModel, ...],
    datasets: tuple[SuiteDataset, ...],
) -> None:
    for key, names, what in (
        ("models", [model.label for model in models], "label"),
        ("datasets", [dataset.name for dataset in datasets], "name"),
    ):
        twice = sorted({name for name in names if name and names.count(name) > 1})
        for name in twice:
            fields.problem(
                key,
                f'two entries are called "{name}"; tell them apart by "{what}", so '
                "that the leaderboard can",
            )


def _with_categories(
    datasets: tuple[SuiteDataset, ...], where: str
) -> tuple[SuiteDataset, ...]:
    """Name every category of every data set; refuse those that are not there."""
    problems, found = [], []
    for index, dataset in enumerate(datasets):
        at = f"{where}: datasets[{index}]"
        source = dataset.source
        try:
            known = list_dataset_categories(
                source.dataset, source.root, manifest_path=source.manifest_path
            )
        except PyimganoError as error:
            problems.append(f"{at}: {error}")
            continue
        for name in dataset.categories:
            if name not in known:
                hint = nearest(name, known)
                asked = f' (did you mean "{hint}"?)' if hint else ""
                problems.append(
                    f'{at}.categories: no category "{name}"{asked}; known: '
                    f"{', '.join(known)}"
                )
        chosen = dict.fromkeys(dataset.categories or known)
        found.append(
            SuiteDataset(
                source,
                dataset.name,
                tuple(chosen),
                dataset.test_normal_fraction,
                dataset.split_seed,
            )
        )
    raise_all(problems)
    return tuple(found)
