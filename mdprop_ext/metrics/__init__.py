"""Measures of embeddings: how well they retrieve, and how they fill their space."""

from mdprop_ext.metrics.pi_ratio import pi_ratio
from mdprop_ext.metrics.retrieval import retrieval_metrics
from mdprop_ext.metrics.spectral_decay import spectral_decay

__all__ = ["pi_ratio", "retrieval_metrics", "spectral_decay"]
