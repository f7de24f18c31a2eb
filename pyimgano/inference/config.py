"""`infer_config.json` for the training side: load, narrow to a category, resolve.

    payload = load_infer_config("run/artifacts/infer_config.json")
    payload = select_infer_category(payload, "bracket")
    checkpoint = resolve_checkpoint(payload, "run/artifacts/infer_config.json")

What is valid is decided by `pyimgano_runtime`, for documents of both kinds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pyimgano_runtime._reader import read_json
from pyimgano_runtime.errors import BundleError, ConfigError
from pyimgano_runtime.infer_config import FILE_NAME, InferConfig, RunConfig
from pyimgano_runtime.infer_config import select_category as choose_category


def load_infer_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give a document of kind "run" or "bundle" as JSON, every field checked.

    Args:
        path: the file, or the folder that holds an infer_config.json.

    Raises:
        BundleError: missing, not JSON, another format or version, unknown keys, wrong
            types, contradictions; all at once.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    if file.exists() and not file.is_file():  # a FIFO would be waited for
        raise BundleError(f"{file}: is no regular file, expected {FILE_NAME}")
    payload = read_json(file, error=BundleError)
    return parse_document(payload, str(file)).to_dict()


def parse_document(payload: Any, where: str) -> RunConfig | InferConfig:
    """Give the typed document of a JSON object; see `load_infer_config`."""
    kind = payload.get("kind") if isinstance(payload, dict) else None
    if kind == "run":
        return RunConfig.from_dict(payload, where)
    return InferConfig.from_dict(payload, where)


def select_infer_category(
    payload: dict[str, Any], category: str | None = None
) -> dict[str, Any]:
    """Give the document with one category only: the named one, or the only one.

    Raises:
        ConfigError: several and none named, or an unknown name; both list them.
    """
    name = choose_category(list(payload["categories"]), category)
    narrowed = payload | {"categories": {name: payload["categories"][name]}}
    parity = payload.get("parity")
    if parity is not None:  # of a bundle
        narrowed["parity"] = parity | {
            "categories": {k: v for k, v in parity["categories"].items() if k == name},
            "goldens": [g for g in parity["goldens"] if g["category"] == name],
        }
    return narrowed


def resolve_checkpoint(
    payload: dict[str, Any],
    config_path: str | os.PathLike[str],
    *,
    checkpoint_root: str | os.PathLike[str] | None = None,
) -> Path:
    """Give the absolute path of the checkpoint of a document with one category.

    The path in the document is relative to the document. Its target, links followed,
    must lie under the parent of the document's folder, so that
    `run/artifacts/infer_config.json` reaches `run/checkpoints`, or under
    `checkpoint_root`.

    Raises:
        ConfigError: the target lies elsewhere, or is no file.
        BundleError: the document is a bundle's, which has no checkpoint.
    """
    config_path = Path(config_path)
    if payload["kind"] != "run":
        raise BundleError(
            f"{config_path}: is a bundle's document and names no checkpoint; take "
            'the run\'s, made by "pyimgano train --export-infer-config"'
        )
    (category,) = payload["categories"].values()
    written: str = category["checkpoint"]["path"]
    folder = config_path.absolute().parent.resolve()
    target = (folder / written).resolve()
    roots = [folder.parent]
    if checkpoint_root is not None:
        roots.append(Path(checkpoint_root).resolve())
    if not any(target.is_relative_to(root) for root in roots):
        raise ConfigError(
            f'{config_path}: checkpoint.path: "{written}" leads to {target}, expected '
            f"a file under {' or '.join(str(root) for root in roots)}; move the "
            "document into its run, or name the folder by --checkpoint-root"
        )
    if not target.is_file():
        raise ConfigError(
            f'{config_path}: checkpoint.path: "{written}" leads to {target}, where no '
            "file is; copy the run's checkpoints too, or write the document again by "
            '"pyimgano train --export-infer-config"'
        )
    return target
