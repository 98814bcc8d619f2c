"""Bring a picture to the size of a file's input, as `Detector` does.

    python fit.py model.onnx picture.jpg picture.ppm

Divide the x of the boxes by the first number that it prints, and their y by the second. Boxes
that then lie beyond the picture are in the padding.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

import retinart

model, source, target = sys.argv[1:]
picture = cv2.imread(source)
if picture is None:
    sys.exit(f"cannot read {source}")
frames, (resized,) = retinart.read_info(model).resize.apply([np.asarray(picture, np.uint8)])
cv2.imwrite(target, frames[0])
(height, width), (source_height, source_width) = resized.size, resized.source_size
print(width / source_width, height / source_height)
