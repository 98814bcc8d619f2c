"""COCO data, COCO accuracy, and the matching of detections."""
