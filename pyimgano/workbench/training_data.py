"""The train rows of one category as a detector's TrainingData."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyimgano_runtime.infer_config import InputRules

from ..datasets.images import (
    batches_of_one_size,
    read_ahead,
    read_mask,
    read_training_image,
)
from ..datasets.rows import ManifestRow


@dataclass(frozen=True, slots=True)
class RowTrainingData:
    """Decodes rows each time it is asked; nothing is kept in memory."""

    normal_rows: Sequence[ManifestRow]
    rules: InputRules
    tuning_rows: Sequence[ManifestRow] = ()
    defect_rows: Sequence[ManifestRow] = ()
    batch_size: int = 8

    @property
    def n_normals(self) -> int:
        """See `TrainingData.n_normals`."""
        return len(self.normal_rows)

    def normals(self) -> Iterator[Tensor]:
        """See `TrainingData.normals`."""
        return self._batches(self.normal_rows)

    def tuning_normals(self) -> Iterator[Tensor]:
        """See `TrainingData.tuning_normals`."""
        return self._batches(self.tuning_rows)

    def defects(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """See `TrainingData.defects`."""
        for row in self.defect_rows:
            image = read_training_image(row, self.rules)
            size = (image.shape[0], image.shape[1])
            mask = read_mask(row.mask_path, size, self.rules, above=row.mask_above)
            yield (
                torch.from_numpy(image),
                None if mask is None else torch.from_numpy(mask),
            )

    def _batches(self, rows: Sequence[ManifestRow]) -> Iterator[Tensor]:
        images = read_ahead(rows, self.rules)
        for batch in batches_of_one_size(images, batch_size=self.batch_size):
            yield torch.from_numpy(batch)
