"""The splits that a benchmark runs on, alike for a manifest and for public layouts.

They are the workbench's own: same reader, same checks, same seeded assignment, so
that a benchmark tests on exactly the pictures that a training run tests on.
"""

from __future__ import annotations

from typing import Final

from pyimgano_runtime.errors import ConfigError, DatasetError, raise_all

from ..datasets.splits import CategorySplit
from ..workbench.config import LoadedConfig
from ..workbench.runner import load_splits

INPUT_MODES: Final = ("paths",)


def load_benchmark_splits(
    loaded: LoadedConfig, *, trains: bool = True
) -> list[CategorySplit]:
    """Give the split of every category, each with pictures to test on.

    Args:
        trains: whether there must be normals to train on.

    Raises:
        DatasetError: what the workbench refuses, or a category without test rows; all
            at once.
    """
    splits = load_splits(loaded, trains=trains)
    problems = [
        f"{split.category}: no test rows to compare on; give some rows split "
        '"test", or normals without a split and a test-normal fraction above 0'
        for split in splits
        if not split.test
    ]
    raise_all(problems, DatasetError)
    return splits


def check_input_mode(mode: str, dataset: str) -> None:
    """Refuse a way of reading pictures that there is not.

    Raises:
        ConfigError: says which there is.
    """
    if mode not in INPUT_MODES:
        raise ConfigError(
            f'--input-mode: found "{mode}"; data set "{dataset}" is read from '
            f"{' or '.join(INPUT_MODES)} only: leave the option out, or save arrays as "
            ".npy files and name them in a manifest"
        )
