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
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .bundle import Bundle, open_bundle
from .decode import check_array, decode_bytes, read_image
from .engine import ChainEngine, Engine
from .errors import ConfigError, ImageError
from .infer_config import CategorySettings, InputRules, select_category
from .providers import ProviderInUse
from .quick_dataclass import dataclass
from .sessions import category_engine
from .thresholds import FLOAT32_MAX, is_anomaly, p_value
from .tiling import score_picture

if TYPE_CHECKING:
    from .region_flags import RegionFlags
    from .regions import FoundRegions
    from .streaming import ItemT, Streamed
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
    # "anomaly" when float32(score) >= float32(threshold), else "normal"; where the
    # category's regions have another policy, they say so (`regions.label_of`)
    label: str
    anomaly_map: AnomalyMap | None  # (h, w) float32 at map resolution, tiles joined
    ms: dict[str, float]  # wall-clock milliseconds by step
    map_mode: str = "stretch"  # how the map lies on the picture: see `map_to_image`
    found: FoundRegions | None = None  # None: no regions were looked for


class Predictor:
    """Scores pictures of one category with one engine.

    Several threads may call one predictor at the same time: each gets what it would
    get alone, to the bit. One that `open` made may be handed to other processes, which
    open the bundle again: see `travel`.
    """

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
        self._options: dict[str, Any] | None = None  # of `open`, to open it again
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
        # Why no regions are looked for although the category has rules; None: they are.
        self.regions_missing = None if settings.regions is None else _no_regions(self)

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        category: str | None = None,
        threads: int | None = None,
        threshold: float | None = None,
        thresholds: ThresholdsFile | None = None,
        regions: RegionFlags | None = None,
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
            regions: what replaces the bundle's ROI, region rules and pixel threshold.
            providers: onnxruntime's execution providers, the preferred one first, such
                as `["cuda", "cpu"]`; see `providers.resolve_providers`. Default: the
                CPU.

        Raises:
            BundleError: the bundle is refused.
            ConfigError: no such category, thresholds of another model or category, or
                regions that decide the label and no OpenCV, or a provider that is not
                there or does not compute.
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
        if regions is not None:
            settings = regions.applied_to(settings, name)
        if settings.regions is not None and settings.thresholds.pixel is None:
            raise ConfigError(
                f"{name}: {origin} has no pixel threshold, which its regions need; "
                "calibrate again, or give one by --pixel-threshold"
            )
        engine = category_engine(opened, name, threads=threads, providers=providers)
        predictor = cls(
            *(name, settings, config.input, engine),
            threshold=threshold,
            bundle=opened,
            origin=origin,
        )
        predictor._options = {
            "category": name,
            "threads": threads,
            "threshold": threshold,
            "thresholds": thresholds,
            "regions": regions,
            "providers": providers,
        }
        return predictor

    def __reduce__(self) -> tuple[Any, ...]:
        from .travel import by_path

        return by_path(self, self._options)

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

        Args:
            images_u8: each (H, W, 3) uint8 RGB, or (H, W) uint8 grey.
            with_map: as for `predict`.

        Raises:
            ImageError: one of them is refused, or their sizes differ; or the engine
                failed. Nothing is said of the others.
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
        scored = self._score(images, with_map=with_map or self.finds_regions)
        infer_ms = (time.perf_counter() - start) * 1000 / len(images)
        height, width = images[0].shape[:2]
        return [
            self._judge(
                *(float(score), anomaly_map, infer_ms, (height, width)),
                with_map=with_map,
            )
            for score, anomaly_map in scored
        ]

    @property
    def finds_regions(self) -> bool:
        """Whether regions are looked for in each picture."""
        return self.settings.regions is not None and self.regions_missing is None

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

    def judged_values(
        self, anomaly_map: AnomalyMap, size: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        """Give the values (n,) of a map that pixel thresholds are set on.

        Where regions are looked for, the smoothed ones inside of the ROI; else all.

        Args:
            size: (height, width) of the picture in pixels.
        """
        from .regions import judged_values

        geometry = self.settings.map_geometry
        mode = "stretch" if geometry is None else geometry.mode
        rules, roi = self.settings.regions, self.settings.roi
        return judged_values(anomaly_map, size, mode=mode, rules=rules, roi=roi)

    @property
    def map_statistic(self) -> str:
        """What the largest of `judged_values` is, in words, for the provenance."""
        from .calibration import JUDGED_MAXIMUM, MAP_MAXIMUM

        whole = self.settings.regions is None and self.settings.roi is None
        return MAP_MAXIMUM if whole else JUDGED_MAXIMUM

    def stream(
        self,
        inputs: Iterable[ItemT],
        *,
        decode_workers: int | None = None,
        with_map: bool = True,
        with_image: bool = False,
        ahead: int | None = None,
    ) -> Generator[Streamed[ItemT], None, None]:
        """Judge pictures as they come; give one result each, in order.

        A picture that cannot be read or scored is a result with an `error`, and the
        next one goes on. Paths are decoded by threads while others are scored; an
        array is answered before the next item is asked for. Memory stays flat, so the
        iterable may be endless. Closing the generator ends its threads. An error of
        the iterable itself ends the stream; paths asked for ahead stay unanswered.

        Args:
            inputs: arrays as `predict` takes them, paths of picture files, or both.
            decode_workers: threads that decode; 0: each path is decoded at its turn,
                and answered before the next item is asked for. Default: the usable
                cores, at most 4.
            with_map: leave the maps out to save their time; the scores are the same.
            with_image: keep the pixels, (H, W, 3) uint8 RGB, in the result.
            ahead: paths at most that are asked for and not yet answered, the one that
                is scored included: it bounds the memory. Default: two a worker.

        Raises:
            TypeError: one path or picture where an iterable of them is expected.
            ValueError: decode_workers or ahead is no such number.
        """
        from .streaming import stream_pictures

        return stream_pictures(
            self,
            inputs,
            decode_workers=decode_workers,
            with_map=with_map,
            with_image=with_image,
            ahead=ahead,
        )

    def read(self, path: str | os.PathLike[str]) -> Image:
        """Give the pixels of a picture file, (H, W, 3) uint8 RGB, by the input rules.

        Raises:
            ImageError: the file cannot be read (stage "read") or is refused ("decode").
        """
        return read_image(path, self.rules)

    def decode(self, data: bytes, *, name: str) -> Image:
        """Give the pixels of an encoded picture, (H, W, 3) uint8 RGB, by those rules.

        Args:
            data: the whole file, such as a PNG; its content decides the format.
            name: what error messages call the picture.

        Raises:
            ImageError: the picture is refused (stage "decode").
        """
        return decode_bytes(data, self.rules, name=name)

    def _judge(
        self,
        score: float,
        anomaly_map: AnomalyMap | None,
        infer_ms: float,
        size: tuple[int, int],
        *,
        with_map: bool,
    ) -> Prediction:
        start = time.perf_counter()
        wrong = ""
        if not math.isfinite(score):
            wrong = f"the score {score}"
        elif anomaly_map is not None and not np.isfinite(anomaly_map).all():
            wrong = "a map with NaN or infinity"
        if wrong:
            raise ImageError(
                f"the graph gave {wrong}; the model is damaged or the picture is "
                "outside of what it can score",
                code="SCORE_NOT_FINITE",
                stage="infer",
            )
        geometry = self.settings.map_geometry
        mode = "stretch" if geometry is None else geometry.mode
        p = p_value(score, self._calibration)
        by_score = is_anomaly(score, self.threshold)
        label = "anomaly" if by_score else "normal"
        found = None
        rules, pixel = self.settings.regions, self.settings.thresholds.pixel
        if (
            self.finds_regions
            and anomaly_map is not None
            and rules
            and pixel is not None
        ):
            from .regions import find_regions, label_of

            try:
                found = find_regions(
                    *(anomaly_map, size),
                    threshold=pixel,
                    mode=mode,
                    rules=rules,
                    roi=self.settings.roi,
                )
            except ImageError:
                if rules.sets_label:
                    raise
            else:
                label = label_of(rules.policy, by_score, len(found.regions))
        post_ms = (time.perf_counter() - start) * 1000
        return Prediction(
            score=score,
            p_value=p,
            threshold=self.threshold,
            threshold_source=self.threshold_source,
            label=label,
            anomaly_map=anomaly_map if with_map else None,
            ms={"infer": infer_ms, "post": post_ms},
            map_mode=mode,
            found=found,
        )


def _no_regions(predictor: Predictor) -> str | None:
    """Say why no regions can be looked for; None if they can.

    Raises:
        ConfigError: the label depends on them, and OpenCV is missing.
    """
    rules, thresholds = predictor.settings.regions, predictor.settings.thresholds
    if rules is None or thresholds.pixel is None or not predictor.engine.has_map:
        return "there is no pixel threshold"
    try:
        import cv2  # noqa: F401 - only whether it loads
    except ImportError as cause:
        reason = f"regions need OpenCV ({cause}): pip install opencv-python-headless"
        if rules.sets_label:
            raise ConfigError(
                f"{predictor.category}: {reason}; the label follows them (policy "
                f'"{rules.policy}"), so nothing can be judged without'
            ) from cause
        return reason
    return None
