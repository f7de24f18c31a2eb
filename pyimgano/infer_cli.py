"""`pyimgano infer`: judge pictures by a run, a bundle or a detector."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command_errors import EXIT_FAILED, exit_code_of, exit_on_sigterm
from .finite_range import FiniteNumber
from .plugin_option_cli import takes_plugins

if TYPE_CHECKING:
    from .pipelines.infer_source import InferOptions


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano infer --from-run run --save-overlays overlays photos/",
)
@click.option(
    "--infer-config",
    type=click.Path(path_type=Path),
    help="infer_config.json of a run or of a bundle (or its folder).",
)
@click.option(
    "--from-run",
    type=click.Path(path_type=Path),
    help='Run folder, made by "pyimgano train".',
)
@click.option("--model", help="Detector, with --train-dir or --checkpoint.")
@click.option(
    "--train-dir",
    type=click.Path(path_type=Path),
    help="Folder of good pictures: --model is fitted and calibrated on them first.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Fitted detector (model.safetensors); with --infer-config and --from-run it "
    "replaces theirs: another model than theirs needs --threshold too.",
)
@click.option("--preset", help='Named hyper-parameters of --model: "fast", "fine".')
@click.option(
    "--model-kwargs",
    metavar="JSON",
    help="Hyper-parameters of --model; they win over the preset.",
)
@click.option(
    "--infer-category",
    "--category",
    "category",
    help="Which category, where there are several.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where torch runs. Default: the document's.",
)
@click.option(
    "--engine",
    type=click.Choice(["torch", "onnx"]),
    help="Default: torch for a run, onnx for a bundle; onnx for a run exports in "
    "memory and compares with torch first.",
)
@click.option("--threshold", type=FiniteNumber(), help="Replaces the image threshold.")
@click.option(
    "--thresholds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Of "pyimgano-runtime calibrate", for a bundle.',
)
@click.option(
    "--checkpoint-root",
    type=click.Path(path_type=Path),
    help="A folder that the document's checkpoint may lie in, besides those around "
    "the document.",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="onnxruntime threads.")
@click.option(
    "--decode-workers",
    type=click.IntRange(0, 1024),
    metavar="N",
    help="Threads that decode pictures ahead of the model; 0: none. Default: the cores "
    "this process may use, at most 4.",
)
@click.option(
    "--print-effective-config",
    is_flag=True,
    help="Print what would be used, and whether a flag, the file or a default says "
    "so, as JSON; then exit.",
)
@click.option(
    "--output",
    metavar="FILE",
    help="Write the rows to FILE, complete or absent. Default: stdout.",
)
@click.option("--save-maps", metavar="DIR", help="Save each anomaly map as .npy.")
@click.option(
    "--save-overlays", metavar="DIR", help="Save each picture with its heat map."
)
@click.option("--force", is_flag=True, help="Replace what exists at the outputs.")
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@takes_plugins
def infer(
    inputs: tuple[str, ...],
    print_effective_config: bool,
    decode_workers: int | None,
    output: str | None,
    save_maps: str | None,
    save_overlays: str | None,
    force: bool,
    **chosen: Any,
) -> int:
    """Score pictures (files or folders), one JSON row each on stdout.

    What to infer with comes from one of --infer-config, --from-run and --model; flags
    win over what it says. The rows are those of "pyimgano-runtime infer". Exit code 1
    if a picture could not be scored.
    """
    from pyimgano_runtime.errors import ConfigError

    from .pipelines.infer_source import InferOptions

    options = InferOptions(**chosen)
    options.refuse_contradictions()
    if print_effective_config:
        click.echo(json.dumps(_effective(options), indent=2, ensure_ascii=False))
        return 0
    if not inputs:
        raise ConfigError("no INPUT given; expected picture files or folders")
    return _judge(
        options, inputs, output, save_maps, save_overlays, force, decode_workers
    )


def _effective(options: InferOptions) -> dict[str, Any]:
    from .pipelines.infer_command import (
        effective_before_fit,
        effective_config,
        make_plan,
    )
    from .pipelines.infer_source import open_source

    if options.train_dir is not None:
        return effective_before_fit(options)
    source = open_source(options, Path(), lambda step, done, total: None)
    return effective_config(make_plan(source, options))


def _judge(
    options: InferOptions,
    inputs: Sequence[str],
    output: str | None,
    save_maps: str | None,
    save_overlays: str | None,
    force: bool,
    decode_workers: int | None,
) -> int:
    from pyimgano_runtime.bundle import unlisted_warnings
    from pyimgano_runtime.inputs import file_inputs
    from pyimgano_runtime.row_output import PictureSaver, RowWriter, write_rows
    from pyimgano_runtime.sources import list_inputs

    from .pipelines.infer_command import make_plan, open_predictor
    from .pipelines.infer_source import open_source
    from .terminal_progress import TerminalProgress

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any file name can be shown
    writer = RowWriter(output, force=force)
    paths = list_inputs(inputs)
    _refuse_outputs(output, save_maps, save_overlays, force)
    with contextlib.ExitStack() as stack:
        stack.enter_context(exit_on_sigterm())
        workspace = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="pyimgano-infer-")
        )
        with TerminalProgress() as progress:
            source = open_source(options, Path(workspace), progress)
            plan = make_plan(source, options)
            if plan.bundle is not None:
                writer.keep_out_of(plan.bundle.root)
            predictor = open_predictor(plan, paths)
    if plan.bundle is not None:
        for line in unlisted_warnings(plan.bundle.unlisted_files()):
            _say(line)
    for warning in source.fit_warnings:
        _say(f"warning: {warning}")
    saver = PictureSaver(save_maps, save_overlays, predictor, force=force)
    tally = write_rows(
        *(predictor, file_inputs(paths), writer, saver),
        say=_say,
        decode_workers=decode_workers,
        total=len(paths),
    )
    return EXIT_FAILED if tally.failed else 0


def _refuse_outputs(
    output: str | None, save_maps: str | None, save_overlays: str | None, force: bool
) -> None:
    """Refuse before a fit what could only be refused after it.

    Raises:
        ConfigError: an output that cannot be written.
    """
    from pyimgano_runtime.atomic import refuse_existing
    from pyimgano_runtime.errors import ConfigError

    if output is not None and not Path(output).absolute().parent.is_dir():
        raise ConfigError(
            f"--output {output}: its folder does not exist; make it, or name a file in "
            "a folder that does"
        )
    for folder in (save_maps, save_overlays):
        if folder is not None:
            refuse_existing(Path(folder), force=force)


def _say(line: str) -> None:
    click.echo(line, err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pyimgano-infer`."""
    return exit_code_of(infer, arguments, "pyimgano-infer")


if __name__ == "__main__":
    sys.exit(main())
