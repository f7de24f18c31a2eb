"""Decides which pictures train, calibrate and test.

Groups never divide: pictures of one physical part always share a split. Rows without
a split are assigned by a seeded hash of their group, so that adding a row to one
category changes no other, and the same seed gives the same split everywhere.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyimgano_runtime._reader import nearest
from pyimgano_runtime.errors import DatasetError

from .issues import IssueLog
from .rows import ManifestRow


@dataclass(frozen=True, slots=True)
class CategorySplit:
    """The pictures of one category by their use, in manifest order."""

    category: str
    train: tuple[ManifestRow, ...]
    val: tuple[ManifestRow, ...]
    test: tuple[ManifestRow, ...]

    def train_normals(self) -> list[ManifestRow]:
        """The normals a detector learns from."""
        return [row for row in self.train if row.label == 0]

    def train_defects(self) -> list[ManifestRow]:
        """The labelled defects a detector may learn from, if it uses any."""
        return [row for row in self.train if row.label == 1]


def split_manifest(
    rows: Sequence[ManifestRow],
    *,
    categories: Sequence[str] = (),
    test_normal_fraction: float = 0.2,
    seed: int = 0,
    uses_defects: bool = False,
) -> list[CategorySplit]:
    """Give the split of each category, by name; see `assign_splits`.

    Raises:
        DatasetError: unknown category, a group in two splits, an anomaly where only
            normals may be, no normals to train on; all problems at once.
    """
    log = IssueLog()
    splits = assign_splits(
        rows,
        log,
        categories=categories,
        test_normal_fraction=test_normal_fraction,
        seed=seed,
        uses_defects=uses_defects,
    )
    log.raise_errors()
    return splits


def assign_splits(
    rows: Sequence[ManifestRow],
    log: IssueLog,
    *,
    categories: Sequence[str] = (),
    test_normal_fraction: float = 0.2,
    val_normal_fraction: float = 0.0,
    seed: int = 0,
    uses_defects: bool = False,
    trains: bool = True,
) -> list[CategorySplit]:
    """Give the split of each category, by name, and log what is wrong with it.

    Args:
        rows: all rows of a data set.
        log: told of conflicts; the result may be used only if there are no errors.
        categories: the ones wanted; all if empty.
        test_normal_fraction: share of the unassigned normals that goes to test.
        val_normal_fraction: share of the unassigned normals that goes to val.
        seed: other seeds give other assignments.
        uses_defects: whether the detector may be given defects in train.
        trains: whether there must be normals to train on.
    """
    members: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        members[row.category].append(row)
    known = sorted(members)
    # Of a category whose rows were all refused, the reader has said so already.
    refused = {issue.context.get("category") for issue in log.issues}
    for name in dict.fromkeys(categories):
        if name not in members and name not in refused:
            hint = nearest(name, known)
            asked = f' (did you mean "{hint}"?)' if hint else ""
            log.add(
                "MANIFEST_CATEGORY_EMPTY",
                f'categories: the data set has no "{name}"{asked}; it holds: '
                f"{', '.join(known) or 'none'}",
                category=name,
                known=known,
            )
    result = []
    for name in dict.fromkeys(categories or known):
        if name not in members:
            continue
        own = members[name]
        fractions = {"test": test_normal_fraction, "val": val_normal_fraction}
        assigned = _assign(name, own, fractions, seed, log)
        split = CategorySplit(
            name,
            *(
                tuple(r for r, s in zip(own, assigned, strict=True) if s == which)
                for which in ("train", "val", "test")
            ),
        )
        _check(split, uses_defects, log)
        if trains:
            _check_trainable(split, log)
        result.append(split)
    return result


def _assign(
    category: str,
    rows: Sequence[ManifestRow],
    fractions: Mapping[str, float],
    seed: int,
    log: IssueLog,
) -> list[str]:
    """Give the split of each row of a category."""
    groups: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        if row.group_id or not row.split:  # a single row with a split keeps it
            groups[row.group].append(row)
    of_group: dict[str, str] = {}
    free: list[str] = []
    for name, members in groups.items():
        explicit = sorted({row.split for row in members if row.split})
        if len(explicit) > 1:
            _log_conflict(category, members, explicit, log)
        if explicit:
            # Of several, which are refused, each row keeps its own: one complaint.
            of_group[name] = "test" if "test" in explicit else explicit[0]
        elif any(row.label == 1 for row in members):
            of_group[name] = "test"
        else:
            free.append(name)

    free.sort(key=lambda name: _order(seed, category, name))
    sizes = {name: len(groups[name]) for name in free}
    n_free = sum(sizes.values())
    for which, fraction in fractions.items():
        for name in _taken(sizes, round(fraction * n_free)):
            of_group[name] = which
            del sizes[name]
    of_group |= dict.fromkeys(sizes, "train")
    return [row.split or of_group[row.group] for row in rows]


def _log_conflict(
    category: str,
    members: Sequence[ManifestRow],
    explicit: Sequence[str],
    log: IssueLog,
) -> None:
    # One row of each split comes first: the conflict shows in the first two.
    firsts = [next(row for row in members if row.split == split) for split in explicit]
    others = [row for row in members if not any(row is first for first in firsts)]
    shown = sorted([*firsts, *others][:6], key=lambda row: row.line)
    lines = ", ".join(f"{row.place} {row.split or 'no split'}" for row in shown)
    more = f" and {len(members) - len(shown)} more" if len(members) > 6 else ""
    group_id = members[0].group_id
    what = f'group "{group_id}"' if group_id else f'"{members[0].image}"'
    log.add(
        "MANIFEST_GROUP_SPLIT_CONFLICT",
        f"{category}: {what} stands in {' and '.join(explicit)} ({lines}{more}); "
        "pictures of one part must share a split: give all its rows the same one",
        category=category,
        group_id=group_id,
        splits=list(explicit),
        lines=[row.line for row in [*firsts, *others][:20]],
        images=[
            {"image": row.image, "category": category, "split": row.split}
            for row in [*firsts, *others][:20]
        ],
        n_images=len(members),
    )


def _taken(sizes: dict[str, int], wanted: int) -> set[str]:
    """Give the groups that leave train: in their order, those that still fit.

    Where none fits, the smallest: a test of a few pictures too many says more than
    none. At least one group stays to train on, so that a small set can be fitted.
    """
    if wanted <= 0 or len(sizes) < 2:
        return set()
    taken: set[str] = set()
    left = wanted
    for name, size in sizes.items():
        if size <= left and len(taken) < len(sizes) - 1:
            taken.add(name)
            left -= size
    return taken or {min(sizes, key=sizes.__getitem__)}


def _order(seed: int, category: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{category}\0{name}".encode()).digest()


def _check(split: CategorySplit, uses_defects: bool, log: IssueLog) -> None:
    for which, members in (("val", split.val), ("train", split.train)):
        learned = uses_defects and which == "train"
        for row in members:
            if row.label == 0:
                continue
            facts: dict[str, Any] = {
                "category": split.category,
                "line": row.line,
                "image": row.image,
            }
            if row.split is None and not learned:
                log.add(
                    "MANIFEST_GROUP_ANOMALY_IN_TRAIN",
                    f"{split.category}: {row.title} is an anomaly of "
                    f'group "{row.group_id}", other rows of which stand in {which}, '
                    'which holds normals only; set the split of the group to "test"',
                    group_id=row.group_id,
                    split=which,
                    **facts,
                )
            elif learned:
                log.add(
                    "MANIFEST_ANOMALY_IN_TRAIN",
                    f"{split.category}: {row.title} is an anomaly in "
                    "train; the detector learns from it",
                    severity="info",
                    split=which,
                    **facts,
                )
            else:
                log.add(
                    "MANIFEST_ANOMALY_IN_TRAIN",
                    f"{split.category}: {row.title} is an anomaly in "
                    f"{which}, which holds normals only; {_to_test(row)}",
                    split=which,
                    **facts,
                )


def _check_trainable(split: CategorySplit, log: IssueLog) -> None:
    if not split.train_normals():
        log.add(
            "NO_NORMALS_TO_TRAIN",
            f"{split.category}: no normals to train on; give at least one row label 0 "
            'and split "train" or no split',
            category=split.category,
        )


def _to_test(row: ManifestRow) -> str:
    return 'set its split to "test"' if row.line else "move it to a folder of test"


def folds(groups: Sequence[str], *, n_folds: int = 5, seed: int = 0) -> list[list[int]]:
    """Give index lists that partition images into group-safe, balanced folds.

    With fewer than 5 images, or fewer groups than folds, every group is a fold of its
    own (leave one out).

    Raises:
        DatasetError: fewer than two groups, which cannot be folded.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    if len(members) < 2:
        raise DatasetError(
            f"{len(groups)} normals in {len(members)} group: a threshold needs normals "
            "that the model was not fitted on; add normals of other parts, or set "
            'calibration.method to "fixed" and name a threshold'
        )
    n_folds = len(members) if len(groups) < 5 else min(n_folds, len(members))
    order = sorted(members, key=lambda name: _order(seed, "fold", name))
    order.sort(key=lambda name: -len(members[name]))  # stable: large groups first
    result: list[list[int]] = [[] for _ in range(n_folds)]
    for name in order:
        smallest = min(result, key=len)
        smallest += members[name]
    return [sorted(fold) for fold in result]
