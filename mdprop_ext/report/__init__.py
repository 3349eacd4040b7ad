"""Pictures of results."""

from mdprop_ext.report.robustness import plot_robustness
from mdprop_ext.report.training import plot_training

__all__ = ["plot_robustness", "plot_training"]
