"""The train rows of one category as a detector's TrainingData.

A picture gives one sample or several: itself, its augmented copies, and of each the
tiles it is cut into. `picture_samples` says which picture a sample shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from pyimgano_runtime.decode import inspect_image
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.tiling import (
    Tiling,
    each_tile,
    merge_maps,
    merge_scores,
    tile_origins,
)

from ..calibration import PictureSamples, Scored, only_part
from ..datasets.augmentation import Augmentation, AugmentationConfig
from ..datasets.images import (
    Image,
    Mask,
    batches_of_one_size,
    read_ahead,
    read_mask,
    read_training_image,
)
from ..datasets.rows import ManifestRow

NO_COPIES: Final = Augmentation.of(AugmentationConfig())


@dataclass(frozen=True, slots=True)
class RowTrainingData:
    """Decodes rows each time it is asked; nothing is kept in memory."""

    normal_rows: Sequence[ManifestRow]
    rules: InputRules
    tuning_rows: Sequence[ManifestRow] = ()
    defect_rows: Sequence[ManifestRow] = ()
    # More only leaves the caches: its tensors are mapped anew, page by page, each time.
    batch_size: int = 2
    augmentation: Augmentation = NO_COPIES
    seed: int = 0  # of the copies
    tiling: Tiling | None = None  # cuts every picture, at training as at inference

    @property
    def n_normals(self) -> int:
        """See `TrainingData.n_normals`: of samples, not of pictures."""
        return len(self.picture_samples().pictures)

    def normals(self) -> Iterator[Tensor]:
        """See `TrainingData.normals`: each picture, and behind it its copies."""
        return self._batches(self.normal_rows, self.augmentation.n_copies)

    def tuning_normals(self) -> Iterator[Tensor]:
        """See `TrainingData.tuning_normals`: pictures as they are."""
        return self._batches(self.tuning_rows, 0)

    def defects(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """See `TrainingData.defects`: varied and cut as the normals are."""
        for row in self.defect_rows:
            image = read_training_image(row, self.rules)
            size = (image.shape[0], image.shape[1])
            mask = read_mask(row.mask_path, size, self.rules, above=row.mask_above)
            copies = self.augmentation.n_copies
            for one, marked in self._with_copies(row, image, mask, copies):
                for tile, part in self._cut_marked(one, marked):
                    yield (
                        torch.from_numpy(tile),
                        None if part is None else torch.from_numpy(part),
                    )

    def picture_samples(self) -> PictureSamples:
        """Give which picture each sample of `normals` shows."""
        n_views = 1 + self.augmentation.n_copies
        n_tiles = [self._n_tiles(row) for row in self.normal_rows]
        each = [tiles * n_views for tiles in n_tiles]
        genuine = [np.arange(tiles * n_views) < tiles for tiles in n_tiles]
        return PictureSamples(
            np.arange(len(each), dtype=np.int64).repeat(each),
            np.concatenate(genuine) if genuine else np.empty(0, np.bool_),
            only_part if self.tiling is None else self._merge,
        )

    def facts(self) -> dict[str, Any]:
        """Give what the detector learned from, for the run's report."""
        copies = self.augmentation.n_copies
        return {
            "normals": len(self.normal_rows),
            "copies": copies,
            "samples": self.n_normals,
            "tuning": len(self.tuning_rows),
            "defects": len(self.defect_rows),
            "augmentation": self.augmentation.to_json() if copies else None,
            "in_words": self._in_words(),
        }

    def _in_words(self) -> str:
        """Say what `facts` counts."""
        augmentation = self.augmentation
        text = f"{len(self.normal_rows)} normals"
        if augmentation.n_copies:
            text += f" and {augmentation.n_copies} copies of each ({augmentation})"
        if self.tiling is not None:
            text += ", cut into tiles"
        if self.n_normals != len(self.normal_rows):
            text += f": {self.n_normals} samples"
        if self.defect_rows:
            text += f"; {len(self.defect_rows)} defects"
        if self.tuning_rows:
            text += f"; {len(self.tuning_rows)} more normals decided when to stop"
        return text

    def _batches(self, rows: Sequence[ManifestRow], copies: int) -> Iterator[Tensor]:
        images = self._samples(rows, copies)
        for batch in batches_of_one_size(images, batch_size=self.batch_size):
            yield torch.from_numpy(batch)

    def _samples(self, rows: Sequence[ManifestRow], copies: int) -> Iterator[Image]:
        for row, image in zip(rows, read_ahead(rows, self.rules), strict=True):
            for one, _ in self._with_copies(row, image, None, copies):
                yield from self._cut(one)

    def _with_copies(
        self, row: ManifestRow, image: Image, mask: Mask | None, copies: int
    ) -> Iterator[tuple[Image, Mask | None]]:
        yield image, mask
        for number in range(1, copies + 1):
            yield self.augmentation.copy(
                image, number, seed=self.seed, name=row.image, mask=mask
            )

    def _cut(self, image: Image) -> Iterator[Image]:
        """Give the tiles of a picture, as views; the picture where none are cut."""
        if self.tiling is None:
            return iter((image,))
        return each_tile(image, self.tiling)

    def _cut_marked(
        self, image: Image, mask: Mask | None
    ) -> Iterator[tuple[Image, Mask | None]]:
        """Give the tiles of a defect that show it.

        A tile of a marked picture without a marked pixel is no defect, and without a
        mask nobody knows which tile shows it: then there is nothing to learn from.
        """
        if self.tiling is None:
            yield image, mask
        elif mask is not None:
            # As three channels: pictures and masks are cut by the same function.
            lit = np.repeat(mask[..., None].astype(np.uint8), 3, axis=2)
            for tile, part in zip(self._cut(image), self._cut(lit), strict=True):
                marked = part[..., 0] > 0
                if marked.any():  # a view would keep the whole picture in memory
                    yield tile.copy(), marked

    def _size(self, row: ManifestRow) -> tuple[int, int]:
        height, width = inspect_image(row.image_path, self.rules).size
        return height, width

    def size(self, picture: int) -> tuple[int, int]:
        """Give (height, width) in pixels of the normal at a position."""
        return self._size(self.normal_rows[picture])

    def _n_tiles(self, row: ManifestRow) -> int:
        if self.tiling is None:
            return 1
        return len(tile_origins(self._size(row), self.tiling))

    def _merge(self, picture: int, parts: Sequence[Scored]) -> Scored:
        assert self.tiling is not None
        scores = np.asarray([score for score, _ in parts], dtype=np.float32)
        merged = float(merge_scores(scores, self.tiling))
        maps = [anomaly_map for _, anomaly_map in parts if anomaly_map is not None]
        if not maps:
            return merged, None
        return merged, merge_maps(np.stack(maps), self.size(picture), self.tiling)
