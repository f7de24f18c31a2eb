"""`pyimgano bundle`: export a run, and judge, show, compare and sign bundles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import click

from .bundle_accept_cli import accept
from .plugin_option_cli import takes_plugins

BUNDLE: Final = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bundle() -> None:
    """Make, verify, judge, show, compare and sign deploy bundles."""


bundle.add_command(accept)


@bundle.command(
    epilog="Example: pyimgano bundle export --run run --output bundle",
)
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    required=True,
    help='Run folder, made by "pyimgano train".',
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Bundle folder to make.",
)
@click.option("--name", help="Name of the bundle. Default: the output folder's name.")
@click.option(
    "--release", default="1", show_default=True, help="Version of the bundle."
)
@click.option(
    "--goldens",
    type=click.Choice(["synthetic", "real", "none"]),
    default="synthetic",
    show_default=True,
    help="Pictures that travel along so that devices can prove their scores; "
    '"real" ships photographs of yours.',
)
@click.option(
    "--image-licence", help="Licence of the training pictures, for the model card."
)
@click.option(
    "--parity-images",
    default="200",
    show_default=True,
    metavar="N|all",
    help="Held-out pictures compared with torch.",
)
@click.option(
    "--share-backbone",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="With several categories: one file for the backbone that they have in common, "
    "where that changes no bit of a score; not with int8.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="int8: convolutions compute in 8 bits, smaller and faster. Scores are others: "
    "thresholds are set and metrics measured again, by that graph.",
)
@click.option(
    "--accept-quality-loss",
    is_flag=True,
    help="With int8: write the bundle even where image AUROC falls by more than 0.005, "
    "or more than 2 % of the labels differ from fp32. It says so.",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle folder.")
@takes_plugins
def export(
    run_folder: Path,
    output: Path,
    name: str | None,
    release: str,
    goldens: str,
    image_licence: str | None,
    parity_images: str,
    share_backbone: str,
    precision: str,
    accept_quality_loss: bool,
    force: bool,
) -> None:
    """Export a run: a graph for each category, compared with torch on real pictures.

    Nothing is written unless every check passes: exit 1 names what disagrees.
    """
    from pyimgano_runtime.bundle import open_bundle
    from pyimgano_runtime.errors import ConfigError

    from .pipelines.export_run import export_run
    from .reporting.bundle_table import print_bundle
    from .source_date import source_date
    from .terminal_progress import TerminalProgress
    from .workbench.artifacts import open_run

    count = _count(parity_images)
    if accept_quality_loss and precision == "fp32":
        raise ConfigError(
            "--accept-quality-loss says what int8 may cost; give --precision int8 with "
            "it, or leave it out"
        )
    run = open_run(run_folder)
    if goldens == "real":
        click.echo(
            "note: --goldens real puts photographs of yours into the bundle; "
            "they travel to every device",
            err=True,
        )
    with TerminalProgress() as progress:
        export_run(
            run,
            output,
            name=name or output.absolute().name,
            version=release,
            created=source_date(),
            goldens=goldens,
            image_licence=image_licence,
            parity_images=count,
            share_backbone=share_backbone,
            precision=precision,
            accept_quality_loss=accept_quality_loss,
            force=force,
            progress=progress,
        )
    print_bundle(open_bundle(output))


@bundle.command(
    epilog="Examples: pyimgano bundle verify bundle --run run  |  "
    "pyimgano bundle verify bundle --signature bundle.sig --public-key public.pem",
)
@click.argument("folder", metavar="BUNDLE", type=BUNDLE)
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Run it was exported from: same facts, and parity with its checkpoints.",
)
@click.option(
    "--parity-images",
    default="50",
    show_default=True,
    metavar="N|all",
    help="With --run: held-out pictures scored by checkpoint and bundle.",
)
@click.option(
    "--expect-sha256",
    metavar="HEX",
    help="sha256 that infer_config.json must have: this very release.",
)
@click.option(
    "--signature",
    type=click.Path(path_type=Path),
    help='Signature file, made by "pyimgano bundle sign"; needs --public-key.',
)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path),
    help="Public key (PEM) of who must have signed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@takes_plugins
def verify(
    folder: Path,
    run_folder: Path | None,
    parity_images: str,
    expect_sha256: str | None,
    signature: Path | None,
    public_key: Path | None,
    as_json: bool,
) -> int:
    """Judge a bundle before its release.

    All findings at once, one line each: document, size and sha256 of every file, files
    that are not listed (refused here), operators and shapes of the graphs, and the
    goldens as a device replays them. With --run also: detector, hyper-parameters, data
    and threshold are the run's, and its checkpoints score goldens and held-out pictures
    like the bundle.

    Exit codes: 0 all is well; 1 a score disagrees; 2 the bundle is refused.
    """
    from pyimgano_runtime.errors import ConfigError

    from .pipelines.verify_bundle import VerifyRequest, verify_bundle
    from .reporting.bundle_table import print_verification
    from .terminal_progress import TerminalProgress
    from .workbench.artifacts import open_run

    if (signature is None) != (public_key is None):
        raise ConfigError("--signature and --public-key go together; give both")
    request = VerifyRequest(
        run=None if run_folder is None else open_run(run_folder),
        parity_images=_count(parity_images),
        expect_sha256=None if expect_sha256 is None else _sha256(expect_sha256),
        signature=signature,
        public_key=public_key,
    )
    with TerminalProgress() as progress:
        found = verify_bundle(folder, request, progress=progress)
    if as_json:
        _print_json(found.to_json())
    else:
        print_verification(found.to_json())
    if found.failed:
        what = ", ".join(dict.fromkeys(finding.what for finding in found.failed))
        count = len(found.failed)
        click.echo(
            f"pyimgano: {found.bundle}: not verified, {count} "
            f"finding{'s' * (count > 1)} FAILED ({what})",
            err=True,
        )
    return found.exit_code


@bundle.command(epilog="Example: pyimgano bundle inspect bundle")
@click.argument("folder", metavar="BUNDLE", type=BUNDLE)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print infer_config.json and its sha256 as JSON.",
)
def inspect(folder: Path, as_json: bool) -> None:
    """Show what is in a bundle and where it comes from.

    Files, model, thresholds and what set them, parity, goldens, metrics. Reads the
    document only; "pyimgano bundle verify" proves the files.
    """
    from pyimgano_runtime.bundle import open_bundle

    from .reporting.bundle_table import print_inspection
    from .signing import default_signature

    opened = open_bundle(folder)
    if as_json:
        _print_json(opened.config.to_dict() | {"sha256": opened.sha256})
        return
    signature = default_signature(opened.root)
    print_inspection(opened, signature if signature.is_file() else None)


@bundle.command(epilog="Example: pyimgano bundle diff bundle_may bundle_june")
@click.argument("a", metavar="A", type=BUNDLE)
@click.argument("b", metavar="B", type=BUNDLE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, equal facts too.")
def diff(a: Path, b: Path, as_json: bool) -> None:
    """Show what changed from release A to release B.

    Model, data, thresholds, metrics and parity side by side; then the goldens of both
    bundles, scored by both on this machine.

    Exit codes: 0 both could be read, equal or not; 2 one is refused.
    """
    from pyimgano_runtime.bundle import open_bundle

    from .pipelines.diff_bundles import diff_bundles
    from .reporting.bundle_diff_table import print_diff
    from .terminal_progress import TerminalProgress

    old, new = open_bundle(a), open_bundle(b)
    with TerminalProgress() as progress:
        found = diff_bundles(old, new, progress=progress)
    for opened in (old, new):
        for path in opened.unlisted_files():
            click.echo(
                f"warning: {opened.root / path} is not in the list of files", err=True
            )
    if as_json:
        _print_json(found)
    else:
        print_diff(found)


@bundle.command(
    epilog="Example: pyimgano bundle sign bundle --key private.pem",
)
@click.argument("folder", metavar="BUNDLE", type=BUNDLE)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="Private elliptic-curve key (PEM, P-256, P-384 or P-521), not encrypted.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Signature file to make. Default: BUNDLE.sig beside the bundle.",
)
@click.option("--force", is_flag=True, help="Replace an existing signature file.")
def sign(folder: Path, key: Path, output: Path | None, force: bool) -> None:
    """Sign a bundle with your own key, offline.

    The signature is a file beside the bundle; nothing is put into it or sent. Needs
    model-signing (the extra "sign"). A bundle with changed, missing or unlisted files
    is not signed. A key pair is made by

    \b
      openssl ecparam -name prime256v1 -genkey -noout -out private.pem
      openssl ec -in private.pem -pubout -out public.pem
    """
    from pyimgano_runtime.bundle import open_bundle
    from pyimgano_runtime.errors import BundleError, raise_all

    from .pipelines.verify_bundle import file_problems
    from .signing import default_signature, sign_folder

    opened = open_bundle(folder)
    raise_all(file_problems(opened), BundleError)
    target = default_signature(opened.root) if output is None else output
    sign_folder(opened.root, key, target, force=force)
    click.echo(f"signature: {target}")
    click.echo(f"sha256 of infer_config.json: {opened.sha256}")


def _count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(
            f'found "{text}", expected a positive number or "all"',
            param_hint="--parity-images",
        )
    return int(text)


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise click.BadParameter(
            f'found "{text}", expected 64 hexadecimal digits, as the export printed '
            "them",
            param_hint="--expect-sha256",
        )
    return text.lower()


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
