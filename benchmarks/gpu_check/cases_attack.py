"""A whole PGD attack of ten steps on a ResNet-50: as the library runs it, and with its steps in one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.bench_pgd_step import eager
from benchmarks.gpu_check.plan import Planned, near
from benchmarks.harness import Case
from mdprop_ext import ops
from mdprop_ext.attacks import PGD

BATCH, STEPS, EPS, ALPHA = 32, 10, 8 / 255, 2 / 255
HOW = ("PGD", "one CUDA graph")

Step = Callable[..., Tensor]


def plan() -> list[Planned]:
    """All rows of whole attacks."""
    return [Planned("attack", label(how), "float32", partial(case, how)) for how in HOW]


def label(how: str) -> str:
    """What the case column says."""
    return f"PGD-{STEPS} linf, resnet50, {BATCH}x3x224x224, {how}"


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Of the cross-entropy with respect to the images."""
    with torch.enable_grad():
        images = x.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(model(images), y), images)[0]


def loop(model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
    """The attack with a given step."""
    adversarial = x
    for _ in range(STEPS):
        gradients = gradient(model, adversarial, y)
        adversarial = step(adversarial, gradients, x, norm="linf", step=ALPHA, radius=EPS)
    return adversarial


def deterministic(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call with the same gradients each time: an attack takes their signs."""

    def run() -> Any:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return call()

    return run


def captured(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The call as one CUDA graph, which is replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # type: ignore[no-untyped-call]
        result = call()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def case(how: str) -> Case:
    """The model, the images and the peers of a row."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet50").cuda().eval().requires_grad_(False)
    x, y = torch.rand(BATCH, 3, 224, 224, device="cuda"), torch.randint(1000, (BATCH,), device="cuda")

    def torchattacks_pgd() -> Any:
        import torchattacks

        return torchattacks.PGD(model, eps=EPS, alpha=ALPHA, steps=STEPS, random_start=False)(x, y)

    if how == "PGD":
        attack = PGD(model, eps=EPS, alpha=ALPHA, steps=STEPS, random_start=False, keep_best=False)
        ours: Callable[[], Any] = deterministic(lambda: attack(x, y))
    else:
        ours = captured(deterministic(lambda: loop(model, x, y, ops.pgd_step)))
    return Case(
        op="attack",
        case=label(how),
        dtype="float32",
        device="cuda",
        ours=ours,
        peers={
            "eager": deterministic(lambda: loop(model, x, y, eager)),
            "torchattacks": deterministic(torchattacks_pgd),
        },
        check=near(5e-2),  # a gradient near zero may change its sign
        work=BATCH * STEPS,
        unit="steps/s",
    )
