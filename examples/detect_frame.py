"""Detect on one picture: `python examples/detect_frame.py model.onnx picture.jpg`."""

from __future__ import annotations

import sys

import cv2

import retinart

LEAST = 0.3  # the score from which on a detection counts


def main(model: str, picture: str) -> None:
    """Print a line for each detection from a score on."""
    frame = cv2.imread(picture)
    if frame is None:
        sys.exit(f"cannot read {picture}")
    with retinart.Detector(model) as detect:
        for (x1, y1, x2, y2), score, class_id in detect(frame):
            if score >= LEAST:
                name = detect.classes[class_id]
                print(f"{name} {score:.2f} from ({x1:.0f}, {y1:.0f}) to ({x2:.0f}, {y2:.0f})")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/detect_frame.py MODEL PICTURE")
    try:
        main(*sys.argv[1:])
    except retinart.RetinartError as error:
        sys.exit(str(error))
