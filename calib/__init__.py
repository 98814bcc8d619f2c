"""INT8 calibration: activation ranges from images, and Q/DQ pairs in the ONNX file."""
