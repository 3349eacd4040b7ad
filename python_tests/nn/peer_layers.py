"""Layers of other libraries, written from the formats of their checkpoints and what their forward passes compute."""

import torch
from torch import nn


class SplitBatchNorm2d(nn.BatchNorm2d):
    """As in timm: equal parts of the batch through the layer itself and ``aux_bn``; the layer alone in evaluation."""

    def __init__(self, num_features, num_splits=2):
        super().__init__(num_features)
        self.aux_bn = nn.ModuleList(nn.BatchNorm2d(num_features) for _ in range(num_splits - 1))

    def forward(self, input):
        if not self.training:
            return super().forward(input)
        first, *others = input.chunk(len(self.aux_bn) + 1)
        return torch.cat(
            [super().forward(first), *(norm(part) for norm, part in zip(self.aux_bn, others, strict=True))]
        )


class MixBatchNorm2d(nn.BatchNorm2d):
    """As in AdvProp for PyTorch: one auxiliary norm without an index; ``batch_type`` says where the batch goes."""

    def __init__(self, num_features):
        super().__init__(num_features)
        self.aux_bn = nn.BatchNorm2d(num_features)
        self.batch_type = "clean"

    def forward(self, input):
        if self.batch_type == "adv":
            return self.aux_bn(input)
        if self.batch_type == "clean":
            return super().forward(input)
        half = len(input) // 2
        return torch.cat([super().forward(input[:half]), self.aux_bn(input[half:])])


class DualBatchNorm2d(nn.Module):
    """As in AugMax: a list of two norms, of which ``route`` chooses the main ("M") or the auxiliary ("A") one."""

    def __init__(self, num_features):
        super().__init__()
        self.bn = nn.ModuleList([nn.BatchNorm2d(num_features), nn.BatchNorm2d(num_features)])
        self.route = "M"

    def forward(self, input):
        return self.bn["MA".index(self.route)](input)


class BatchNormAct2d(nn.BatchNorm2d):
    """As in timm: drop and activation behind the norm."""

    def __init__(self, num_features, act, drop=None):
        super().__init__(num_features)
        self.drop = nn.Identity() if drop is None else drop
        self.act = act

    def forward(self, input):
        return self.act(self.drop(super().forward(input)))
