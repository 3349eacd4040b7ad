"""Adversarial training of a digit classifier with MultiBNFused in place of nn.BatchNorm2d.

Clean and attacked images have different statistics, so each kind gets a batch norm branch of its own; one forward pass
serves both. Needs the extra "demo" for the digits. Run: python examples/adversarial_training.py
"""

import torch
from torch import nn

from mdprop_ext import MultiBNFused
from mdprop_ext.attacks import PGD
from mdprop_ext.data import load_digits
from mdprop_ext.nn import use_branch, use_branches

EPS = 24 / 255
BRANCHES = ("clean", "adv")  # branch 0 comes first: the layer itself, used wherever no route is set


def block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        MultiBNFused(out_channels, branches=BRANCHES),  # was: nn.BatchNorm2d(out_channels)
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return 100 * (model(images).argmax(1) == labels).float().mean().item()


torch.manual_seed(0)
digits = load_digits(image_size=8)
order = torch.randperm(len(digits))
train, test = order[:1400], order[1400:]
images, labels = digits.floats(), digits.labels

model = nn.Sequential(block(1, 16), block(16, 32), nn.Flatten(), nn.Linear(32 * 2 * 2, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
attack = PGD(model, eps=EPS, alpha=EPS / 2, steps=3, branch="adv", keep_best=False)

model.train()
for _ in range(6):
    for batch in torch.randperm(len(train)).split(100):
        x, y = images[train[batch]], labels[train[batch]]
        x_adv = attack(x, y)  # leaves parameters, statistics and flags as they are
        with use_branches(model, {"clean": len(x), "adv": len(x)}):
            loss = nn.functional.cross_entropy(model(torch.cat([x, x_adv])), torch.cat([y, y]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

model.eval()
for branch in BRANCHES:
    with use_branch(model, branch):
        x_adv = PGD(model, eps=EPS, alpha=EPS / 4, steps=5)(images[test], labels[test])
        clean, attacked = accuracy(model, images[test], labels[test]), accuracy(model, x_adv, labels[test])
    print(f"branch {branch:<5}  accuracy {clean:5.1f} % clean, {attacked:5.1f} % attacked")
