"""Statistics over several processes, switched on and off for a whole model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed as dist
from torch import nn

from mdprop_ext.nn.multi_batch_norm import _MultiBatchNorm
from mdprop_ext.nn.routing import multi_layers
from mdprop_ext.nn.sync import check_synchronization


def convert_sync(model: nn.Module, process_group: dist.ProcessGroup | None = None, *, sync: bool = True) -> nn.Module:
    """Lets every multi-branch layer train with the statistics of all processes together, in place.

    In training each branch is then normalised by the mean and variance of its samples in all processes, exactly as one
    process would on the joined batch, and all keep the same running statistics: one all-gather forward and one
    all-reduce backward a layer, for all branches together. Batches and branches may have any size in each process, also
    0. Evaluation exchanges nothing, and without a process group the layers compute as before.

    Every process of the group has to make the same training passes, forward and backward, in the same order, or the
    others wait for it. Gradients of scales and shifts are those of each process; ``DistributedDataParallel`` averages
    them, as it does for ``nn.SyncBatchNorm``. Second derivatives raise. ``state_dict`` has the same entries either way,
    and ``strip_branches`` gives plain batch norms, which do not synchronise.

    Args:
        model: A module with multi-branch layers; call ``convert_multi_bn`` first where it has none.
        process_group: The processes to synchronise with, as from ``torch.distributed.new_group``; None for all.
        sync: False to switch it off again.

    Returns:
        The model.

    Raises:
        TypeError: If ``model`` is not a module, ``sync`` not a bool or ``process_group`` not a group.
        ValueError: If the model has no multi-branch layer, or a process group comes with ``sync=False``.

    Example:
        >>> model = convert_sync(convert_multi_bn(resnet18(), ("clean", "adv"), fuse_activation=True))
        >>> model = DistributedDataParallel(model)
    """
    check_synchronization(sync, process_group)
    layers = multi_layers(model)
    if not layers:
        raise ValueError(
            f"model: expected multi-branch batch norms, got {type(model).__name__} without any: call "
            "convert_multi_bn(model, branches) first"
        )
    for layer in layers:
        layer.sync = sync
        layer.process_group = process_group
    return model


@contextmanager
def without_sync(model: nn.Module) -> Iterator[None]:
    """Lets multi-branch layers compute with the samples of their own process alone, inside the block.

    For passes that other processes do not make: attacks, which take as many as their samples need.

    Args:
        model: Any module.
    """
    synchronized = [module for module in model.modules() if isinstance(module, _MultiBatchNorm) and module.sync]
    try:
        for layer in synchronized:
            layer.sync = False
        yield
    finally:
        for layer in synchronized:
            layer.sync = True
