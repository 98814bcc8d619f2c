"""What is kept of the detections: classes, scores, sizes, and areas of the picture."""
