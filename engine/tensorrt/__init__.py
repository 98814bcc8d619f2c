"""Engines on TensorRT: the file, the plan, its lanes, and the resize on the GPU."""
