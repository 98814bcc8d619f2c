"""Models on OpenVINO and ONNX Runtime: what runs them, and NMS in NumPy."""
