"""Detect on a live source: `python examples/camera.py model.onnx 0` (or a video, or rtsp://...).

A camera always gives its newest frame, so the delay does not grow. Ctrl-C ends the loop.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter

import retinart

LEAST = 0.3  # the score from which on a detection counts


def main(model: str, source: str = "0") -> None:
    """Print the time of each frame, and how many objects of each class it shows."""
    with retinart.Detector(model) as detect, contextlib.suppress(KeyboardInterrupt):
        for frame, found in detect.stream(source):
            sure = found[found.confidence >= LEAST]
            counts = Counter(detect.classes[i] for i in sure.class_id)
            print(f"{(frame.time_ms or 0) / 1000:.2f} s", dict(counts), flush=True)
            # frame.image is the picture, (H, W, 3) BGR: draw on it, show it, send it on


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python examples/camera.py MODEL [SOURCE]")
    try:
        main(*sys.argv[1:])
    except retinart.RetinartError as error:
        sys.exit(str(error))
