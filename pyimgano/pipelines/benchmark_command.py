"""What `pyimgano benchmark` does with its options: train and export, or take both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyimgano_runtime._reader import parse_json
from pyimgano_runtime.atomic import new_folder, refuse_replacing
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.engine import usable_cores
from pyimgano_runtime.errors import ConfigError, raise_all

from ..detectors.interface import Progress
from ..workbench.artifacts import Run, open_run
from ..workbench.config import LoadedConfig, load_config, parse_config
from ..workbench.runner import train
from .export_run import export_run
from .run_benchmark import BenchmarkRequest, parse_engines, run_benchmark


def run_command(
    *,
    output: Path,
    force: bool,
    progress: Progress,
    dataset: str | None,
    manifest_path: Path | None,
    root: Path | None,
    category: tuple[str, ...],
    model: str | None,
    model_options: str | None,
    manifest_test_normal_fraction: float | None,
    manifest_split_seed: int | None,
    seed: int,
    run_folder: Path | None,
    bundle_folder: Path | None,
    compare: str,
    threads: int | None,
    no_pixel_metrics: bool,
) -> dict[str, Any]:
    """Run the benchmark that the options describe and give its report.

    Raises:
        ConfigError: options that contradict each other or are missing; all at once.
    """
    engines = parse_engines(compare)
    keep = [p for p in (run_folder, bundle_folder, manifest_path, root) if p]
    refuse_replacing(output, force=force, keep=keep)
    trains = dataset is not None
    _refuse_contradictions(
        trains=trains,
        given={
            "--manifest-path": manifest_path,
            "--model": model,
            "--model-options": model_options,
            "--run": run_folder,
            "--bundle": bundle_folder,
        },
    )
    common: dict[str, Any] = {
        "engines": engines,
        "pixel_metrics": not no_pixel_metrics,
        "bootstrap_resamples": 1000,
        "seed": seed,
        "threads": threads or usable_cores(),
    }
    if not trains:
        assert run_folder is not None
        assert bundle_folder is not None
        run = open_run(run_folder)
        request = _request_of_run(
            run,
            manifest_path,
            root,
            category,
            manifest_test_normal_fraction,
            manifest_split_seed,
            common,
        )
        bundle = open_bundle(bundle_folder)
        keep += filter(None, [request.manifest_path, request.root])
        with new_folder(output, force=force, keep=keep) as folder:
            return run_benchmark(run, bundle, request, folder, progress=progress)

    assert manifest_path is not None
    fraction = (
        0.2 if manifest_test_normal_fraction is None else manifest_test_normal_fraction
    )
    split_seed = seed if manifest_split_seed is None else manifest_split_seed
    options = parse_json((model_options or "{}").encode(), "--model-options")
    payload = {
        "seed": seed,
        "dataset": {
            "manifest_path": str(manifest_path.absolute()),
            "root": None if root is None else str(root.absolute()),
            "categories": list(category),
            "test_normal_fraction": fraction,
            "split_seed": split_seed,
        },
        "model": {"name": model or "patchcore", "options": options},
    }
    loaded = LoadedConfig(parse_config(payload, "options"), manifest_path.absolute())
    request = BenchmarkRequest(
        manifest_path=manifest_path.absolute(),
        root=root,
        categories=category,
        test_normal_fraction=fraction,
        split_seed=split_seed,
        **common,
    )
    with new_folder(output, force=force, keep=keep) as folder:
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


def _request_of_run(
    run: Run,
    manifest_path: Path | None,
    root: Path | None,
    category: tuple[str, ...],
    fraction: float | None,
    split_seed: int | None,
    common: dict[str, Any],
) -> BenchmarkRequest:
    """Take what the options leave open from the run's own config."""
    loaded = load_config(run.config_path)
    dataset = loaded.config.dataset
    return BenchmarkRequest(
        manifest_path=(manifest_path or loaded.manifest_path).absolute(),
        root=root or loaded.root,
        categories=category or dataset.categories,
        test_normal_fraction=(
            dataset.test_normal_fraction if fraction is None else fraction
        ),
        split_seed=loaded.config.split_seed if split_seed is None else split_seed,
        **common,
    )


def _refuse_contradictions(*, trains: bool, given: dict[str, Any]) -> None:
    problems = []
    present = {name for name, value in given.items() if value is not None}
    if trains:
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
