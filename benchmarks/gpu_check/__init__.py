"""Builds, proves and measures the package on the GPU at hand: ``python -m benchmarks.gpu_check``."""
