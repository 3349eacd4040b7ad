"""Measures of embeddings and codes: how well they retrieve and cluster, and how they fill their space."""

from mdprop_ext.metrics.clustering import clustering_metrics
from mdprop_ext.metrics.hamming import PrecisionRecallCurve, hamming_map, hamming_metrics, hamming_pr_curve
from mdprop_ext.metrics.k_means import k_means
from mdprop_ext.metrics.mutual_information import ami, nmi
from mdprop_ext.metrics.nearest_neighbours import nearest_neighbours
from mdprop_ext.metrics.overlap import overlap
from mdprop_ext.metrics.pi_ratio import pi_ratio
from mdprop_ext.metrics.retrieval import retrieval_metrics
from mdprop_ext.metrics.spectral_decay import spectral_decay

__all__ = [
    "retrieval_metrics",
    "nearest_neighbours",
    "hamming_map",
    "hamming_metrics",
    "hamming_pr_curve",
    "PrecisionRecallCurve",
    "clustering_metrics",
    "k_means",
    "nmi",
    "ami",
    "overlap",
    "pi_ratio",
    "spectral_decay",
]
