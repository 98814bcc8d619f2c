"""The network: backbone, heads, anchors, boxes, and its checkpoints."""
