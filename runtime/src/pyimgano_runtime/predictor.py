"""The judgement of one picture: score, p-value, threshold, label, map.

    predictor = Predictor.open("bundle", category="bracket")
    prediction = predictor.predict(image_u8)        # (H, W, 3) uint8 RGB

The torch side builds the same class around its own engine, so that everything after
the graph exists once.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .bundle import Bundle, open_bundle
from .decode import check_array, read_image
from .engine import ChainEngine, Engine
from .errors import ConfigError, ImageError
from .infer_config import CategorySettings, InputRules, select_category
from .providers import ProviderInUse
from .quick_dataclass import dataclass
from .sessions import category_engine
from .thresholds import FLOAT32_MAX, is_anomaly, p_value
from .tiling import score_picture

if TYPE_CHECKING:
    from .thresholds_file import ThresholdsFile

Image = npt.NDArray[np.uint8]
AnomalyMap = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a bundle says about one picture."""

    score: float  # raw, unbounded, higher is more anomalous
    p_value: float | None  # share of normals at least as anomalous, in (0, 1]
    threshold: float
    threshold_source: str  # "bundle: conformal", "--threshold", "t.json: conformal"
    label: str  # "anomaly" when float32(score) >= float32(threshold), else "normal"
    anomaly_map: AnomalyMap | None  # (h, w) float32 at map resolution, tiles joined
    ms: dict[str, float]  # wall-clock milliseconds by step
    map_mode: str = "stretch"  # how the map lies on the picture: see `map_to_image`


class Predictor:
    """Scores pictures of one category with one engine."""

    def __init__(
        self,
        category: str,
        settings: CategorySettings,
        rules: InputRules,
        engine: Engine,
        *,
        threshold: float | None = None,
        bundle: Bundle | None = None,
        origin: str = "bundle",
    ) -> None:
        self.category = category
        self.settings = settings
        self.rules = rules
        self.engine = engine
        self.bundle = bundle
        self._calibration = np.asarray(
            settings.calibration.image_scores, dtype=np.float32
        )
        if threshold is None:
            self.threshold = settings.thresholds.image
            method = settings.thresholds.provenance["image"].method
            self.threshold_source = f"{origin}: {method}"
        else:
            if not abs(threshold) <= FLOAT32_MAX:
                raise ConfigError(
                    f"--threshold: found {threshold}, expected a finite number that "
                    "float32 can hold"
                )
            self.threshold = float(np.float32(threshold))
            self.threshold_source = "--threshold"

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        category: str | None = None,
        threads: int | None = None,
        threshold: float | None = None,
        thresholds: ThresholdsFile | None = None,
        providers: Sequence[str] | None = None,
    ) -> Predictor:
        """Give a predictor on a bundle folder.

        Args:
            bundle: the folder, or one that was opened before: the predictors of its
                categories share the models that they have in common.
            category: which one; may be left out where there is only one.
            threads: onnxruntime threads; default: the cores this process may use.
            threshold: replaces the bundle's image threshold.
            thresholds: replaces its thresholds and calibration scores; see
                `thresholds_file.read_thresholds_file`.
            providers: onnxruntime's execution providers, the preferred one first, such
                as `["cuda", "cpu"]`; see `providers.resolve_providers`. Default: the
                CPU.

        Raises:
            BundleError: the bundle is refused.
            ConfigError: no such category, thresholds of another model or category, or
                a provider that is not there or does not compute.
        """
        if threshold is not None and thresholds is not None:
            raise ConfigError("threshold, thresholds: give one of them")
        opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        config = opened.config
        name = select_category(list(config.categories), category)
        settings = config.categories[name]
        origin = "bundle"
        if thresholds is not None:
            settings, origin = thresholds.settings_for(opened, name), thresholds.name
        engine = category_engine(opened, name, threads=threads, providers=providers)
        return cls(
            *(name, settings, config.input, engine),
            threshold=threshold,
            bundle=opened,
            origin=origin,
        )

    @property
    def provider_in_use(self) -> ProviderInUse | None:
        """What onnxruntime computes with, and how much; None for another engine."""
        return self.engine.provider if isinstance(self.engine, ChainEngine) else None

    @property
    def provider(self) -> str | None:
        """The name of onnxruntime's execution provider; None for another engine."""
        in_use = self.provider_in_use
        return None if in_use is None else in_use.name

    def predict(self, image_u8: Image, *, with_map: bool = True) -> Prediction:
        """Judge one picture.

        Args:
            image_u8: (H, W, 3) uint8 RGB, or (H, W) uint8 grey.
            with_map: leave the map out to save its time; the score is the same.

        Raises:
            ImageError: wrong type, shape or size; or the engine failed.
        """
        return self.predict_batch([image_u8], with_map=with_map)[0]

    def predict_batch(
        self, images_u8: Sequence[Image], *, with_map: bool = True
    ) -> list[Prediction]:
        """Judge several pictures of one size in one run of the graph.

        Where pictures are cut into tiles, each takes runs of its own.
        """
        images = [
            check_array(image, self.rules, f"image {index}")
            for index, image in enumerate(images_u8)
        ]
        if not images:
            return []
        if len({image.shape for image in images}) > 1:
            raise ImageError(
                "the pictures of a batch have several sizes, expected one; "
                "predict them one by one",
                code="IMAGE_SHAPE",
                stage="infer",
            )
        start = time.perf_counter()
        scored = self._score(images, with_map=with_map)
        infer_ms = (time.perf_counter() - start) * 1000 / len(images)
        return [
            self._judge(float(score), anomaly_map, infer_ms)
            for score, anomaly_map in scored
        ]

    def _score(
        self, images: Sequence[Image], *, with_map: bool
    ) -> list[tuple[np.float32, AnomalyMap | None]]:
        tiling = self.settings.tiling
        if tiling is not None or len(images) == 1:
            return [
                score_picture(self.engine, image, tiling, with_map=with_map)
                for image in images
            ]
        scores, maps = self.engine.run(np.stack(images), with_map=with_map)
        return list(
            zip(scores, [None] * len(images) if maps is None else maps, strict=True)
        )

    def read(self, path: Path) -> Image:
        """Give the pixels of a picture file by the bundle's input rules."""
        return read_image(path, self.rules)

    def _judge(
        self, score: float, anomaly_map: AnomalyMap | None, infer_ms: float
    ) -> Prediction:
        start = time.perf_counter()
        found = ""
        if not math.isfinite(score):
            found = f"the score {score}"
        elif anomaly_map is not None and not np.isfinite(anomaly_map).all():
            found = "a map with NaN or infinity"
        if found:
            raise ImageError(
                f"the graph gave {found}; the model is damaged or the picture is "
                "outside of what it can score",
                code="SCORE_NOT_FINITE",
                stage="infer",
            )
        geometry = self.settings.map_geometry
        p = p_value(score, self._calibration)
        label = "anomaly" if is_anomaly(score, self.threshold) else "normal"
        post_ms = (time.perf_counter() - start) * 1000
        return Prediction(
            score=score,
            p_value=p,
            threshold=self.threshold,
            threshold_source=self.threshold_source,
            label=label,
            anomaly_map=anomaly_map,
            ms={"infer": infer_ms, "post": post_ms},
            map_mode="stretch" if geometry is None else geometry.mode,
        )
