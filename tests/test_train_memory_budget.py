"""The memory budget of a fit: where features go, and what that must not change."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pyimgano.detectors.feature_rows import FileRows, MemoryRows
from pyimgano.detectors.feature_set import FeatureSet
from pyimgano.detectors.interface import FitContext
from pyimgano.train_cli import train

N_IMAGES, CHANNELS, SIDE = 24, 6, 8
ALL_BYTES = N_IMAGES * CHANNELS * SIDE * SIDE * 4


def collected(folder: Path, memory_budget: int) -> FeatureSet:
    context = FitContext(
        generator=torch.Generator(),
        device=torch.device("cpu"),
        workspace=folder,
        progress=lambda step, done, total: None,
        memory_budget=memory_budget,
    )
    values = torch.randn(
        N_IMAGES, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0)
    )
    return FeatureSet.collect(
        torch.split(values, 5), lambda batch: batch, n_images=N_IMAGES, context=context
    )


def test_features_stay_in_memory_up_to_half_of_the_budget(tmp_path: Path) -> None:
    assert isinstance(collected(tmp_path, 2 * ALL_BYTES)._rows, MemoryRows)
    assert isinstance(collected(tmp_path, 2 * ALL_BYTES - 2)._rows, FileRows)


def test_features_on_disk_read_like_those_in_memory(tmp_path: Path) -> None:
    memory, disk = collected(tmp_path, 2**30), collected(tmp_path, 1)
    some = [7, 3, 3, 20]
    for one, other in (
        (memory, disk),
        (memory.subset(some), disk.subset(some)),
        (memory.columns(64, 128, (1, 8, 8)), disk.columns(64, 128, (1, 8, 8))),
        (
            memory.columns(64, 192, (2, 8, 8)).columns(64, 128, (4, 4, 4)),
            disk.columns(64, 192, (2, 8, 8)).columns(64, 128, (4, 4, 4)),
        ),
    ):
        assert one.shape == other.shape
        assert torch.equal(torch.cat([*one.batches(7)]), torch.cat([*other.batches(7)]))
        assert torch.equal(one.image(2), other.image(2))
        rows = torch.tensor([3, 0])
        assert torch.equal(one.images(rows), other.images(rows))


def test_the_file_on_disk_has_no_name_that_a_kill_could_leave(tmp_path: Path) -> None:
    features = collected(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []
    assert len(features) == N_IMAGES


def test_a_row_that_was_never_written_is_no_zeros(tmp_path: Path) -> None:
    rows = FileRows.empty(tmp_path, (3, 4))
    rows.write(0, np.ones((1, 4), dtype=np.float32))
    with pytest.raises(EOFError, match="row 2 was never written"):
        rows.read(np.asarray([2]))


def test_columns_of_another_size_are_refused(tmp_path: Path) -> None:
    rows = FileRows.empty(tmp_path, (3, 4))
    with pytest.raises(ValueError, match="2 numbers have not the shape"):
        rows.columns(0, 2, (3,))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("lots", 'found "lots", expected a size such as 4G'),
        ("10M", 'found "10M", expected at least 64M'),
        ("none", 'found "none", expected at least 64M'),
    ],
)
def test_a_budget_that_is_none_is_refused(size: str, words: str) -> None:
    result = CliRunner().invoke(train, ["--config", "x.json", "--memory-budget", size])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_the_budget_on_the_command_line_wins(
    small_dataset: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        f'{{"dataset": {{"manifest_path": "{small_dataset.as_posix()}"}}, '
        '"memory_budget_mb": 100}',
        encoding="utf-8",
    )
    arguments = ["--config", str(config), "--dry-run", "--memory-budget", "2G"]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    assert '"memory_budget_mb": 2048' in result.output
