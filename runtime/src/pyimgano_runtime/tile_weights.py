"""How much a row or column of a tile's map counts where tiles overlap.

    axis_weights("hann", 64)  # (64,) float64: from 10 at the border to 4094

Whole numbers from 1 to 4096, so that every language computes with the same ones: what
`sin` and `exp` give in the last bits is rounded off. Products and sums of them with
float32 values are exact in float64 where tiles agree, so they join to what they say.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]

MEANS: Final = ("mean", "hann", "gaussian")  # blends that weigh
LARGEST: Final = 4096  # the smallest is 1: no row is left out, not even a border's
SHARPNESS: Final = 32  # 1 / (2 sigma^2) with sigma = 1/8 of a tile's side


def axis_weights(blend: str, cells: int) -> Weights:
    """Give the weights (cells,) of a blend along one side of a tile's map.

    Args:
        blend: one of `MEANS`.
        cells: of the tile's map along that side.
    """
    places = (np.arange(cells) + 0.5) / cells  # of the middles of cells: 0 to 1
    if blend == "hann":
        shares = np.sin(np.pi * places) ** 2
    elif blend == "gaussian":
        shares = np.exp(-SHARPNESS * (places - 0.5) ** 2)
    else:
        return np.ones(cells)
    return np.maximum(1.0, np.floor(LARGEST * shares + 0.5))
