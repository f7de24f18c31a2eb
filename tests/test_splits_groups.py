"""Splits and folds: groups never divide, and nothing else moves them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyimgano.datasets.rows import ManifestRow
from pyimgano.datasets.splits import CategorySplit, folds, split_manifest
from pyimgano_runtime.errors import DatasetError


def row(
    image: str,
    *,
    category: str = "part",
    split: str | None = None,
    label: int = 0,
    group: str | None = None,
) -> ManifestRow:
    return ManifestRow(
        image=image,
        folder=Path(),
        category=category,
        split=split,
        label=label,
        group_id=group,
        line=1,
    )


def names(rows: Sequence[ManifestRow]) -> list[str]:
    return [r.image for r in rows]


def members(split: CategorySplit) -> list[list[str]]:
    return [names(split.train), names(split.val), names(split.test)]


@st.composite
def free_rows(draw: st.DrawFn, category: str = "part") -> list[ManifestRow]:
    """Rows without a split; at least one group of normals."""
    groups = draw(
        st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=12)
    )
    rows = [row("always.png", category=category, group="always")]
    for number, (size, has_defect) in enumerate(groups):
        for index in range(size):
            rows.append(
                row(
                    f"{number}_{index}.png",
                    category=category,
                    label=int(has_defect and index == 0),
                    group=f"g{number}",
                )
            )
    return draw(st.permutations(rows))


seeds = st.integers(0, 1000)


@given(rows=free_rows(), seed=seeds, fraction=st.floats(0.0, 0.9))
def test_groups_never_divide(
    rows: list[ManifestRow], seed: int, fraction: float
) -> None:
    (split,) = split_manifest(rows, seed=seed, test_normal_fraction=fraction)
    places: dict[str, set[str]] = {}
    for which in ("train", "val", "test"):
        for member in getattr(split, which):
            places.setdefault(member.group, set()).add(which)
    assert all(len(where) == 1 for where in places.values())


@given(rows=free_rows(), seed=seeds)
def test_every_row_has_exactly_one_place(rows: list[ManifestRow], seed: int) -> None:
    (split,) = split_manifest(rows, seed=seed)
    placed = names([*split.train, *split.val, *split.test])
    assert Counter(placed) == Counter(names(rows))


@given(rows=free_rows(), seed=seeds)
def test_the_same_seed_gives_the_same_split(rows: list[ManifestRow], seed: int) -> None:
    (first,), (second,) = (split_manifest(rows, seed=seed) for _ in range(2))
    assert members(first) == members(second)


@given(rows=free_rows(), seed=seeds, data=st.data())
def test_the_order_of_the_rows_moves_nobody(
    rows: list[ManifestRow], seed: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows))
    (first,), (second,) = (split_manifest(r, seed=seed) for r in (rows, shuffled))
    assert [set(m) for m in members(first)] == [set(m) for m in members(second)]


@given(rows=free_rows(), other=free_rows("other"), seed=seeds)
def test_rows_of_one_category_move_no_row_of_another(
    rows: list[ManifestRow], other: list[ManifestRow], seed: int
) -> None:
    (alone,) = split_manifest(rows, seed=seed)
    together = split_manifest([*rows, *other], seed=seed)
    assert members(alone) == members(next(s for s in together if s.category == "part"))


@given(rows=free_rows(), seed=seeds)
def test_a_group_with_a_defect_goes_to_test(rows: list[ManifestRow], seed: int) -> None:
    (split,) = split_manifest(rows, seed=seed)
    with_defect = {r.group for r in rows if r.label == 1}
    assert {r.group for r in split.test} >= with_defect


@given(rows=free_rows(), seed=seeds, fraction=st.floats(0.0, 0.9))
def test_there_are_always_normals_to_train_on(
    rows: list[ManifestRow], seed: int, fraction: float
) -> None:
    (split,) = split_manifest(rows, seed=seed, test_normal_fraction=fraction)
    assert split.train_normals()


def test_a_fifth_of_single_normals_goes_to_test() -> None:
    (split,) = split_manifest([row(f"{n}.png") for n in range(100)])
    assert (len(split.train), len(split.test)) == (80, 20)


@given(rows=free_rows(), seed=seeds, fraction=st.floats(0.0, 0.9))
def test_the_test_share_is_exceeded_by_no_group_but_the_smallest(
    rows: list[ManifestRow], seed: int, fraction: float
) -> None:
    (split,) = split_manifest(rows, seed=seed, test_normal_fraction=fraction)
    with_defect = {r.group for r in rows if r.label == 1}
    sizes = Counter(r.group for r in rows if r.group not in with_defect)
    taken = {r.group for r in split.test} - with_defect
    wanted = round(fraction * sizes.total())
    if sum(sizes[g] for g in taken) > wanted:
        assert wanted > 0
        assert [sizes[g] for g in taken] == [min(sizes.values())]


@pytest.mark.parametrize("seed", range(20))
def test_a_large_group_does_not_overshoot_the_test_share(seed: int) -> None:
    rows = [row(f"{n}.png") for n in range(40)]
    rows += [row(f"big{n}.png", group="big") for n in range(60)]
    (split,) = split_manifest(rows, seed=seed)
    assert (len(split.train), len(split.test)) == (80, 20)


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_group_is_tested_where_none_fits(seed: int) -> None:
    rows = [
        row(f"{name}{n}.png", group=name)
        for name, size in (("a", 5), ("b", 3), ("c", 4))
        for n in range(size)
    ]
    (split,) = split_manifest(rows, seed=seed, test_normal_fraction=0.1)
    assert names(split.test) == ["b0.png", "b1.png", "b2.png"]


def test_no_normal_is_tested_where_none_is_wanted() -> None:
    (split,) = split_manifest([row("a.png"), row("b.png")], test_normal_fraction=0.0)
    assert names(split.test) == []


def test_another_seed_gives_another_split() -> None:
    rows = [row(f"{n}.png") for n in range(100)]
    (first,), (second,) = (split_manifest(rows, seed=seed) for seed in (0, 1))
    assert members(first) != members(second)


def test_rows_with_a_split_keep_it_and_their_order() -> None:
    rows = [
        row("c.png", split="train"),
        row("b.png", split="val"),
        row("a.png", split="test"),
        row("0.png", split="train"),
    ]
    (split,) = split_manifest(rows, test_normal_fraction=0.9)
    assert members(split) == [["c.png", "0.png"], ["b.png"], ["a.png"]]


def test_a_row_without_a_split_follows_its_group() -> None:
    rows = [
        row("a.png", split="train"),
        row("b.png", split="val", group="7"),
        row("c.png", group="7"),
    ]
    (split,) = split_manifest(rows, test_normal_fraction=0.9)
    assert names(split.val) == ["b.png", "c.png"]


def test_a_group_in_two_splits_is_refused_with_its_lines() -> None:
    rows = [
        row("a.png", split="train", group="7"),
        row("b.png", split="test", group="7"),
    ]
    with pytest.raises(DatasetError, match='group "7" stands in test and train'):
        split_manifest(rows)


@pytest.mark.parametrize("where", ["train", "val"])
def test_an_anomaly_among_the_normals_is_refused(where: str) -> None:
    rows = [row("a.png", split="train"), row("bad.png", split=where, label=1)]
    with pytest.raises(DatasetError, match=rf"bad\.png is an anomaly in {where}"):
        split_manifest(rows)


def test_a_detector_that_uses_defects_may_have_them_in_train() -> None:
    rows = [row("a.png", split="train"), row("bad.png", split="train", label=1)]
    (split,) = split_manifest(rows, uses_defects=True)
    assert names(split.train_defects()) == ["bad.png"]
    assert names(split.train_normals()) == ["a.png"]


def test_no_normals_to_train_on_is_refused() -> None:
    with pytest.raises(DatasetError, match="part: no normals to train on"):
        split_manifest([row("a.png", split="test")])


def test_an_unknown_category_is_refused_with_the_closest_name() -> None:
    with pytest.raises(DatasetError, match=r'no "prat".*did you mean "part"'):
        split_manifest([row("a.png")], categories=("prat",))


def test_only_the_wanted_categories_are_checked_and_given() -> None:
    rows = [row("a.png"), row("b.png", category="broken", split="test", label=1)]
    assert [s.category for s in split_manifest(rows, categories=("part",))] == ["part"]


def test_the_problems_of_all_categories_come_at_once() -> None:
    rows = [
        row("a.png", category="one", split="test"),
        row("b.png", category="two", split="test"),
    ]
    with pytest.raises(DatasetError) as caught:
        split_manifest(rows)
    assert "one: no normals" in str(caught.value)
    assert "two: no normals" in str(caught.value)


group_lists = st.lists(st.integers(0, 9).map(str), min_size=2, max_size=40).filter(
    lambda groups: len(set(groups)) > 1
)


@given(groups=group_lists, n_folds=st.integers(2, 7), seed=seeds)
def test_folds_partition_the_pictures(
    groups: list[str], n_folds: int, seed: int
) -> None:
    parts = folds(groups, n_folds=n_folds, seed=seed)
    assert sorted(i for part in parts for i in part) == list(range(len(groups)))
    assert all(parts)


@given(groups=group_lists, n_folds=st.integers(2, 7), seed=seeds)
def test_folds_never_divide_a_group(groups: list[str], n_folds: int, seed: int) -> None:
    parts = folds(groups, n_folds=n_folds, seed=seed)
    for group in set(groups):
        assert sum(any(groups[i] == group for i in part) for part in parts) == 1


@given(groups=group_lists, seed=seeds)
def test_folds_of_one_seed_are_the_same(groups: list[str], seed: int) -> None:
    assert folds(groups, seed=seed) == folds(groups, seed=seed)


def test_folds_of_single_pictures_are_balanced() -> None:
    parts = folds([str(n) for n in range(23)], n_folds=5)
    assert sorted(len(part) for part in parts) == [4, 4, 5, 5, 5]


def test_fewer_than_five_pictures_leave_one_out() -> None:
    assert sorted(folds(list("abcd"), n_folds=2)) == [[0], [1], [2], [3]]


def test_one_group_cannot_be_folded() -> None:
    with pytest.raises(DatasetError, match="3 normals in 1 group"):
        folds(["a", "a", "a"])
