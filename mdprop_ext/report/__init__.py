"""Pictures of results, and the page that shows them all."""

from mdprop_ext.report.adversarial_grid import plot_adversarial_grid
from mdprop_ext.report.embedding_map import plot_embedding_map
from mdprop_ext.report.neighbours import Retrieval, plot_neighbours
from mdprop_ext.report.report import Report, write_report
from mdprop_ext.report.robustness import plot_robustness
from mdprop_ext.report.training import plot_training

__all__ = [
    "Report",
    "Retrieval",
    "plot_adversarial_grid",
    "plot_embedding_map",
    "plot_neighbours",
    "plot_robustness",
    "plot_training",
    "write_report",
]
