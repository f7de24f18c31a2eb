"""Decides which pictures train, calibrate and test.

Groups never divide: pictures of one physical part always share a split. Rows without
a split are assigned by a seeded hash of their group, so that adding a row to one
category changes no other, and the same seed gives the same split everywhere.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pyimgano_runtime._reader import closest
from pyimgano_runtime.errors import DatasetError

from .manifest import ManifestRow, raise_listed


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
    """Give the split of each category, by name.

    Args:
        rows: all rows of a manifest.
        categories: the ones wanted; all if empty.
        test_normal_fraction: share of the unassigned normals that goes to test.
        seed: other seeds give other assignments.
        uses_defects: whether the detector may be given defects in train.

    Raises:
        DatasetError: unknown category, a group in two splits, an anomaly where only
            normals may be, no normals to train on; all problems at once.
    """
    known = sorted({row.category for row in rows})
    problems = [
        f'categories: the manifest has no "{name}" ({closest(name, known)}); '
        f"it holds: {', '.join(known)}"
        for name in categories
        if name not in known
    ]
    raise_listed(problems)
    result = []
    for name in categories or known:
        members = [row for row in rows if row.category == name]
        assigned = _assign(name, members, test_normal_fraction, seed, problems)
        split = CategorySplit(
            name,
            *(
                tuple(r for r, s in zip(members, assigned, strict=True) if s == which)
                for which in ("train", "val", "test")
            ),
        )
        _check(split, uses_defects, problems)
        result.append(split)
    raise_listed(problems)
    return result


def _assign(
    category: str,
    rows: Sequence[ManifestRow],
    fraction: float,
    seed: int,
    problems: list[str],
) -> list[str]:
    """Give the split of each row of a category."""
    groups: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    of_group: dict[str, str] = {}
    free: list[str] = []
    for name, members in groups.items():
        explicit = sorted({row.split for row in members if row.split})
        if len(explicit) > 1:
            lines = ", ".join(f"line {row.line} {row.split}" for row in members[:6])
            group_id = members[0].group_id
            what = f'group "{group_id}"' if group_id else f'"{members[0].image}"'
            problems.append(
                f"{category}: {what} stands in {' and '.join(explicit)} ({lines}); "
                "pictures of one part must share a split: give all its rows the same "
                "one"
            )
        if explicit:
            # Of several, which are refused, train: no second complaint about none.
            of_group[name] = "train" if "train" in explicit else explicit[0]
        elif any(row.label == 1 for row in members):
            of_group[name] = "test"
        else:
            free.append(name)

    free.sort(key=lambda name: _order(seed, category, name))
    wanted = round(fraction * sum(len(groups[name]) for name in free))
    tested = _tested({name: len(groups[name]) for name in free}, wanted)
    for name in free:
        of_group[name] = "test" if name in tested else "train"
    return [of_group[row.group] for row in rows]


def _tested(sizes: dict[str, int], wanted: int) -> set[str]:
    """Give the groups that go to test: in their order, those that still fit.

    Where none fits, the smallest: a test of a few pictures too many says more than
    none. At least one group stays to train on, so that a small set can be fitted.
    """
    if wanted <= 0 or len(sizes) < 2:
        return set()
    tested: set[str] = set()
    left = wanted
    for name, size in sizes.items():
        if size <= left and len(tested) < len(sizes) - 1:
            tested.add(name)
            left -= size
    return tested or {min(sizes, key=sizes.__getitem__)}


def _order(seed: int, category: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{category}\0{name}".encode()).digest()


def _check(split: CategorySplit, uses_defects: bool, problems: list[str]) -> None:
    for row in split.val + (() if uses_defects else split.train):
        if row.label == 1:
            where = "val" if row in split.val else "train"
            problems.append(
                f"{split.category}: line {row.line}: {row.image} is an anomaly in "
                f'{where}, which holds normals only; set its split to "test"'
            )
    if not split.train_normals():
        problems.append(
            f"{split.category}: no normals to train on; give at least one row label 0 "
            'and split "train" or no split'
        )


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
