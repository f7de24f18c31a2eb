"""Reads a JSONL manifest: one picture a line, every problem found and placed.

    {"image_path": "good/001.png", "category": "bracket", "split": "train",
     "label": 0, "mask_path": null, "group_id": "lot-7", "meta": {}}

Paths are looked for beside the manifest, then under `root`. A picture stands once in
a category. Lines that begin with # are comments.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pyimgano_runtime._reader import Fields, Problem, nearest, parse_json
from pyimgano_runtime.errors import DatasetError
from pyimgano_runtime.sources import PICTURE_SUFFIXES

from .issues import IssueLog
from .rows import MASK_ABOVE, ManifestRow

SPLITS: Final = ("train", "val", "test")
LABELS: Final = {0: 0, 1: 1, "normal": 0, "good": 0, "anomaly": 1, "defect": 1}
MAX_CATEGORY_NAME: Final = 100  # characters, as in a bundle's infer_config.json
MAX_SHOWN: Final = 200  # characters of a path in a message
MAX_LINE: Final = 1024 * 1024  # bytes; a row has a few hundred
# Absolute, with a drive, or with a step up; on Windows \\ parts folders as well.
ESCAPES: Final = re.compile(r"\A[/\\]|\A[A-Za-z]:|(?:\A|[/\\])\.\.(?:[/\\]|\Z)")
TWICE: Final = re.compile(r'the key "(.*)" stands twice')
CONSTANT: Final = re.compile(r"contains (\S+), expected finite")
NOT_TEXT: Final = re.compile(r"byte (\d+) is not UTF-8")
POSITION: Final = re.compile(r": line \d+, column (\d+): ")


def read_manifest(path: Path, *, root: Path | None = None) -> list[ManifestRow]:
    """Give every row of a manifest, checked.

    Raises:
        DatasetError: missing or empty file, a root that is no folder, lines that are
            no rows, files that do not exist, a picture twice in a category; all
            problems of the lines, the first 20 in words.
    """
    log = IssueLog()
    rows = scan_manifest(path, log, root=root)
    log.raise_errors()
    return rows


def scan_manifest(
    path: Path, log: IssueLog, *, root: Path | None = None
) -> list[ManifestRow]:
    """Give the rows that can be read, and log what is wrong with the others.

    A row whose picture or mask is missing is logged and left out.
    """
    if root is not None and not _is_there(str(root), stat.S_ISDIR):
        log.add(
            "DATASET_ROOT_MISSING",
            f"{root}: no such folder; set dataset.root (--root) to the folder of the "
            "pictures, or leave it out",
            root=str(root),
        )
        root = None
    reader = _ManifestReader(path, root, log)
    n_lines = 0
    for number, line in _lines(path, log):
        n_lines += 1
        reader.read(number, line)
    if not n_lines and not log.n_errors:
        log.add(
            "MANIFEST_EMPTY",
            f"{path}: holds no rows; expected one picture a line, "
            '"pyimgano manifest create --from FOLDER" writes them',
            path=str(path),
        )
    return reader.rows


def _lines(path: Path, log: IssueLog) -> Iterator[tuple[int, bytes]]:
    """Give (number, text) of every line that holds something; log what prevents it."""
    try:
        yield from _lines_of_file(path, log)
    except FileNotFoundError:
        log.add(
            "MANIFEST_NOT_FOUND",
            f"{path}: no such manifest; expected a JSONL file with one picture a line, "
            "check the path",
            path=str(path),
        )
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        reason = getattr(cause, "strerror", None) or str(cause)
        log.add(
            "MANIFEST_NOT_READABLE",
            f"{path}: cannot be read ({reason}); check the path and its permissions",
            path=str(path),
            reason=reason,
        )


def _lines_of_file(path: Path, log: IssueLog) -> Iterator[tuple[int, bytes]]:
    """Give (number, text) of every line that is neither blank nor a comment."""
    # Looked at first: to open a FIFO would wait for a writer that never comes.
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        folder = stat.S_ISDIR(mode)
        log.add(
            "MANIFEST_NOT_READABLE",
            f"{path}: is {'a folder' if folder else 'no regular file'}, expected a "
            f"JSONL file; name the manifest {'inside it' if folder else 'itself'}",
            path=str(path),
        )
        return
    number = rows = 0
    with path.open("rb") as stream:
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                log.add(
                    "MANIFEST_INVALID_JSON",
                    f"{path}:{number}: more than {MAX_LINE:,} bytes on one line; this "
                    "is no JSONL manifest, write one picture a line",
                    line=number,
                    column=1,
                )
                return
            text = line.strip()
            if not text or text.startswith(b"#"):
                continue
            reason = None if rows else _other_format(text)
            if reason is not None:
                log.add(
                    "MANIFEST_INVALID_JSON",
                    f"{path}:{number}: {reason}",
                    line=number,
                    column=1,
                )
                return
            rows += 1
            yield number, text


def _other_format(first: bytes) -> str | None:
    """Say which other kind of file begins with this line; None for a manifest."""
    advice = "a manifest has one JSON object a line, see docs/manifest.md"
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"this is UTF-16, expected UTF-8; save it as UTF-8 ({advice})"
    if first.startswith(b"["):
        return f"this is a JSON array; {advice}"
    if first == b"{":
        return (
            "this is one JSON document over several lines, perhaps a training config "
            f"(--config); {advice}"
        )
    if not first.startswith((b"{", b"\xef\xbb\xbf")) and b"image_path" in first:
        return f"this looks like a table (CSV); {advice}"
    return None


class _ManifestReader:
    """Turns lines into rows; knows what earlier lines held."""

    def __init__(self, path: Path, root: Path | None, log: IssueLog) -> None:
        self.rows: list[ManifestRow] = []
        self._path = path
        self._folders = [path.parent] if root is None else [path.parent, root]
        self._log = log
        # Of each category the pictures, hashed, and their first lines.
        self._lines_of: defaultdict[str, dict[int, int]] = defaultdict(dict)

    def read(self, number: int, text: bytes) -> None:
        """Read one line; a row that is right goes to `rows`."""
        where = f"{self._path}:{number}"
        try:
            payload = parse_json(text, where, error=DatasetError)
        except DatasetError as error:
            message, column = _with_column(str(error), text)
            self._log.add("MANIFEST_INVALID_JSON", message, line=number, column=column)
            return
        if not isinstance(payload, dict):
            self._log.add(
                "MANIFEST_INVALID_JSON",
                f"{where}: expected an object {{...}} on each line",
                line=number,
                column=1,
            )
            return
        before = self._log.n_errors
        row = self._row(payload, where, number)
        if self._log.n_errors == before and self._is_new(row, where):
            self.rows.append(row)

    def _row(self, payload: dict[str, Any], where: str, number: int) -> ManifestRow:
        problems: list[str] = []
        fields = Fields(payload, where, problems)
        image = fields.text("image_path")
        category = _read_category(fields)
        split = fields.maybe("split", lambda key: fields.text(key, choices=SPLITS))
        label = _read_label(fields, split)
        mask = fields.maybe("mask_path", fields.text)
        mask_above = fields.integer("mask_above", MASK_ABOVE, low=0, high=254)
        group_id = fields.maybe("group_id", fields.text)
        meta = fields.maybe("meta", fields.raw)
        if meta is None:
            meta = {}
        elif not isinstance(meta, dict):
            fields.problem("meta", "expected an object {...} or null")
        fields.finish()
        for problem in problems:
            assert isinstance(problem, Problem)
            facts: dict[str, Any] = {"field": problem.field}
            if problem.suggestion is not None:
                facts["suggestion"] = problem.suggestion
            self._log.add("MANIFEST_INVALID_RECORD", problem, line=number, **facts)
        return ManifestRow(
            image=image,
            folder=self._find("image", image, where, number, category),
            category=sys.intern(category),
            split=split if split is None else sys.intern(split),
            label=label,
            mask=mask or None,
            mask_folder=(
                self._find("mask", mask, where, number, category) if mask else None
            ),
            mask_above=mask_above,
            group_id=group_id,
            line=number,
            meta=meta,
        )

    def _find(
        self, kind: str, written: str, where: str, number: int, category: str
    ) -> Path:
        """Give the folder that holds a file: beside the manifest, then the root."""
        own = self._folders[0]
        if not written:
            return own  # reported
        key = f"{kind}_path"
        if ESCAPES.search(written):
            self._log.add(
                "MANIFEST_PATH_ESCAPE",
                f"{where}: {key}: {_shown(written)} is absolute or leaves its folder; "
                "write it relative to the manifest, or set dataset.root (--root) to "
                "the folder of the pictures",
                line=number,
                field=key,
                path=written,
                category=category,
            )
            return own
        for folder in self._folders:
            if _is_there(f"{folder}/{written}", stat.S_ISREG):
                return folder
            # The layout of MVTec LOCO: a folder with one mask for each defect.
            if kind == "mask" and _is_there(f"{folder}/{written}", stat.S_ISDIR):
                return folder
        looked = " or ".join(str(folder) for folder in self._folders)
        kinds = [_kind_of(f"{folder}/{written}") for folder in self._folders]
        what = next(filter(None, kinds), f"no file in {looked}")
        near = None if any(kinds) else _near_name(self._folders, written)
        hint = f' (did you mean "{near}"?)' if near else ""
        if "\\" in written:
            hint = " (folders are parted by /, not by a backslash)"
        facts: dict[str, Any] = {"category": category}
        if near:
            facts["suggestion"] = near
        self._log.add(
            f"MANIFEST_MISSING_{kind.upper()}",
            f"{where}: {key}: {_shown(written)} is {what}{hint}; correct the path or "
            "set dataset.root (--root)",
            line=number,
            field=key,
            path=written,
            **facts,
        )
        return own

    def _is_new(self, row: ManifestRow, where: str) -> bool:
        # Resolved, for "./a.png" and a link to a.png are the same picture. The text
        # itself would cost more memory than the row: of 10^5 pictures, two share a
        # hash of 64 bits with a chance of 3e-10.
        picture = hash(real_path(row.folder, row.image))
        first = self._lines_of[row.category].setdefault(picture, row.line)
        if first == row.line:
            return True
        self._log.add(
            "MANIFEST_DUPLICATE_IMAGE",
            f"{where}: image_path: {_shown(row.image)} is the picture of line {first} "
            "already; keep one of them",
            line=row.line,
            first_line=first,
            category=row.category,
            path=row.image,
        )
        return False


def _with_column(message: str, text: bytes) -> tuple[str, int | None]:
    """Give an error of one line with its column, 1-based; None where it has none."""
    position = POSITION.search(message)
    if position:  # the line is in front of it already
        column = int(position[1])
        return message.replace(position[0], f": column {column}: ", 1), column
    line = text.decode("utf-8", errors="replace")
    twice, constant = TWICE.search(message), CONSTANT.search(message)
    if twice:
        return message, line.rfind(json.dumps(twice[1], ensure_ascii=False)) + 1 or None
    if constant:
        return message, line.find(constant[1]) + 1 or None
    not_text = NOT_TEXT.search(message)
    if not_text:
        return message, len(text[: int(not_text[1])].decode("utf-8", "replace")) + 1
    return message, 1 if "byte-order mark" in message else None


def real_path(folder: Path, name: str) -> str:
    """Give a path with every link followed; folders are resolved once."""
    parent, _, last = f"{folder}/{name}".rpartition("/")
    path = f"{real_folder(parent)}/{last}"
    return os.path.realpath(path) if is_link(path) else path


@lru_cache(maxsize=1024)
def real_folder(path: str) -> str:
    """Give a folder with every link followed."""
    return os.path.realpath(path)


def is_link(path: str) -> bool:
    """Whether a path ends in a link."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _read_category(fields: Fields) -> str:
    """Give a name that a bundle can carry too: 1 to 100 printable characters."""
    name = fields.text("category")
    if not name:
        return name  # reported
    problem = category_problem(name)
    if problem is not None:
        fields.problem("category", problem)
    return name


