"""Bilinear resizing as each project computes it.

All three take pixels as squares whose centres lie at one half. They differ in arithmetic, and
Pillow's also averages when it shrinks: a weight falls to zero at the distance of one pixel of the
result, where in the other two it falls to zero at the distance of one pixel of the image.

- "opencv": OpenCV's `INTER_LINEAR` on 8 bits, with weights of 11 bits. mmdetection and retinart.
- "pillow": Pillow's `BILINEAR`, rounded to 8 bits between the two axes. detectron2 and odtk.
- "float": in float32, rounded once. torchvision, whose floats are not rounded at all.
"""

from __future__ import annotations

import cv2
import numpy as np

from retinart.engine.media.images import Image
from retinart.engine.model.variant import Interpolation


def interpolate(image: Image, target: Image, interpolation: Interpolation) -> None:
    """Resize an image into place.

    Args:
        image: (H, W, 3) uint8, channels in any order.
        target: (h, w, 3) uint8, which gets the result.
        interpolation: see above.
    """
    height, width = target.shape[:2]
    if interpolation == "pillow":
        from PIL import Image as Pillow

        resized = Pillow.fromarray(image).resize((width, height), Pillow.Resampling.BILINEAR)
        target[:] = np.asarray(resized)
    elif interpolation == "float":
        values = image.astype(np.float32)
        values = np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR))
        cv2.convertScaleAbs(values, dst=target)  # rounds to the nearest
    else:
        cv2.resize(image, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
