"""Layers and networks: batch normalisation with several branches, its routing and conversion, and backbones."""

from mdprop_ext.nn import backbones
from mdprop_ext.nn.check_model import Hazard, check_model
from mdprop_ext.nn.convert import branch_parameters, convert_multi_bn, strip_branches
from mdprop_ext.nn.convert_sync import convert_sync
from mdprop_ext.nn.multi_batch_norm import MultiBatchNorm1d, MultiBatchNorm2d, MultiBatchNorm3d, MultiBNFused
from mdprop_ext.nn.normalized import Normalized
from mdprop_ext.nn.routing import branch_names, use_branch, use_branches
from mdprop_ext.nn.state_dict import adapt_state_dict, export_state_dict
from mdprop_ext.nn.statistics import update_branch_statistics

__all__ = [
    "Hazard",
    "MultiBNFused",
    "MultiBatchNorm1d",
    "MultiBatchNorm2d",
    "MultiBatchNorm3d",
    "Normalized",
    "adapt_state_dict",
    "backbones",
    "branch_names",
    "branch_parameters",
    "check_model",
    "convert_multi_bn",
    "convert_sync",
    "export_state_dict",
    "strip_branches",
    "update_branch_statistics",
    "use_branch",
    "use_branches",
]
