"""Opens a bundle folder: the document is read strictly, every file is proven."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from ._reader import parse_json
from .errors import BundleError, raise_all
from .infer_config import FILE_NAME, InferConfig
from .paths import read_listed
from .quick_dataclass import dataclass

SHOWN_UNLISTED: Final = 5
MAX_CONFIG_BYTES: Final = 64 * 1024 * 1024
MAX_FILE_BYTES: Final = 2 * 1024**3
_EXPECTED: Final = (
    f'a bundle: a folder with {FILE_NAME}, made by "pyimgano bundle export"'
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose document was read; files are read when asked for."""

    root: Path
    config: InferConfig
    sha256: str  # of infer_config.json: names this release exactly
    allow_hard_links: bool = False
    # (model, threads, providers) -> its session, while an engine uses it: `sessions`
    sessions: WeakValueDictionary[tuple[str, int | None, tuple[str, ...]], Any] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )

    def read(self, path: str) -> bytes:
        """Give the bytes of a listed file, after checking size and sha256.

        Raises:
            BundleError: not listed, missing, a link, or changed since export.
        """
        entry = next((e for e in self.config.files if e.path == path), None)
        if entry is None:
            raise BundleError(f'{self.root}: "{path}" does not stand in files')
        return read_listed(
            self.root,
            path,
            size=entry.size,
            sha256=entry.sha256,
            max_bytes=MAX_FILE_BYTES,
            allow_hard_links=self.allow_hard_links,
        )

    def verify_files(self) -> None:
        """Read and check every listed file; all that is wrong is raised at once."""
        problems = []
        for entry in self.config.files:
            try:
                self.read(entry.path)
            except BundleError as error:
                problems.append(str(error))
        raise_all(problems, BundleError)

    @property
    def signature(self) -> Path | None:
        """The detached signature beside the folder, if one lies there; never read."""
        path = self.root.parent / f"{self.root.name}.sig"
        try:
            return path if path.is_file() else None
        except OSError:  # the folder above may be closed to us
            return None

    def unlisted_files(self) -> list[str]:
        """Files and links in the folder that the document does not list, sorted."""
        listed = {entry.path for entry in self.config.files} | {FILE_NAME}
        found = []
        for folder, folders, names in os.walk(self.root):
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in names + links:
                path = (Path(folder) / name).relative_to(self.root).as_posix()
                if path not in listed:
                    found.append(path)
        return sorted(found)


def unlisted_warnings(paths: Sequence[str]) -> list[str]:
    """Give the sentences about files that lie in a bundle folder and are not listed."""
    shown = [
        f"warning: {path} is in the bundle folder but not in its list of files; it is "
        "never read"
        for path in paths[:SHOWN_UNLISTED]
    ]
    more = len(paths) - SHOWN_UNLISTED
    return [*shown, f"warning: {more} more such files"] if more > 0 else shown


def open_bundle(
    folder: str | os.PathLike[str],
    *,
    allow_hard_links: bool = False,
    expect_sha256: str | None = None,
) -> Bundle:
    """Give the bundle in a folder, its document read and checked.

    Args:
        folder: the bundle's folder, or the infer_config.json in it.
        allow_hard_links: take files with several links, as OSTree and other stores
            of systems make them; who can write to one of the links can change them.
        expect_sha256: of infer_config.json, as the export printed it: this release
            and no other.

    Raises:
        BundleError: no such folder, no infer_config.json in it, another release than
            the expected one, or a document that is refused; the message says which
            field and why.
        ValueError: expect_sha256 is no sha256.
    """
    if expect_sha256 is not None and not is_sha256(expect_sha256):
        raise ValueError(
            f"expect_sha256: found {expect_sha256!r}, expected 64 hex digits"
        )
    if not os.fspath(folder):
        raise BundleError(f"the bundle's path is empty, expected {_EXPECTED}")
    root = Path(folder).absolute()
    try:
        if root.name == FILE_NAME and root.is_file():
            root = root.parent
        kind = "no such folder" if not root.exists() else "is a file"
        is_folder = root.is_dir()
        names = {path.name for path in root.iterdir()} if is_folder else set()
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise BundleError(
            f"{root}: cannot be opened ({cause}); expected {_EXPECTED}"
        ) from cause
    if not is_folder:
        hint = "; unpack it first" if root.suffix in (".zip", ".tar", ".gz") else ""
        raise BundleError(f"{root}: {kind}, expected {_EXPECTED}{hint}")
    if FILE_NAME not in names:
        raise BundleError(f"{root}: has no {FILE_NAME}, expected {_EXPECTED}")
    data = read_listed(
        root,
        FILE_NAME,
        size=None,
        sha256=None,
        max_bytes=MAX_CONFIG_BYTES,
        allow_hard_links=allow_hard_links,
    )
    where = str(root / FILE_NAME)
    digest = hashlib.sha256(data).hexdigest()
    if expect_sha256 is not None and digest != expect_sha256.lower():
        raise BundleError(
            f"{where}: sha256 is {digest}, expected {expect_sha256.lower()}; this is "
            "not the bundle that was released: copy that one again"
        )
    try:
        payload = parse_json(data, where, error=BundleError)
    except BundleError as cause:
        raise BundleError(f"{cause}; is the file damaged? copy the bundle again") from (
            cause
        )
    config = InferConfig.from_dict(payload, where)
    return Bundle(root, config, digest, allow_hard_links)


def is_sha256(text: str) -> bool:
    """Whether a text is a sha256 in hexadecimal digits."""
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None
