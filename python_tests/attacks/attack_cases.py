"""Small models and checks that the attack tests share."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from mdprop_ext.attacks import FGSM, MIFGSM, PGD, FeaturePush, FeatureTargetAttack

BUILDERS = (PGD, FGSM, MIFGSM, FeaturePush, FeatureTargetAttack)
OF_STEPS = (PGD, MIFGSM, FeaturePush, FeatureTargetAttack)


class SmallNet(nn.Module):
    """Convolution, batch norm, dropout and a linear head: everything whose state an attack could disturb."""

    def __init__(self, outputs: int = 3, *, channels: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Conv2d(4, 4, 3),
            nn.BatchNorm2d(4),
        )
        self.head = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).tanh().mean(dim=(2, 3)))


class FlatLinear(nn.Module):
    """``x . w`` for each row of ``weight``: attacks on it have closed forms."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def small_net(**options: int) -> SmallNet:
    torch.manual_seed(0)
    model = SmallNet(**options)
    for module in model.modules():  # Running statistics that differ from those of any batch.
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model


def image_batch(count: int = 6, *, channels: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, channels, 5, 5, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.arange(count) % 3


def fingerprint(model: nn.Module) -> str:
    """A hash of all that an attack must leave alone: tensors, gradients, flags and the global random state."""
    digest = hashlib.sha256()

    def add(name: str, value: object) -> None:
        digest.update(f"{name}={value};".encode())

    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        add(name, (tensor.detach().numpy().tobytes(), tensor.requires_grad, tensor._version))
        add(f"{name}.grad", None if tensor.grad is None else tensor.grad.numpy().tobytes())
    for name, module in model.named_modules():
        flags = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        add(name, sorted((key, repr(value)) for key, value in flags.items()))
    add("random", torch.get_rng_state().numpy().tobytes())
    add("modes", (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")))
    return digest.hexdigest()
