"""Reads a JSONL manifest: one picture a line, every problem found and placed.

    {"image_path": "good/001.png", "category": "bracket", "split": "train",
     "label": 0, "mask_path": null, "group_id": "lot-7", "meta": {}}

Paths are looked for beside the manifest, then under `root`. A picture stands once in
a category. Lines that begin with # are comments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from pyimgano_runtime._reader import Fields, parse_json
from pyimgano_runtime.errors import DatasetError

SPLITS: Final = ("train", "val", "test")
LABELS: Final = {0: 0, 1: 1, "normal": 0, "good": 0, "anomaly": 1, "defect": 1}
MAX_CATEGORY_NAME: Final = 100  # characters, as in a bundle's infer_config.json
MAX_LISTED: Final = 20
MAX_SHOWN: Final = 200  # characters of a path in a message


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One picture of a manifest."""

    image: str  # as written in the manifest: the stable name of this picture
    image_path: Path  # where it was found
    category: str
    split: str | None  # "train", "val", "test", or None: to be assigned
    label: int  # 0 normal, 1 anomaly
    mask_path: Path | None
    group_id: str | None  # pictures of one part: never divided between splits
    line: int
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The group, or the picture itself where it has none."""
        return f"group:{self.group_id}" if self.group_id else f"image:{self.image}"


def read_manifest(path: Path, *, root: Path | None = None) -> list[ManifestRow]:
    """Give every row of a manifest, checked.

    Raises:
        DatasetError: missing or empty file, a root that is no folder, lines that are
            no rows, files that do not exist, a picture twice in a category; all
            problems of the lines, the first 20 in words.
    """
    data = _read_bytes(path)
    if root is not None and not _is_there(root, Path.is_dir):
        raise DatasetError(
            f"{root}: no such folder; set dataset.root (--root) to the folder of the "
            "pictures, or leave it out"
        )

    rows: list[ManifestRow] = []
    problems: list[str] = []
    first_lines: dict[tuple[str, Path], int] = {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        where = f"{path}:{number}"
        try:
            payload = parse_json(text, where, error=DatasetError)
        except DatasetError as error:
            problems.append(str(error))
            continue
        if not isinstance(payload, dict):
            problems.append(f"{where}: expected an object {{...}} on each line")
            continue
        before = len(problems)
        row = _read_row(payload, where, number, path.parent, root, problems)
        if len(problems) > before:
            continue
        rows.append(row)
        # Resolved, for "./a.png" and a link to a.png are the same picture.
        picture = (row.category, row.image_path.resolve())
        first = first_lines.setdefault(picture, number)
        if first != number:
            problems.append(
                f"{where}: image_path: {_shown(row.image)} is the picture of line "
                f"{first} already; keep one of them"
            )
    raise_listed(problems)
    if not rows:
        raise DatasetError(f"{path}: holds no rows; expected one picture a line")
    return rows


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise DatasetError(
                f"{path}: is a folder, expected a JSONL file; "
                "name the manifest inside it"
            )
        return path.read_bytes()
    except FileNotFoundError as cause:
        raise DatasetError(
            f"{path}: no such manifest; expected a JSONL file with one picture a line, "
            "check the path"
        ) from cause
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise DatasetError(
            f"{path}: cannot be read ({getattr(cause, 'strerror', None) or cause}); "
            "check the path and its permissions"
        ) from cause


def _read_row(
    payload: Any,
    where: str,
    number: int,
    folder: Path,
    root: Path | None,
    problems: list[str],
) -> ManifestRow:
    fields = Fields(payload, where, problems)
    image = fields.text("image_path")
    category = _read_category(fields)
    split = fields.maybe("split", lambda key: fields.text(key, choices=SPLITS))
    label = _read_label(fields, split)
    mask = fields.maybe("mask_path", fields.text)
    group_id = fields.maybe("group_id", fields.text)
    meta = fields.maybe("meta", fields.raw)
    if meta is None:
        meta = {}
    elif not isinstance(meta, dict):
        fields.problem("meta", "expected an object {...} or null")
    fields.finish()
    return ManifestRow(
        image=image,
        image_path=_resolve(fields, "image_path", image, folder, root),
        category=category,
        split=split,
        label=label,
        mask_path=(_resolve(fields, "mask_path", mask, folder, root) if mask else None),
        group_id=group_id,
        line=number,
        meta=meta,
    )


def _read_category(fields: Fields) -> str:
    """Give a name that a bundle can carry too: 1 to 100 printable characters."""
    name = fields.text("category")
    if not name:
        return name  # reported
    if not name.isprintable() or not name.strip() or len(name) > MAX_CATEGORY_NAME:
        fields.problem(
            "category",
            f"found {_shown(name)}, expected 1 to {MAX_CATEGORY_NAME} printable "
            "characters",
        )
    return name


def _read_label(fields: Fields, split: str | None) -> int:
    if not fields.has("label"):
        if split in ("train", "val"):
            return 0  # these splits hold normals
        fields.problem("label", "missing; expected 0 (normal) or 1 (anomaly)")
        return 0
    value = fields.raw("label")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        value = None
    if value not in LABELS:
        fields.problem(
            "label",
            f'found {fields.payload["label"]!r}, expected 0 or "normal", '
            '1 or "anomaly"',
        )
        return 0
    return LABELS[value]


def _resolve(
    fields: Fields, key: str, written: str, folder: Path, root: Path | None
) -> Path:
    """Find a file beside the manifest, then under the root."""
    if not written:
        return folder
    pure = PurePosixPath(written)
    if pure.is_absolute() or PureWindowsPath(written).drive or ".." in pure.parts:
        fields.problem(
            key,
            f"{_shown(written)} is absolute or leaves its folder; write it relative to "
            "the manifest, or set dataset.root (--root) to the folder of the pictures",
        )
        return folder
    places = [folder] if root is None else [folder, root]
    for place in places:
        if _is_there(place / written, Path.is_file):
            return place / written
    looked = " or ".join(str(place) for place in places)
    fields.problem(
        key,
        f"{_shown(written)} is no file in {looked}; correct the path or set "
        "dataset.root (--root)",
    )
    return folder / written


def _is_there(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Whether there is such a file or folder; a path that none can have has none."""
    try:
        return kind(path)
    except (OSError, ValueError):  # too long, not permitted; a NUL
        return False


def _shown(written: str) -> str:
    """Give a text in quotes, on one line, without control characters."""
    text = json.dumps(written, ensure_ascii=not written.isprintable())
    return text if len(text) <= MAX_SHOWN else f'{text[: MAX_SHOWN - 4]}..."'


def raise_listed(problems: list[str]) -> None:
    """Raise a DatasetError that lists the first problems and counts the rest."""
    if not problems:
        return
    shown = problems[:MAX_LISTED]
    more = len(problems) - len(shown)
    tail = [f"... and {more} more"] if more else []
    head = [] if len(problems) == 1 else [f"{len(problems)} problems:"]
    raise DatasetError("\n".join(head + shown + tail))


def fingerprint(rows: Iterable[ManifestRow]) -> str:
    """Give the sha256 over the sorted (name, bytes) of the rows' pictures."""
    total = hashlib.sha256()
    for row in sorted(rows, key=lambda r: r.image):
        digest = hashlib.sha256(row.image_path.read_bytes()).hexdigest()
        total.update(f"{row.image}\0{digest}\n".encode())
    return total.hexdigest()