def category_problem(name: str) -> str | None:
    """Say why a text is no name of a category; None if it is one."""
    if name.isprintable() and name.strip() and len(name) <= MAX_CATEGORY_NAME:
        return None
    return (
        f"found {_shown(name)}, expected 1 to {MAX_CATEGORY_NAME} printable characters"
    )


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
        found = json.dumps(fields.payload["label"])
        texts = [label for label in LABELS if isinstance(label, str)]
        hint = nearest(value, texts) if isinstance(value, str) else None
        tail = f' (did you mean "{hint}"?)' if hint else ""
        fields.problem(
            "label",
            f'found {found[:60]}, expected 0 or "normal", 1 or "anomaly"{tail}',
            suggestion=hint,
        )
        return 0
    return LABELS[value]


def _is_there(path: str, kind: Callable[[int], bool]) -> bool:
    """Whether there is such a file or folder; a path that none can have has none."""
    try:
        # Not by pathlib, which keeps the parts of every path: 0.4 kB a row.
        return kind(os.stat(path).st_mode)  # noqa: PTH116 - see above
    except (OSError, ValueError):  # missing, too long, not permitted; a NUL
        return False


def _kind_of(path: str) -> str | None:
    """Say what stands at a path if it is no regular file; None if nothing does."""
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISLNK(mode) and not _is_there(path, lambda _: True):
        return "a link that leads nowhere"
    return "a folder" if _is_there(path, stat.S_ISDIR) else "no regular file"


def _near_name(folders: list[Path], written: str) -> str | None:
    """Give the name that was meant: other case, Unicode normal form or suffix.

    Only these: of 007.png, the file 008.png is no misspelling.
    """
    pure = PurePosixPath(written)
    for folder in folders:
        name = _names_in(folder / pure.parent).get(_plain(pure.stem))
        if name is not None:
            return (pure.parent / name).as_posix()
    return None


@lru_cache(maxsize=8)
def _names_in(folder: Path) -> dict[str, str]:
    try:
        names = sorted((entry.name for entry in os.scandir(folder)), reverse=True)
    except (OSError, ValueError):
        return {}
    return {
        _plain(PurePosixPath(name).stem): name
        for name in names
        if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES
    }


def _plain(stem: str) -> str:
    return re.sub(r"[-_ ]", "", unicodedata.normalize("NFC", stem).casefold())


def _shown(written: str) -> str:
    """Give a text in quotes, on one line, without control characters."""
    text = json.dumps(written, ensure_ascii=not written.isprintable())
    return text if len(text) <= MAX_SHOWN else f'{text[: MAX_SHOWN - 4]}..."'
