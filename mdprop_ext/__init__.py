"""Fused kernels and systems for training and attacking metric learning on mixtures of distributions."""

__version__ = "0.1.0"
