"""Fused kernels and systems for training and attacking metric learning on mixtures of distributions."""

from mdprop_ext import ops
from mdprop_ext.nn import MultiBNFused

__version__ = "0.1.0"
__all__ = ["MultiBNFused", "__version__", "ops"]
