"""The options of `pyimgano benchmark`, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyimgano_runtime.errors import ConfigError, raise_all

from .compare_engines import MeasureOptions
from .engines import parse_engines
from .suite_plan import RayOptions

ROBUSTNESS_IMAGES: Final = 100  # of each class
_OF_TRAINING: Final = {
    *("--model", "--preset", "--model-options", "--tile-size", "--tile-overlap"),
    *("--tile-blend", "--tile-score", "--tile-top-k"),
}

_OF_RAY: Final = {"--ray-address", "--cell-gpus", "--cell-memory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOptions:
    """The command's options as given; None where an option was left out."""

    dataset: str | None
    manifest_path: Path | None
    root: Path | None
    category: tuple[str, ...]
    input_mode: str
    model: str | None
    preset: str | None
    model_options: str | None
    tile_size: tuple[int, int] | None
    tile_overlap: float | None
    tile_blend: str | None
    tile_score: str | None
    tile_top_k: int | None
    manifest_test_normal_fraction: float | None
    manifest_split_seed: int | None
    seed: int | None
    run_folder: Path | None
    bundle_folder: Path | None
    suite: str | None
    suite_root: Path | None
    resume: bool
    only: tuple[str, ...]
    jobs: int | None
    engine: str
    ray_address: str | None
    cell_gpus: float | None
    cell_memory: int | None  # bytes
    compare: str
    threads: int | None
    no_pixel_metrics: bool
    no_process_costs: bool
    robustness: bool
    robustness_images: int | None
    minima: tuple[str, ...]
    maxima: tuple[str, ...]

    @property
    def kind(self) -> str | None:
        """The kind of data set; a manifest says by itself that it is one."""
        if self.dataset is None and self.manifest_path is not None:
            return "manifest"
        return self.dataset

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines of --compare."""
        return parse_engines(self.compare)

    @property
    def measure(self) -> MeasureOptions:
        """How much is measured."""
        return MeasureOptions(
            pixel_metrics=not self.no_pixel_metrics,
            seed=self.seed or 0,
            processes=not self.no_process_costs,
        )

    @property
    def n_robustness(self) -> int | None:
        """Pictures of each class for robustness; None: not measured."""
        if not self.robustness:
            return None
        return self.robustness_images or ROBUSTNESS_IMAGES

    @property
    def ray(self) -> RayOptions | None:
        """The cluster that runs a suite's cells; None: this machine does."""
        if self.engine != "ray":
            return None
        return RayOptions(self.ray_address, self.cell_gpus or 0.0, self.cell_memory)


def refuse_contradictions(options: BenchmarkOptions, *, force: bool) -> None:
    """Refuse options that are missing or have no effect.

    Raises:
        ConfigError: all of them at once.
    """
    given = {
        "--dataset": options.dataset,
        "--manifest-path": options.manifest_path,
        "--root": options.root,
        "--category": options.category or None,
        "--model": options.model,
        "--preset": options.preset,
        "--model-options": options.model_options,
        "--tile-size": options.tile_size,
        "--tile-overlap": options.tile_overlap,
        "--tile-blend": options.tile_blend,
        "--tile-score": options.tile_score,
        "--tile-top-k": options.tile_top_k,
        "--manifest-test-normal-fraction": options.manifest_test_normal_fraction,
        "--manifest-split-seed": options.manifest_split_seed,
        "--seed": options.seed,
        "--run": options.run_folder,
        "--bundle": options.bundle_folder,
        "--suite-root": options.suite_root,
        "--resume": options.resume or None,
        "--only": options.only or None,
        "--jobs": options.jobs,
        "--engine": None if options.engine == "local" else options.engine,
        "--ray-address": options.ray_address,
        "--cell-gpus": options.cell_gpus,
        "--cell-memory": options.cell_memory,
    }
    present = {name for name, value in given.items() if value is not None}
    of_suite = {"--suite-root", "--resume", "--only", "--jobs", "--engine", *_OF_RAY}
    if options.suite is not None:
        useless, cause = present - of_suite, "with --suite, whose file says it"
        missing: list[str] = []
    elif {"--run", "--bundle"} & present:
        useless = present & {*_OF_TRAINING, *of_suite}
        cause = "with --run"
        missing = [
            f"{name}: missing; give --run and --bundle, or --dataset or --suite"
            for name in ("--run", "--bundle")
            if name not in present
        ]
    else:
        useless, cause = present & of_suite, "without --suite"
        missing = _missing_data(options)
    if options.tile_size is None:
        missing += [
            f"{name}: has no effect without --tile-size"
            for name in sorted(present)
            if name.startswith("--tile-")
        ]
    if options.robustness_images is not None and not options.robustness:
        missing.append("--robustness-images: has no effect without --robustness")
    if options.suite is not None:
        missing += _ray_problems(options, present)
    problems = [f"{name}: has no effect {cause}; remove it" for name in sorted(useless)]
    if options.resume and force:
        missing.append(
            "--resume, --force: one goes on, the other begins anew: give one"
        )
    raise_all([*missing, *problems], ConfigError)


def _ray_problems(options: BenchmarkOptions, present: set[str]) -> list[str]:
    """What is wrong with the options of a suite's cluster."""
    gpus = options.cell_gpus or 0.0
    problems = []
    if options.engine != "ray":
        problems += [
            f"{name}: has no effect without --engine ray; remove it"
            for name in sorted(present & _OF_RAY)
        ]
    if gpus > 1 and not gpus.is_integer():
        problems.append(
            f"--cell-gpus: found {gpus:g}, expected a part of one GPU, such as 0.5, or "
            "a whole number: Ray gives no parts of several"
        )
    return problems


def _missing_data(options: BenchmarkOptions) -> list[str]:
    """What is missing to find the pictures."""
    if options.kind is None:
        return [
            "nothing to run: give --manifest-path M (or --dataset NAME --root DIR), "
            "--run DIR --bundle B, or --suite FILE"
        ]
    if options.kind == "manifest" and options.manifest_path is None:
        return [
            "--manifest-path: missing; --dataset manifest needs the JSONL file, for "
            'example --manifest-path data/manifest.jsonl; "pyimgano manifest create" '
            "makes one of your folders"
        ]
    if options.kind != "manifest" and options.manifest_path is not None:
        return [f'--manifest-path: has no effect with --dataset "{options.kind}"']
    if options.kind != "manifest" and options.root is None:
        return [
            f"--root: missing; --dataset {options.kind} needs the folder of its "
            "categories"
        ]
    return []
