"""Images sorted into classes: data sets, splits by class and the batch sampler of metric learning."""

from mdprop_ext.data.class_batch_sampler import ClassBatchSampler
from mdprop_ext.data.digits import load_digits
from mdprop_ext.data.folder import load_folder
from mdprop_ext.data.image_set import ImageSet
from mdprop_ext.data.omniglot import load_omniglot
from mdprop_ext.data.splits import DATA_NAMES, Splits, load_splits

__all__ = [
    "DATA_NAMES",
    "ClassBatchSampler",
    "ImageSet",
    "Splits",
    "load_digits",
    "load_folder",
    "load_omniglot",
    "load_splits",
]
