"""INT8 calibration: from the ranges of a model's tensors to Q/DQ pairs in its ONNX file.

What will live here: running calibration images through a `model.onnx`, collecting the range of
every tensor that is to be quantized, choosing scales from those ranges, and writing them into a
`model.int8.onnx` as Q/DQ pairs, with the hashes of the images and of their preprocessing beside
them. Nothing of that exists yet: this package is a place, and importing it does nothing.
"""
