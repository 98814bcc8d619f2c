"""CUDA: memory, streams, kernels and graphs, and the GPUs of this machine."""
