"""Finds the same picture again: by its bytes, and by what it shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.decode import read_file, read_image
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.quiet_opencv import quiet_opencv

from .content import Grey, PictureTable, grey_of
from .issues import IssueLog
from .near_duplicates import find_near_duplicates, thumbnail
from .rows import ManifestRow

SMALL_SIDE: Final = 256  # px that a picture keeps at least, twice what is compared


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row and the split that it is really used in."""

    row: ManifestRow
    split: str

    def __str__(self) -> str:
        line = f", line {self.row.line}" if self.row.line else ""
        return f"{self.row.image} ({self.split}{line})"

    def to_json(self) -> dict[str, Any]:
        """Give what a person needs to find the picture."""
        return {
            "image": self.row.image,
            "category": self.row.category,
            "split": self.split,
            "label": self.row.label,
            "line": self.row.line,
        }


def check_equal_bytes(
    placed: Sequence[PlacedRow], table: PictureTable, log: IssueLog
) -> npt.NDArray[np.int64]:
    """Log pictures with the same bytes; give (n,) ids, equal for equal bytes."""
    # What is no picture is said elsewhere: two empty files are no duplicates.
    known = table.decoded
    as_bytes = np.ascontiguousarray(table.digest).view("V32")[:, 0]
    _, first, ids = np.unique(as_bytes, return_index=True, return_inverse=True)
    ids = ids.reshape(-1).astype(np.int64)
    ids[~known] = len(first) + np.arange(int((~known).sum()))
    order = np.argsort(ids, kind="stable")
    bounds = np.flatnonzero(np.diff(ids[order])) + 1
    for group in np.split(order, bounds):
        if len(group) > 1:
            _log_equal([placed[i] for i in sorted(group.tolist())], log)
    return ids


def _log_equal(copies: Sequence[PlacedRow], log: IssueLog) -> None:
    by_category: dict[str, list[PlacedRow]] = defaultdict(list)
    for copy in copies:
        by_category[copy.row.category].append(copy)
    if len(by_category) > 1:
        firsts = [members[0] for members in by_category.values()]
        _log(
            "DUPLICATE_IN_CATEGORIES",
            f"{_listed(firsts)}: the same bytes in the categories "
            f"{', '.join(by_category)}; check which one the picture shows",
            copies,
            log,
        )
    for category, members in by_category.items():
        if len(members) == 1:
            continue
        splits = {copy.split for copy in members}
        if "test" in splits and len(splits) > 1:
            code, what = "DUPLICATE_IN_TRAIN_AND_TEST", "learned from and tested on"
        elif len(splits) > 1:
            code, what = "DUPLICATE_IN_TRAIN_AND_VAL", "trained and calibrated on"
        else:
            code, what = "DUPLICATE_IN_SPLIT", f"twice in {members[0].split}"
        _log(
            code,
            f"{category}: {_listed(members)}: the same bytes, {what}; remove all "
            "but one",
            members,
            log,
        )
        if len({copy.row.label for copy in members}) > 1:
            _log(
                "DUPLICATE_WITH_OTHER_LABEL",
                f"{category}: {_listed(members)}: the same bytes are labelled normal "
                "and anomaly; decide which it is",
                members,
                log,
            )


def check_near_duplicates(
    placed: Sequence[PlacedRow],
    table: PictureTable,
    ids: npt.NDArray[np.int64],
    rules: InputRules,
    log: IssueLog,
    *,
    threads: int,
    progress: Callable[[str, int, int], None],
) -> Mapping[str, int]:
    """Log clusters of look-alikes across splits; give the number of pairs by category.

    Train and val learn, test judges: only pairs with one picture on each side count.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(placed):
        # A constant picture has a descriptor of zeros, and is like every other one.
        if table.decoded[i] and table.descriptor[i].any():
            members[one.row.category].append(i)
    n_pairs: dict[str, int] = {}
    for category, indices in members.items():
        index = np.asarray(indices, np.int64)

        def load(i: int, index: npt.NDArray[np.int64] = index) -> npt.NDArray[Any]:
            row = int(index[i])
            longest = int(table.size[row].max())
            return thumbnail(_small_grey(placed[row].row.image_file, longest, rules))

        found = find_near_duplicates(
            table.descriptor[index],
            np.asarray([placed[i].split == "test" for i in indices], np.int8),
            load,
            same=ids[index],
            threads=threads,
            progress=lambda done, total: progress("near-duplicates", done, total),
        )
        n_pairs[category] = len(found.pairs)
        cluster_of = {i: n for n, c in enumerate(found.clusters) for i in c}
        values: dict[int, list[float]] = defaultdict(list)
        for pair in found.pairs:
            values[cluster_of[pair.first]].append(pair.similarity)
        for number, cluster in enumerate(found.clusters):
            highest = max(values[number])
            copies = [placed[int(index[i])] for i in cluster]
            _log(
                "NEAR_DUPLICATE_IN_TRAIN_AND_TEST",
                f"{category}: {_listed(copies)}: look like one part or frame "
                f"(similarity {highest:.2f}); look at them, and give pictures of one "
                "part one group_id",
                copies,
                log,
                similarity=round(highest, 4),
                n_pairs=len(values[number]),
            )
    return n_pairs


def _small_grey(path: str, longest: int, rules: InputRules) -> Grey:
    """Give a picture in grey, at an eighth to all of its size; upright.

    A JPEG decodes to a part of its size in a part of the time: a third at a half.
    """
    import cv2

    part = next((n for n in (8, 4, 2) if longest >= n * SMALL_SIDE), 1)
    if part > 1:
        flag = getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{part}")
        data = np.frombuffer(read_file(path, rules), np.uint8)
        with quiet_opencv():
            small = cv2.imdecode(data, flag)
        if small is not None:
            return np.asarray(small, dtype=np.uint8)
    return grey_of(read_image(path, rules))


def _log(
    code: str,
    message: str,
    copies: Sequence[PlacedRow],
    log: IssueLog,
    **facts: Any,
) -> None:
    log.add(
        code,
        message,
        category=copies[0].row.category,
        n_images=len(copies),
        images=[copy.to_json() for copy in copies[:20]],
        **facts,
    )


def _listed(copies: Sequence[PlacedRow]) -> str:
    more = f" and {len(copies) - 3} more" if len(copies) > 3 else ""
    return ", ".join(map(str, copies[:3])) + more
