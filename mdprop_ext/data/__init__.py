"""Images sorted into classes: data sets, splits by class and samplers."""

from mdprop_ext.data.class_batch_sampler import ClassBatchSampler
from mdprop_ext.data.digits import load_digits
from mdprop_ext.data.epoch_batch_sampler import EpochBatchSampler
from mdprop_ext.data.folder import load_folder
from mdprop_ext.data.image_set import ImageSet
from mdprop_ext.data.omniglot import load_omniglot
from mdprop_ext.data.shard_sampler import ShardSampler
from mdprop_ext.data.splits import DATA_NAMES, Splits, load_splits

__all__ = [
    "DATA_NAMES",
    "ClassBatchSampler",
    "EpochBatchSampler",
    "ImageSet",
    "ShardSampler",
    "Splits",
    "load_digits",
    "load_folder",
    "load_omniglot",
    "load_splits",
]
