"""What `pyimgano benchmark` does with its options.

--suite F                 many models on many data sets: `run_suite`
--run DIR --bundle B      take both as they are: `run_benchmark`
--dataset KIND ...        train and export first: `train_and_compare`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import parse_json
from pyimgano_runtime.atomic import new_folder, refuse_replacing
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.errors import ConfigError

from ..datasets.catalog import list_dataset_categories
from ..detectors.interface import Progress
from ..workbench.artifacts import Run, open_run
from ..workbench.config import LoadedConfig, load_config, parse_config
from .benchmark_options import BenchmarkOptions, refuse_contradictions
from .engines import ENGINES
from .gates import Gate, GateResult, judge_benchmark, parse_gates
from .mvtec_visa import check_input_mode
from .run_benchmark import BenchmarkRequest, parity_problems, run_benchmark
from .run_suite import run_suite
from .suite_file import default_name, load_suite
from .suite_plan import SuiteOptions
from .train_and_compare import train_and_compare, write_pages

DEFAULT_MODEL: Final = "patchcore"


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """A report, and what fails by it."""

    report: dict[str, Any]
    gates: tuple[GateResult, ...]
    problems: tuple[str, ...]  # cells that failed, bundles unlike their checkpoints

    @property
    def failed(self) -> bool:
        """Whether the command ends with exit code 1."""
        return bool(self.problems) or not all(gate.met for gate in self.gates)


def run_command(
    options: BenchmarkOptions,
    *,
    output: Path,
    force: bool,
    command: str | None,
    progress: Progress,
    say: Callable[[str], None],
) -> BenchmarkResult:
    """Run the benchmark that the options describe.

    Raises:
        ConfigError: options that contradict each other or are missing; all at once.
    """
    gates = parse_gates(options.minima, options.maxima)
    engines = options.engines  # refused early
    refuse_contradictions(options, force=force)
    if options.suite is not None:
        suite = load_suite(options.suite, base=options.suite_root)
        wanted = set(engines)
        if "int8" in suite.precisions:
            wanted.add("onnx-int8")
        if "fp32" not in suite.precisions:
            wanted.discard("onnx")
        report = run_suite(
            suite,
            SuiteOptions(
                engines=tuple(name for name in ENGINES if name in wanted),
                threads=options.threads,
                jobs=options.jobs,
                measure=options.measure,
                robustness_images=options.n_robustness,
                command=command,
                ray=options.ray,
            ),
            output,
            only=options.only,
            resume=options.resume,
            force=force,
            progress=progress,
            say=say,
        )
        return _suite_result(report, gates, output)
    check_input_mode(options.input_mode, options.kind or "manifest")
    needed = (
        *(options.run_folder, options.bundle_folder),
        *(options.manifest_path, options.root),
    )
    keep = [path for path in needed if path is not None]
    refuse_replacing(output, force=force, keep=keep)
    if options.run_folder is not None:
        report = _compare_existing(options, output, force, keep, progress)
    else:
        request = _request(options, _config(options))
        report = train_and_compare(
            request, output, force=force, keep=keep, progress=progress
        )
    return BenchmarkResult(
        report, tuple(judge_benchmark(gates, report)), tuple(parity_problems(report))
    )


def list_categories(options: BenchmarkOptions) -> list[str]:
    """Give the categories of the data set that the options name.

    Raises:
        ConfigError: no data set is named.
        DatasetError: it cannot be read.
    """
    if options.kind is None:
        raise ConfigError(
            "--list-categories: of which data set? give --dataset NAME --root DIR, or "
            "--manifest-path M"
        )
    return list_dataset_categories(
        options.kind, options.root, manifest_path=options.manifest_path
    )


def _compare_existing(
    options: BenchmarkOptions,
    output: Path,
    force: bool,
    keep: list[Path],
    progress: Progress,
) -> dict[str, Any]:
    """Compare a run with a bundle; what is left out comes from the run's config."""
    assert options.run_folder is not None
    assert options.bundle_folder is not None
    run = open_run(options.run_folder)
    request = _request(options, _config_of_run(options, run))
    bundle = open_bundle(options.bundle_folder)
    keep = [*keep, *request.loaded.source.needed]
    with new_folder(output, force=force, keep=keep) as folder:
        report = run_benchmark(run, bundle, request, folder, progress=progress)
        write_pages(folder, report)
    return report


