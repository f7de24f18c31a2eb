"""Antialiased bilinear resize of one axis as small matrix products.

A resize is linear, and each output sees few neighbours: its matrix is a narrow band.
Outputs are taken in blocks of `BLOCK`; a block sees some dozen rows of the picture, so
the band becomes one small dense matrix a block, and the resize one gather of rows and
one batched matrix product. onnxruntime's own Resize with antialiasing first needs the
whole picture as float32 with the channels apart, and took 3.4 of 7 ms for 1000 x 1000
pixels.

The letterbox costs nothing here: a canvas that repeats the picture's border pixels is
a gather whose row numbers stop at the border.

The arithmetic of sizes is in integers, so that every engine has the same rows and the
same weights, whatever the size.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 8  # outputs a block: with more the product wastes zeros, with fewer rows repeat
# Weights 0..255: products with uint8 pixels are integers. Their sums stay below 2^24
# for pictures up to 258 times the model's side, so float32 holds each of them exactly
# and the exporter may take 8-bit operands for the same numbers (`integer_products`).
PEAK = 255


def summed_rows(rows: Tensor, side: int, canvas: int) -> tuple[Tensor, Tensor]:
    """Give the weighted sums (N, side, R) of rows (N, H, R), and their weights (side,).

    Sums divided by weights are the resize of the canvas to `side`: a triangle filter as
    wide as the output's pixel, or the input's where it is the larger one; what lies
    outside of the canvas does not count.

    Args:
        rows: uint8 or float32; an axis of the picture comes first, all else behind it.
        side: how many outputs.
        canvas: rows of the canvas, >= H; the picture lies in its middle, the odd row
            below, and its first and last row are repeated over the rest.
    """
    n, own, width = rows.shape
    places, weights = _band(side, canvas, device=rows.device)
    # (blocks * seen,) rows of the picture
    seen = (places - (canvas - own) // 2).clamp_min(0).clamp_max(own - 1).flatten()
    blocks, n_seen = places.shape
    parts = rows.index_select(1, seen).reshape(n, blocks, n_seen, width)
    sums = weights.to(torch.float32) @ parts.to(torch.float32)  # (N, blocks, BLOCK, R)
    whole = sums.reshape(n, blocks * BLOCK, width)
    totals = weights.sum(dim=2, dtype=torch.int64).flatten().to(torch.float32)
    if blocks * BLOCK == side:
        return whole, totals
    return whole[:, :side], totals[:side]


def _band(side: int, canvas: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Give the canvas rows (blocks, seen) that each block sees, int64, and their
    weights (blocks, BLOCK, seen) uint8.
    """
    blocks = -(-side // BLOCK)
    reach = torch.sym_max(canvas, side)  # type: ignore[no-untyped-call]
    # In units of 1 / (2 * side) of a canvas row, centres lie at whole numbers: of
    # output o at (2 o + 1) * canvas, of row i at (2 i + 1) * side. The filter falls to
    # zero over 2 * reach.
    first = torch.arange(blocks, device=device) * BLOCK
    # Clamped before it is divided: ONNX divides integers towards zero.
    start = ((2 * first + 1) * canvas - 2 * reach - side).clamp_min(0) // (2 * side)
    n_seen = ((BLOCK - 1) * canvas + 2 * reach) // side + 2
    places = start.unsqueeze(1) + torch.arange(n_seen, device=device)
    outputs = first.unsqueeze(1) + torch.arange(BLOCK, device=device)
    distance = (
        (2 * places + 1).unsqueeze(1) * side - (2 * outputs + 1).unsqueeze(2) * canvas
    ).abs()
    height = (2 * reach - distance).clamp_min(0)  # 0 .. 2 * reach
    weights = (height * PEAK + reach) // (2 * reach)  # rounded, 0 .. PEAK
    inside = (places < canvas).unsqueeze(1)
    return places, (weights * inside).to(torch.uint8)
