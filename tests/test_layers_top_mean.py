"""The score of a map: the mean of its highest values."""

from __future__ import annotations

import pytest
import torch

from pyimgano.detectors.layers import TopMean


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    return torch.rand(3, 70, 131, generator=torch.Generator().manual_seed(0))


def test_no_share_is_the_maximum(maps: torch.Tensor) -> None:
    assert torch.equal(TopMean((70, 131), 0.0)(maps), maps.amax(dim=(1, 2)))


def test_one_cell_a_pixel_is_the_mean_of_the_highest_pixels(maps: torch.Tensor) -> None:
    small = maps[:, :60, :60]
    expected = small.flatten(1).sort(dim=1, descending=True).values[:, :36].mean(dim=1)
    torch.testing.assert_close(TopMean((60, 60), 0.01)(small), expected)


def test_a_lone_high_value_weighs_less_than_a_cluster_of_them() -> None:
    lone, cluster = torch.zeros(1, 384, 384), torch.zeros(1, 384, 384)
    lone[0, 100, 100] = 10.0
    cluster[0, 90:140, 90:140] = 5.0
    score = TopMean((384, 384), 0.01)
    assert float(lone.max()) > float(cluster.max())
    assert float(score(lone)) < float(score(cluster))


def test_every_border_counts() -> None:
    for row, column in ((0, 0), (0, 385), (257, 0), (257, 385)):
        picture = torch.zeros(1, 258, 386)
        picture[0, row, column] = 1.0
        assert float(TopMean((258, 386), 0.001)(picture)) > 0.0


def test_the_share_is_of_the_cells() -> None:
    assert TopMean((384, 384), 0.01).n_cells == 41  # of 64 x 64
    assert TopMean((384, 384), 1.0).n_cells == 64 * 64
    assert TopMean((32, 32), 0.0001).n_cells == 1
