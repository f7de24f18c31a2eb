"""Brightness and sharpness of a category's normals, for its drift reference."""

from __future__ import annotations

from typing import Final

import numpy as np

from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.picture_statistics import picture_statistics
from pyimgano_runtime.reference import Reference, picture_reference

from ..datasets.images import read_ahead
from ..datasets.splits import CategorySplit
from ..detectors.interface import Progress

MOST_PICTURES: Final = 500  # spread evenly: more would say no more, and cost their time


def normals_reference(
    split: CategorySplit, rules: InputRules, progress: Progress
) -> Reference:
    """Give how the normals of train and val look, by the runtime's own functions.

    It has no scores.
    """
    rows = [*split.train_normals(), *split.val]
    if len(rows) > MOST_PICTURES:
        places = np.linspace(0, len(rows) - 1, MOST_PICTURES).round().astype(int)
        rows = [rows[place] for place in places]
    found = []
    for done, image in enumerate(read_ahead(rows, rules), start=1):
        found.append(picture_statistics(image))
        progress("picture statistics", done, len(rows))
    return picture_reference(found, len({row.group for row in rows}))
