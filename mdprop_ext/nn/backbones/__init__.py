"""Small networks of our own, whose last layer gives embeddings."""

from mdprop_ext.nn.backbones.conv4 import Conv4, conv4
from mdprop_ext.nn.backbones.resnet import ResNet, resnet18, resnet50

__all__ = ["Conv4", "ResNet", "conv4", "resnet18", "resnet50"]
