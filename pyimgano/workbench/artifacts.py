"""The layout of a run folder, written by training and read by everything after it.

    run/  config.json  environment.json  report.json
          categories/<folder>/  report.json  calibration.json  data.json
                                per_image.jsonl
          checkpoints/<folder>/model.safetensors

`<folder>` is the category's name made safe for every file system; report.json maps
one to the other.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import Fields, dump_json, read_json
from pyimgano_runtime._version import __version__
from pyimgano_runtime.atomic import finish_swap, write_text
from pyimgano_runtime.errors import ConfigError, raise_all
from pyimgano_runtime.infer_config import Calibration, Thresholds
from pyimgano_runtime.reference import Reference
from pyimgano_runtime.reference_reader import read_reference
from pyimgano_runtime.thresholds_reader import read_calibration, read_thresholds

RUN_SCHEMA_VERSION: Final = "1.0"
PACKAGES: Final = (
    "torch", "numpy", "onnx", "onnxscript", "onnxruntime", "opencv-python-headless",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run folder."""

    folder: Path
    report: dict[str, Any]

    @property
    def config_path(self) -> Path:
        """The effective config."""
        return self.folder / "config.json"

    @property
    def categories(self) -> list[str]:
        """Names of the categories that were trained."""
        return list(self.report["categories"])

    def category_folder(self, category: str) -> Path:
        """Where a category's report lies."""
        name: str = self.report["categories"][category]["folder"]
        return self.folder / "categories" / name

    def checkpoint(self, category: str) -> Path:
        """A category's fitted detector."""
        name: str = self.report["categories"][category]["folder"]
        return self.folder / "checkpoints" / name / "model.safetensors"

    def digests(self, category: str) -> dict[str, dict[str, str]]:
        """sha256 of the pictures that trained or calibrated.

        "train", "val", and "labelled": those of the labelled manifest, if one was used.
        """
        path = self.category_folder(category) / "data.json"
        problems: list[str] = []
        fields = Fields(read_json(path), str(path), problems)
        fields.text("schema_version", choices=(RUN_SCHEMA_VERSION,))
        parts = {
            "train": _texts(fields.fields("train")),
            "val": _texts(fields.fields("val")),
            "labelled": _texts(fields.fields("labelled", {})),
        }
        raise_all(problems)
        return parts

    def versions(self) -> dict[str, str]:
        """Versions of pyimgano, torch and numpy that trained; unknown ones left out.

        Raises:
            ConfigError: environment.json is missing or damaged.
        """
        path = self.folder / "environment.json"
        problems: list[str] = []
        fields = Fields(read_json(path), str(path), problems)
        fields.text("schema_version", choices=(RUN_SCHEMA_VERSION,))
        found = {"pyimgano": fields.text("pyimgano")}
        packages = fields.fields("packages")
        for name in ("torch", "numpy"):
            if packages.has(name):
                found[name] = packages.text(name)
        raise_all(problems)
        return found

    def calibration(self, category: str) -> tuple[Thresholds, Calibration]:
        """A category's thresholds and calibration scores."""
        path = self.category_folder(category) / "calibration.json"
        problems: list[str] = []
        fields = Fields(read_json(path), str(path), problems)
        fields.text("schema_version", choices=(RUN_SCHEMA_VERSION,))
        thresholds = read_thresholds(fields.fields("thresholds"))
        calibration = read_calibration(fields.fields("calibration"))
        fields.has("reference")  # read by `reference`
        fields.finish()
        raise_all(problems)
        return thresholds, calibration

    def reference(self, category: str) -> Reference | None:
        """What drift of a category is measured from.

        None in runs of before it was recorded.
        """
        path = self.category_folder(category) / "calibration.json"
        problems: list[str] = []
        fields = Fields(read_json(path), str(path), problems)
        reference: Reference | None = fields.maybe(
            "reference", lambda key: read_reference(fields.fields(key))
        )
        raise_all(problems)
        return reference


def open_run(folder: Path) -> Run:
    """Give a finished run.

    Raises:
        ConfigError: no such folder, not a finished run, or its report is damaged.
    """
    finish_swap(folder)
    if not (folder / "report.json").is_file():
        raise ConfigError(
            f"{folder}: is not a finished run (no report.json); expected the --output "
            'folder of "pyimgano train"'
        )
    report = read_json(folder / "report.json")
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != RUN_SCHEMA_VERSION:
        raise ConfigError(
            f"{folder}/report.json: schema_version is {version!r}, expected "
            f'"{RUN_SCHEMA_VERSION}"; train again with this version'
        )
    problems: list[str] = []
    _check_report(Fields(report, f"{folder}/report.json", problems))
    raise_all(problems)
    return Run(folder.absolute(), report)


def _check_report(fields: Fields) -> None:
    """Check what is read from a run's report by those who open it."""
    for key in ("recipe", "detector", "finished"):
        fields.text(key)
    fields.text("reference_decoder", None)
    categories = fields.each("categories")
    if fields.payload.get("categories") == {}:
        fields.problem("categories", "found none, expected those that were trained")
    for _, category in categories:
        folder = category.text("folder")
        if folder in (".", "..") or set(folder) & set("/\\:"):
            category.problem(
                "folder",
                f'found "{folder}", expected the plain name of a folder; train again',
            )
        for key in ("detector", "data_fingerprint"):
            category.text(key)
        category.text("checkpoint_sha256", None)
        for key in ("hyper_parameters", "counts", "reasons"):
            category.fields(key)
        category.texts("warnings")
        category.number("fit_seconds")


def _texts(fields: Fields) -> dict[str, str]:
    """Give the members of an object of texts."""
    return {key: fields.text(key) for key in fields.payload}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, dump_json(dict(value)))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_text(path, "".join(f"{line}\n" for line in lines))


def environment() -> dict[str, Any]:
    """Give what a later reader needs to know about this machine and its packages."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "schema_version": RUN_SCHEMA_VERSION,
        "pyimgano": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": machine_name(),
        "packages": versions,
    }


def machine_name() -> str:
    """Give processor and core count in one line, without a host name."""
    model = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        names = [line for line in text.splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    except OSError:
        pass  # not Linux: the platform's own name stands
    return f"{model}, {os.cpu_count()} cores"
