"""What `pyimgano benchmark` does with its options: train and export, or take both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyimgano_runtime._reader import parse_json
from pyimgano_runtime.atomic import new_folder, refuse_replacing
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.engine import usable_cores
from pyimgano_runtime.errors import ConfigError, raise_all

from ..datasets.catalog import DataSource
from ..detectors.interface import Progress
from ..workbench.artifacts import open_run
from ..workbench.config import LoadedConfig, load_config, parse_config
from ..workbench.runner import train
from .export_run import export_run
from .run_benchmark import BenchmarkRequest, parse_engines, run_benchmark


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOptions:
    """The command's options as given; None where an option was left out."""

    dataset: str | None
    manifest_path: Path | None
    root: Path | None
    category: tuple[str, ...]
    model: str | None
    model_options: str | None
    manifest_test_normal_fraction: float | None
    manifest_split_seed: int | None
    seed: int
    run_folder: Path | None
    bundle_folder: Path | None
    compare: str
    threads: int | None
    no_pixel_metrics: bool

    def needed(self) -> list[Path]:
        """What the output may not replace."""
        places = (self.run_folder, self.bundle_folder, self.manifest_path, self.root)
        return [place for place in places if place is not None]

    def request(
        self,
        *,
        source: DataSource,
        categories: tuple[str, ...],
        fraction: float,
        split_seed: int,
    ) -> BenchmarkRequest:
        """Give the comparison on this split of this manifest."""
        return BenchmarkRequest(
            source=source,
            categories=categories,
            test_normal_fraction=fraction,
            split_seed=split_seed,
            engines=parse_engines(self.compare),
            pixel_metrics=not self.no_pixel_metrics,
            bootstrap_resamples=1000,
            seed=self.seed,
            threads=self.threads or usable_cores(),
        )


def run_command(
    options: BenchmarkOptions, *, output: Path, force: bool, progress: Progress
) -> dict[str, Any]:
    """Run the benchmark that the options describe and give its report.

    Raises:
        ConfigError: options that contradict each other or are missing; all at once.
    """
    parse_engines(options.compare)
    refuse_replacing(output, force=force, keep=options.needed())
    _refuse_contradictions(options)
    work = _compare_existing if options.dataset is None else _train_and_compare
    return work(options, output, force, progress)


def _compare_existing(
    options: BenchmarkOptions, output: Path, force: bool, progress: Progress
) -> dict[str, Any]:
    """Compare a run with a bundle; what is left out comes from the run's config."""
    assert options.run_folder is not None
    assert options.bundle_folder is not None
    run = open_run(options.run_folder)
    loaded = load_config(run.config_path)
    dataset = loaded.config.dataset
    fraction = options.manifest_test_normal_fraction
    seed = options.manifest_split_seed
    request = options.request(
        source=_source_of_run(options, loaded),
        categories=options.category or dataset.categories,
        fraction=dataset.test_normal_fraction if fraction is None else fraction,
        split_seed=loaded.config.split_seed if seed is None else seed,
    )
    bundle = open_bundle(options.bundle_folder)
    keep = [*options.needed(), *request.source.needed]
    with new_folder(output, force=force, keep=keep) as folder:
        return run_benchmark(run, bundle, request, folder, progress=progress)


def _source_of_run(options: BenchmarkOptions, loaded: LoadedConfig) -> DataSource:
    """Give the run's own data set, or the manifest that was named in its place."""
    if options.manifest_path is None:
        return replace(loaded.source, root=options.root or loaded.source.root)
    root = options.root or loaded.source.root
    return DataSource("manifest", options.manifest_path.absolute(), root)


def _train_and_compare(
    options: BenchmarkOptions, output: Path, force: bool, progress: Progress
) -> dict[str, Any]:
    """Train and export first; run and bundle stay in the output folder."""
    assert options.manifest_path is not None
    fraction = options.manifest_test_normal_fraction
    seed = options.manifest_split_seed
    root = None if options.root is None else options.root.absolute()
    request = options.request(
        source=DataSource("manifest", options.manifest_path.absolute(), root),
        categories=options.category,
        fraction=0.2 if fraction is None else fraction,
        split_seed=options.seed if seed is None else seed,
    )
    text = options.model_options or "{}"
    payload = {
        "seed": options.seed,
        "dataset": {
            "manifest_path": str(request.source.manifest_path),
            "root": None if root is None else str(root),
            "categories": list(options.category),
            "test_normal_fraction": request.test_normal_fraction,
            "split_seed": request.split_seed,
        },
        "model": {
            "name": options.model or "patchcore",
            "options": parse_json(text.encode(), "--model-options"),
        },
    }
    loaded = LoadedConfig(parse_config(payload, "options"), options.manifest_path)
    with new_folder(output, force=force, keep=options.needed()) as folder:
        run = train(loaded, folder / "run", force=False, progress=progress)
        export_run(
            run,
            folder / "bundle",
            name=output.absolute().name,
            version="1",
            created=None,
            goldens="synthetic",
            image_licence=None,
            parity_images=32,  # the benchmark itself compares every test picture
            force=False,
            progress=progress,
        )
        bundle = open_bundle(folder / "bundle")
        return run_benchmark(run, bundle, request, folder, progress=progress)


def _refuse_contradictions(options: BenchmarkOptions) -> None:
    given = {
        "--manifest-path": options.manifest_path,
        "--model": options.model,
        "--model-options": options.model_options,
        "--run": options.run_folder,
        "--bundle": options.bundle_folder,
    }
    problems = []
    present = {name for name, value in given.items() if value is not None}
    if options.dataset is not None:
        for name in sorted({"--run", "--bundle"} & present):
            problems.append(
                f"{name}: does not go with --dataset, which trains and exports anew"
            )
        if "--manifest-path" not in present:
            problems.append(
                "--manifest-path: missing; --dataset manifest needs the JSONL file, "
                "for example --manifest-path data/manifest.jsonl"
            )
    else:
        for name in ("--run", "--bundle"):
            if name not in present:
                problems.append(
                    f"{name}: missing; give --run and --bundle, or --dataset manifest"
                )
        for name in sorted({"--model", "--model-options"} & present):
            problems.append(f"{name}: has no effect with --run; remove it")
    raise_all(problems, ConfigError)
