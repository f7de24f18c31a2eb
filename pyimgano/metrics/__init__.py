"""Numbers that say how well a detector separates good parts from defective ones.

`image_metrics` judges one score an image, `PixelMetrics` the anomaly maps,
`oracle_image_metrics` what a threshold chosen on the test labels would reach, and
`EngineDifferences` two engines against each other; the bootstrap functions say how far
a number could move with other images of the same kind.
Every metric is a plain float, or None with a reason where the data cannot define it.
"""

from pyimgano.metrics.bootstrap import (
    Interval,
    bootstrap_difference,
    bootstrap_interval,
    image_metric_intervals,
    wilson_interval,
)
from pyimgano.metrics.differences import EngineDifferences
from pyimgano.metrics.image import (
    ImageMetrics,
    auroc,
    average_precision,
    f1_at_threshold,
    image_metrics,
)
from pyimgano.metrics.oracle import oracle_image_metrics
from pyimgano.metrics.pixel import PixelMetrics, PixelResult
from pyimgano.metrics.pixel_bootstrap import PixelIntervals

__all__ = [
    "EngineDifferences",
    "ImageMetrics",
    "Interval",
    "PixelIntervals",
    "PixelMetrics",
    "PixelResult",
    "auroc",
    "average_precision",
    "bootstrap_difference",
    "bootstrap_interval",
    "f1_at_threshold",
    "image_metric_intervals",
    "image_metrics",
    "oracle_image_metrics",
    "wilson_interval",
]
