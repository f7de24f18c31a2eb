"""Pictures as pages show them: the true defect ringed, a small JPEG, no metadata.

What is written is made of pixels alone: nothing of the file that they were read from
goes with it.
"""

from __future__ import annotations

import base64
from typing import Final

import numpy as np

from ..datasets.images import Image, Mask

JPEG_QUALITY: Final = 90
TRUTH_RGB: Final = (255, 212, 0)
EDGE_RGB: Final = (0, 0, 0)


def ringed(image: Image, mask: Mask) -> Image:
    """The image with a line around the mask, some pixels away: it hides nothing."""
    import cv2

    side = min(mask.shape)
    width = max(1, round(side / 128))
    reach = max(2, side // 50) + width
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    around = cv2.dilate(mask.astype(np.uint8), kernel)
    lines, _ = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    ringed = image.copy()
    for colour, thickness in ((EDGE_RGB, width + 2), (TRUTH_RGB, width)):
        cv2.drawContours(ringed, lines, -1, colour, thickness)
    return ringed


def data_uri(image: Image) -> str:
    """The picture as a JPEG that a page holds itself."""
    return jpeg_uri(jpeg(image, JPEG_QUALITY))


def jpeg_uri(data: bytes) -> str:
    """A JPEG file as text that a page holds itself."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def jpeg(image: Image, quality: int) -> bytes:
    """The picture as a JPEG file."""
    import cv2

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