def _request(options: BenchmarkOptions, loaded: LoadedConfig) -> BenchmarkRequest:
    model = loaded.config.model
    return BenchmarkRequest(
        loaded=loaded,
        dataset_name=default_name(loaded.source),
        model=f"{model.name}:{model.preset}" if model.preset else model.name,
        engines=options.engines,
        threads=options.threads or usable_cores(),
        options=options.measure,
        robustness_images=options.n_robustness,
    )


def _config_of_run(options: BenchmarkOptions, run: Run) -> LoadedConfig:
    """Give the run's own config, with the data that was named in its place."""
    loaded = load_config(run.config_path)
    dataset = loaded.config.dataset
    if options.kind is not None:
        dataset = replace(
            dataset,
            name=options.kind,
            manifest_path=_absolute(options.manifest_path),
            root=_absolute(options.root) or dataset.root,
        )
    elif options.root is not None:
        dataset = replace(dataset, root=_absolute(options.root))
    if options.category:
        dataset = replace(dataset, categories=options.category)
    if options.manifest_test_normal_fraction is not None:
        dataset = replace(
            dataset, test_normal_fraction=options.manifest_test_normal_fraction
        )
    seed = options.manifest_split_seed
    if seed is None:
        seed = loaded.config.split_seed
    dataset = replace(dataset, split_seed=seed)
    return replace(loaded, config=replace(loaded.config, dataset=dataset))


def _config(options: BenchmarkOptions) -> LoadedConfig:
    """Give the training config that the options describe."""
    text = options.model_options or "{}"
    seed = options.seed or 0
    split_seed = options.manifest_split_seed
    fraction = options.manifest_test_normal_fraction
    payload = {
        "seed": seed,
        "dataset": {
            "name": options.kind,
            "manifest_path": _absolute(options.manifest_path),
            "root": _absolute(options.root),
            "categories": list(options.category),
            "test_normal_fraction": 0.2 if fraction is None else fraction,
            "split_seed": seed if split_seed is None else split_seed,
        },
        "model": {
            "name": options.model or DEFAULT_MODEL,
            "preset": options.preset,
            "options": parse_json(text.encode(), "--model-options"),
        },
        "tiling": _tiling(options),
        # The benchmark measures both anyway, on the same pictures.
        "evaluation": {"pixel_metrics": False, "bootstrap_resamples": 0},
    }
    # Every path in it is absolute, so the folder it stands in says nothing.
    return LoadedConfig(parse_config(payload, "options"), Path("options").absolute())


def _tiling(options: BenchmarkOptions) -> dict[str, Any] | None:
    if options.tile_size is None:
        return None
    given = {
        "overlap": options.tile_overlap,
        "blend": options.tile_blend,
        "score": options.tile_score,
        "top_k": options.tile_top_k,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    return {"size": list(options.tile_size)} | chosen


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _suite_result(
    report: dict[str, Any], gates: tuple[Gate, ...], output: Path
) -> BenchmarkResult:
    results: list[GateResult] = []
    for cell in report["cells"]:
        path = output / "cells" / cell / "report.json"
        one = parse_json(path.read_bytes(), str(path))
        results += [
            replace(result, where=f"{cell}: {result.where}")
            for result in judge_benchmark(gates, one)
        ]
    failed = [
        f"{name}: {failure['kind']}: {failure['error']}"
        for name, failure in report["failed"].items()
    ]
    return BenchmarkResult(
        report, tuple(results), (*failed, *report["parity_problems"])
    )
