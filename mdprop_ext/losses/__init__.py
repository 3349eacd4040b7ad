"""Losses of metric learning."""

from mdprop_ext.losses.multi_similarity import MultiSimilarityLoss

__all__ = ["MultiSimilarityLoss"]
