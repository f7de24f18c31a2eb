"""`pyimgano init`: a config and a manifest to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano init part",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--force",
    is_flag=True,
    help="Replace a config and a template that are there; never rows.",
)
def init(folder: Path, force: bool) -> None:
    """Write a starter config and a manifest template into DIR.

    DIR/config.json trains with good defaults; DIR/manifest.jsonl explains the rows in
    comments. What is there already is
    kept.
    """
    from importlib import resources

    from pyimgano_runtime.atomic import refuse_existing_file, write_text
    from pyimgano_runtime.errors import ConfigError

    shipped = resources.files("pyimgano") / "resources"
    files = {
        folder / "config.json": "manifest_industrial_workflow_balanced.json",
        folder / "manifest.jsonl": "manifest_template.jsonl",
    }
    texts = {
        path: (shipped / name).read_text(encoding="utf-8")
        for path, name in files.items()
    }
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file, expected a folder; name another one")
    folder.mkdir(parents=True, exist_ok=True)
    for (path, text), is_ours in zip(
        texts.items(), (_is_config, _holds_comments), strict=True
    ):
        if path.exists() and not (force and is_ours(path.read_bytes()[:4096])):
            click.echo(f"{path}: is there already, kept")
            continue
        refuse_existing_file(path, force=True, is_ours=is_ours)
        write_text(path, text)
        click.echo(str(path))
    here = shlex.quote(str(folder))
    click.echo(
        f"\nNext: pictures of good parts into {folder}/good, of defects into "
        f"{folder}/bad, then\n"
        f"  pyimgano manifest create --from {here}\n"
        f"  pyimgano preflight --config {here}/config.json\n"
        f"  pyimgano train --config {here}/config.json --output run"
    )


def _is_config(head: bytes) -> bool:
    return head.lstrip().startswith(b"{") and b'"dataset"' in head


def _holds_comments(head: bytes) -> bool:
    # Rows are work: they are never replaced by a template.
    return all(not line or line.startswith(b"#") for line in head.splitlines())
