"""What an attack borrows and gives back: the model's flags and the global random state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mdprop_ext.attacks.rows import map_tensors
from mdprop_ext.nn.convert_sync import without_sync

BatchNormMode = Literal["running", "batch", "train"]


@contextmanager
def attack_mode(model: nn.Module, bn_mode: BatchNormMode) -> Iterator[None]:
    """Puts ``model`` into the state in which attacks run, and restores every flag, also after an exception.

    All modules are in evaluation mode (dropout off) but batch norms as ``bn_mode`` says, and no parameter requires a
    gradient, so that the backward pass computes none but the input's. Layers that synchronise their statistics over
    processes use those of this process alone: an attack takes as many passes as its samples need, and a process that
    takes more would wait for the others for ever. Flags are set one by one, never by
    ``model.eval()``: modules that the user had frozen stay frozen, and a ``train()`` method with side effects is not
    run.

    Args:
        model: The attacked model.
        bn_mode: ``"running"``: running statistics; ``"batch"``: statistics of the attacked batch, never written;
            ``"train"``: statistics of the attacked batch, which also update the running ones.

    Raises:
        ValueError: If a parameter or buffer was created under ``torch.inference_mode()``: autograd cannot use it.
    """
    _check_usable_by_autograd(model)
    training = [(module, module.training) for module in model.modules()]
    tracking = [(module, module.track_running_stats) for module, _ in training if isinstance(module, _BatchNorm)]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module, _ in training:
            module.training = False
        if bn_mode != "running":
            for batch_norm, tracks in tracking:
                batch_norm.training = True
                # Torch's switch for statistics of the batch that leave buffers and counters alone.
                batch_norm.track_running_stats = tracks and bn_mode == "train"
        for parameter in trainable:
            parameter.requires_grad_(False)
        with without_sync(model), without_replication(model):
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for batch_norm, tracks in tracking:
            batch_norm.track_running_stats = tracks
        for module, mode in training:
            module.training = mode


@contextmanager
def without_replication(model: nn.Module) -> Iterator[None]:
    """Lets every ``DistributedDataParallel`` in ``model`` call the network inside it and do nothing else.

    The wrapper would broadcast buffers at every forward pass, for which processes with fewer passes are waited for, and
    prepare for gradients of parameters that an attack never computes.
    """
    wrappers = [module for module in model.modules() if isinstance(module, nn.parallel.DistributedDataParallel)]
    try:
        for wrapper in wrappers:
            vars(wrapper)["forward"] = wrapper.module.__call__  # setattr would register a second child
        yield
    finally:
        for wrapper in wrappers:
            vars(wrapper).pop("forward", None)


@contextmanager
def forked_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the global generators of the CPU and of ``device`` inside the block, and restores them after it.

    Seeding matters as much as restoring: a randomised model would otherwise see in the attack the very numbers that it
    sees next outside, and look weaker than it is.
    """
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def derived_generator() -> torch.Generator:
    """Makes a generator seeded by a digest of the global CPU random state, which stays as it is.

    The same ``torch.manual_seed`` before the same draws gives the same generator; it then advances on its own.
    """
    state = torch.get_rng_state().numpy().tobytes()
    seed = int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "little") >> 1
    return torch.Generator().manual_seed(seed)


def drawn_seed(generator: torch.Generator) -> int:
    """Draws a seed, a non-negative int64, from ``generator``."""
    draw = torch.randint(2**63 - 1, (), generator=generator, device=generator.device, dtype=torch.int64)
    return int(draw)


def child_seed(seed: int, index: int) -> int:
    """Derives seed number ``index`` from a seed, a non-negative int64, independent of its other children."""
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _check_usable_by_autograd(model: nn.Module) -> None:
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in tensors:
            if tensor.is_inference():
                raise ValueError(
                    f"model: expected tensors that autograd can use, got {kind} {name!r} created under "
                    "torch.inference_mode(); build and load the model outside of it"
                )


def usable_by_autograd(value: Any) -> Any:
    """Copies the tensors that were made under ``torch.inference_mode()``, in nested tuples, lists and dicts too.

    To be called outside of inference mode. Other tensors are detached and share their memory; other values stay as they
    are.
    """
    return map_tensors(lambda tensor: tensor.clone() if tensor.is_inference() else tensor.detach(), value)
