"""Losses of the joined batches of several processes, and what each of these processes computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from loss_cases import batch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mdprop_ext.data import ClassBatchSampler, EpochBatchSampler, ShardSampler
from mdprop_ext.losses import (
    ArcFaceLoss,
    BatchHardMiner,
    ContrastiveLoss,
    CrossBatchMemory,
    GatheredLoss,
    MinedLoss,
    MultiSimilarityLoss,
    ProxyAnchorLoss,
    TripletMarginLoss,
)

WORLD_SIZE = 2
WIDTH, DIMENSION, CLASSES = 6, 4, 4
#: Images of each process in each of three steps.
SIZES = ((7, 7), (9, 5), (1, 11))


def losses() -> dict[str, Callable[[], nn.Module]]:
    """Losses to gather for, in fp64, with equal parameters in every process."""
    cases: dict[str, Callable[[], nn.Module]] = {
        "multi similarity": MultiSimilarityLoss,
        "batch hard": lambda: MinedLoss(TripletMarginLoss(margin=0.5), BatchHardMiner()),
        "arcface": lambda: ArcFaceLoss(CLASSES, DIMENSION),
        "proxy anchor": lambda: ProxyAnchorLoss(CLASSES, DIMENSION),
        "memory": lambda: CrossBatchMemory(ContrastiveLoss(), 20, DIMENSION),
    }
    try:
        from pytorch_metric_learning import losses as theirs
        from pytorch_metric_learning import miners
    except ModuleNotFoundError:
        return cases
    return cases | {
        "their loss": lambda: theirs.ProxyNCALoss(CLASSES, DIMENSION),
        "their miner": lambda: MinedLoss(theirs.CircleLoss(), miners.MultiSimilarityMiner()),
    }


def joined_batch(step: int) -> tuple[Tensor, Tensor]:
    """The inputs ``[N, WIDTH]`` and labels of all processes in one step."""
    count = sum(SIZES[step])
    return batch([index % 3 + step % 2 for index in range(count)], seed=step, dimension=WIDTH)


def run_steps(loss: nn.Module, embed: nn.Module, part: Callable[[int], slice]) -> dict[str, list[Tensor]]:
    """Runs three steps on parts of the joined batches; losses, and gradients of network and loss in each."""
    results: dict[str, list[Tensor]] = {"values": [], "network": [], "parameters": []}
    for step in range(len(SIZES)):
        inputs, labels = (tensor[part(step)] for tensor in joined_batch(step))
        value = loss(embed(inputs), labels)
        for module in (embed, loss):
            module.zero_grad()
        value.backward()
        results["values"].append(value.detach())
        results["network"] += [parameter.grad.clone() for parameter in embed.parameters()]
        results["parameters"] += [parameter.grad.clone() for parameter in loss.parameters()]
    results["buffers"] = list(loss.buffers())
    return results


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Linear(WIDTH, DIMENSION).double()


def seeded(factory: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(6)
    return factory().double()


def samplers() -> dict[str, list[Any]]:
    """What the samplers give where they are told of no process."""
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    return {
        "class": list(ClassBatchSampler(labels, 2, 3)),
        "epoch": list(EpochBatchSampler(11, 5)),
        "shard": list(ShardSampler(11)),
    }


def work(rank: int) -> dict[str, Any]:
    """Runs all cases as one of the processes."""
    results: dict[str, Any] = {"samplers": samplers()}
    for name, factory in losses().items():

        def part(step: int) -> slice:
            start = sum(SIZES[step][:rank])
            return slice(start, start + SIZES[step][rank])

        embed = DistributedDataParallel(network())
        results[name] = run_steps(GatheredLoss(seeded(factory)), embed, part)
    return results
