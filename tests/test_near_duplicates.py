"""The search for near-duplicates: what it finds, what it leaves, what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from factories import texture_image
from pyimgano.datasets.near_duplicates import (
    VERIFIED_EACH,
    NearDuplicates,
    descriptor,
    find_near_duplicates,
    thumbnail,
)
from pyimgano.datasets.perceptual_hash import DESCRIPTOR_SIZE, hashes, neighbours

Grey = np.ndarray[Any, Any]


def pictures(n: int, *, seed: int = 0) -> list[Grey]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        pixels = texture_image(rng, size=(240, 320))
        coarse = rng.normal(0, 40, (30, 40)).astype(np.float32)
        stains = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) + stains
        made.append(np.clip(grey, 0, 255).astype(np.uint8))
    return made


def search(learned: list[Grey], judged: list[Grey], **options: Any) -> NearDuplicates:
    greys = [*learned, *judged]
    sides = np.r_[np.zeros(len(learned)), np.ones(len(judged))].astype(np.int8)
    return find_near_duplicates(
        np.stack([descriptor(grey) for grey in greys]),
        sides,
        lambda index: thumbnail(greys[index]),
        same=options.get("same", np.arange(len(greys))),
    )


def saved_again(grey: Grey) -> Grey:
    return cv2.imdecode(cv2.imencode(".jpg", grey, [1, 60])[1], 0)


def half(grey: Grey) -> Grey:
    return cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def exposed(grey: Grey) -> Grey:
    return cv2.convertScaleAbs(grey, alpha=0.7, beta=20)


def moved(grey: Grey) -> Grey:
    return np.roll(grey, (2, 5), axis=(0, 1))


@pytest.mark.parametrize("change", [saved_again, half, exposed, moved])
def test_a_changed_copy_is_found(change: Callable[[Grey], Grey]) -> None:
    learned = pictures(40)
    judged = [*pictures(24, seed=1), change(learned[7])]
    found = search(learned, judged)
    assert [(pair.first, pair.second) for pair in found.pairs] == [(7, 64)]
    assert found.clusters == ((7, 64),)


def test_other_parts_of_the_same_kind_are_no_pairs() -> None:
    assert search(pictures(60), pictures(40, seed=1)).pairs == ()


def test_what_all_parts_share_makes_no_pair() -> None:
    print_on_all = pictures(1, seed=9)[0].astype(np.float32)

    def with_print(greys: list[Grey]) -> list[Grey]:
        mixed = [0.8 * print_on_all + 0.2 * grey for grey in greys]
        return [np.clip(grey, 0, 255).astype(np.uint8) for grey in mixed]

    learned = with_print(pictures(60))
    judged = [*with_print(pictures(40, seed=1)), exposed(learned[5])]
    found = search(learned, judged)
    assert [(pair.first, pair.second) for pair in found.pairs] == [(5, 100)]


def test_another_part_in_the_same_pose_is_no_pair() -> None:
    rng = np.random.default_rng(5)

    def lying(grey: Grey, angle: float) -> Grey:
        """A bar that lies at an angle on a faint background of its own."""
        made = (110 + 0.15 * grey).astype(np.uint8)
        along = np.asarray([np.cos(angle), np.sin(angle)])
        middle = np.asarray([160, 120])
        ends = [tuple(map(int, middle + sign * 90 * along)) for sign in (-1, 1)]
        cv2.line(made, *ends, 220, 24)
        cv2.line(made, *ends, 60, 6)
        return made

    angles = rng.uniform(0, np.pi, 40)
    learned = [lying(g, a) for g, a in zip(pictures(40), angles, strict=True)]
    others = pictures(24, seed=1)
    judged = [lying(g, a) for g, a in zip(others, angles, strict=False)]
    assert search(learned, judged).pairs == ()
    again = [exposed(learned[3]), *judged]
    assert {pair.first for pair in search(learned, again).pairs} == {3}


def test_pictures_of_equal_bytes_are_left_to_the_other_check() -> None:
    learned = pictures(20)
    judged = [*pictures(20, seed=1), learned[3]]
    same = np.arange(41)
    assert len(search(learned, judged, same=same).pairs) == 1
    same[40] = 3
    assert search(learned, judged, same=same).pairs == ()


def test_pairs_within_one_side_are_none() -> None:
    learned = pictures(20)
    assert search([*learned, exposed(learned[0])], pictures(5, seed=1)).pairs == ()


def test_a_burst_is_one_cluster() -> None:
    learned = pictures(30)
    judged = [*pictures(20, seed=1), exposed(learned[4]), saved_again(learned[4])]
    found = search([*learned, half(learned[4])], judged)
    assert found.clusters == ((4, 30, 51, 52),)
    similarities = [pair.similarity for pair in found.pairs]
    assert similarities == sorted(similarities, reverse=True)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_pictures_are_compared_too(n: int) -> None:
    learned = pictures(n)
    found = search(learned, [exposed(grey) for grey in learned[:1]])
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, n)]


def test_constant_pictures_are_no_pair() -> None:
    flat = [np.full((50, 60), level, np.uint8) for level in (0, 90, 255)]
    assert search(flat, flat[:2], same=np.arange(5)).pairs == ()
    assert not descriptor(flat[0]).any()
    assert not thumbnail(flat[0]).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (33, 7), (700, 900)])
def test_any_size_has_a_descriptor(size: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    assert descriptor(grey).shape == (DESCRIPTOR_SIZE,)
    assert np.isfinite(thumbnail(grey)).all()


def test_the_same_data_gives_the_same_result() -> None:
    learned = pictures(30)
    judged = [exposed(grey) for grey in learned[:10]]
    assert search(learned, judged) == search(learned, judged)


def test_the_work_for_a_test_picture_is_bounded_even_if_all_are_alike() -> None:
    rng = np.random.default_rng(0)
    scene = pictures(1)[0].astype(np.float32)
    greys = [
        np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255).astype(np.uint8)
        for _ in range(400)
    ]
    sides = (np.arange(400) % 2).astype(np.int8)
    loads = 0

    def load(index: int) -> Any:
        nonlocal loads
        loads += 1
        return thumbnail(greys[index])

    find_near_duplicates(
        np.stack([descriptor(grey) for grey in greys]),
        sides,
        load,
        same=np.arange(400),
    )
    assert loads <= 200 + 200 * (VERIFIED_EACH + 1)


def test_neighbours_of_twenty_thousand_are_those_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.integers(-90, 90, (20_000, DESCRIPTOR_SIZE)).astype(np.int8)
    sides = np.zeros(20_000, np.int8)
    sides[::20] = 1
    # Each tenth test picture is a train picture with an eighth of its signs changed.
    planted = {}
    for number in range(0, 20_000, 200):
        twin = descriptors[number + 1].copy()
        flipped = rng.choice(DESCRIPTOR_SIZE, 16, replace=False)
        twin[flipped] = -twin[flipped]
        descriptors[number] = twin
        planted[number] = number + 1
    codes = hashes(descriptors)
    same = np.arange(20_000)
    found = neighbours(codes, sides, same=same, each=3, within=40)
    near = {
        int(i): [j for j in index if j >= 0]
        for i, index in zip(found.of, found.index.tolist(), strict=True)
    }
    right = sum(planted[i] in near.get(i, []) for i in planted)
    assert right >= 0.95 * len(planted)
    for i, index, bits in zip(found.of, found.index, found.bits, strict=True):
        for j, differing in zip(index[index >= 0], bits, strict=False):
            different = np.unpackbits((codes[i] ^ codes[j]).view(np.uint8)).sum()
            assert differing == different <= 40
            assert (sides[i], sides[j]) == (1, 0)


def test_copies_of_equal_bytes_leave_room_for_others() -> None:
    learned = pictures(20)
    judged = [*pictures(20, seed=1), learned[3]]
    # Four rows have the bytes of picture 3: three that learn, one that is judged.
    found = search(
        [*learned, *([learned[3]] * 3), exposed(learned[3])],
        judged,
        same=np.r_[np.arange(20), 3, 3, 3, 99, np.arange(100, 120), 3],
    )
    assert [(pair.first, pair.second) for pair in found.pairs] == [(23, 44)]
