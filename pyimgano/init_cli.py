"""`pyimgano init`: a config and a manifest to start from."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: pyimgano init part",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that are there already.")
def init(folder: Path, force: bool) -> None:
    """Write a starter config and a manifest template into DIR.

    DIR/config.json trains with good defaults; DIR/manifest.jsonl explains the rows in
    comments. Other files of DIR are left alone.
    """
    from importlib import resources

    from pyimgano_runtime.atomic import refuse_existing_file, write_text

    shipped = resources.files("pyimgano") / "resources"
    files = {
        folder / "config.json": "manifest_industrial_workflow_balanced.json",
        folder / "manifest.jsonl": "manifest_template.jsonl",
    }
    texts = {
        path: (shipped / name).read_text(encoding="utf-8")
        for path, name in files.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path in texts:
        refuse_existing_file(path, force=force)
    for path, text in texts.items():
        write_text(path, text)
    for path in texts:
        click.echo(str(path))
    click.echo(
        f"\nNext: pictures of good parts into {folder}/good, of defects into "
        f"{folder}/bad, then\n"
        f"  pyimgano manifest create --from {folder}\n"
        f"  pyimgano preflight --config {folder}/config.json\n"
        f"  pyimgano train --config {folder}/config.json --output run"
    )
