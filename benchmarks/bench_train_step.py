"""One MDProp training step with compiled kernels against the same step without them.

``reference`` is the step with ``MDPROP_BACKEND=reference``. Its op must compute the ReLU mask again in backward, as the
schema hands it no output; ``split`` does without the op: split, one ``F.batch_norm`` a branch, ``cat``, ``relu``.

A process has one backend, so ours and each peer are processes of their own that make one step whenever they are told
to: all still run in turn, and none has the advantage of sharing the harness's process. The rows of ``plain``, which
uses no op of ours, show what is left of such differences. Run as a script this file is such a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Case
from mdprop_ext.nn import MultiBatchNorm2d
from mdprop_ext.nn.backbones import conv4, resnet18
from mdprop_ext.recipes import recipe_class

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "conv4 28x28": (lambda: conv4(in_channels=1), (1, 28, 28)),
    "resnet18 32x32": (lambda: resnet18(in_channels=3, embedding_dim=64, stem="cifar"), (3, 32, 32)),
}


def training_step(recipe_name: str, model_name: str) -> Callable[[], float]:
    """A recipe's optimiser step on a batch of 32 classes x 2 images; returns the loss."""
    build, image_shape = MODELS[model_name]
    torch.manual_seed(0)
    recipe = recipe_class(recipe_name)(seed=0)
    model = recipe.prepare(build().to(memory_format=torch.channels_last))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = torch.rand(64, *image_shape), torch.arange(32).repeat_interleave(2)

    def step() -> float:
        model.train()
        loss = recipe.step(model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


class StepProcess:
    """A process that makes one step a call; it starts with the first."""

    def __init__(self, side: str, recipe_name: str, model_name: str) -> None:
        self._arguments = [side, recipe_name, model_name]
        self._process: subprocess.Popen[str] | None = None

    def __call__(self) -> float:
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def _start(self) -> subprocess.Popen[str]:
        root = str(Path(__file__).resolve().parent.parent)
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        backend = "ext" if self._arguments[0] == "ours" else "reference"
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bench_train_step", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MDPROP_BACKEND": backend, "PYTHONPATH": paths},
        )


def same_loss(ours: float, theirs: float) -> None:
    """Both make the same first step."""
    assert abs(ours - theirs) <= 1e-3 * abs(ours), f"losses {ours} and {theirs}"


def cases() -> Iterator[Case]:
    for model_name in MODELS:
        for recipe_name in ("mdprop", "plain"):
            yield Case(
                op="train_step",
                case=f"{recipe_name} {model_name}, batch 64",
                dtype="float32",
                ours=StepProcess("ours", recipe_name, model_name),
                peers={peer: StepProcess(peer, recipe_name, model_name) for peer in ("reference", "split")},
                check=same_loss,
                work=64,
                unit="images/s",
                quick=model_name.startswith("conv4") and recipe_name == "mdprop",
            )


def split_forward(layer: MultiBatchNorm2d, x: Tensor) -> Tensor:
    """What a multi-branch layer computes, from the pieces that PyTorch has; for samples sorted by branch."""
    route, branches = layer.route, (layer, *layer.aux_bn)
    if route is None or route.dim() == 0:
        parts = [(branches[0 if route is None else int(route)], x)]
    else:
        sizes = torch.bincount(route, minlength=len(branches)).tolist()
        parts = list(zip(branches, x.split(sizes), strict=True))
    outputs = [
        F.batch_norm(
            part, bn.running_mean, bn.running_var, bn.weight, bn.bias, layer.training, layer.momentum, layer.eps
        )
        for bn, part in parts
    ]
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return F.relu_(y) if layer.activation == "relu" else y


def serve(side: str, recipe_name: str, model_name: str) -> None:
    """Makes one step for each line on standard input."""
    if side == "split":
        MultiBatchNorm2d.forward = split_forward
    step = training_step(recipe_name, model_name)
    for _ in sys.stdin:
        print(step(), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
