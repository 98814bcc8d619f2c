"""Figures of the paper to hold a curve against: Lin et al., Focal Loss, 2017. None is ours."""

from __future__ import annotations

SCALES = (400, 500, 600, 700, 800)

# Table 1e: COCO test-dev AP and ms an image on an M40, at the scales above.
TABLE_1E = {
    "R50": ((30.5, 64), (32.5, 72), (34.3, 98), (35.1, 121), (35.7, 153)),
    "R101": ((31.9, 81), (34.4, 90), (36.0, 122), (37.1, 154), (37.8, 198)),
}

# Figure 2: AP and ms of other detectors, recalled from the paper and not looked up.
RECALLED = {
    "YOLOv2": (21.6, 25),
    "SSD321": (28.0, 61),
    "DSSD321": (28.0, 85),
    "R-FCN": (29.9, 85),
    "SSD513": (31.2, 125),
    "DSSD513": (33.2, 156),
    "FPN FRCN": (36.2, 172),
}
