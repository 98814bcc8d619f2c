"""Post-processing of your own: `python examples/with_supervision.py model.onnx in.jpg out.jpg`.

`retinart.Detections` has supervision's field names. The program drops small objects. supervision
counts those in the left half of the picture, and draws.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
import supervision as sv

import retinart

LEAST = 0.3  # the score from which on a detection counts
SMALLEST = 100  # its area in pixels


def main(model: str, picture: str, out: str) -> None:
    """Draw what is left after the filters, and print a count."""
    frame = cv2.imread(picture)
    if frame is None:
        sys.exit(f"cannot read {picture}")
    with retinart.Detector(model) as detect:
        found = detect(frame)
        names = np.array(detect.classes)
    x1, y1, x2, y2 = found.xyxy.T
    found = found[(found.confidence >= LEAST) & ((x2 - x1) * (y2 - y1) >= SMALLEST)]
    objects = sv.Detections(
        xyxy=found.xyxy,
        confidence=found.confidence,
        class_id=found.class_id,
        data={"class_name": names[found.class_id]},
    )

    height, width = frame.shape[:2]
    left_half = np.array([(0, 0), (width // 2, 0), (width // 2, height), (0, height)])
    zone = sv.PolygonZone(left_half, triggering_anchors=[sv.Position.CENTER])
    print(f"{len(objects)} objects, {zone.trigger(objects).sum()} in the left half")

    drawn = sv.BoxAnnotator().annotate(np.array(frame, np.uint8), objects)
    cv2.imwrite(out, sv.LabelAnnotator().annotate(drawn, objects))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/with_supervision.py MODEL PICTURE OUT")
    try:
        main(*sys.argv[1:])
    except retinart.RetinartError as error:
        sys.exit(str(error))
