"""Kernels use the addresses of all their tensors, so each must be where the first is."""

import pytest
import torch

from mdprop_ext import ops

X = torch.rand(4, 3, 2, 2)
TABLE = torch.rand(2, 3)
MEANS, VARIANCES = [torch.rand(3), torch.rand(3)], [torch.rand(3), torch.rand(3)]
IDS, PER_SAMPLE = torch.tensor([0, 1, 1, 0]), torch.rand(4, dtype=torch.float64)
ROWS, OFFSETS = torch.rand(4, 3), torch.tensor([0, 1, 4])
NEIGHBOURS = torch.zeros(4, 2, dtype=torch.int64)
CODES = ops.pack_codes(torch.ones(4, 64, dtype=torch.bool))
MASK, ACTIVE = torch.ones_like(X, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
BOX = (0.0, torch.zeros_like(X), 1.0, torch.ones_like(X))
STEP = (X, X, X, "l2", 0.1, PER_SAMPLE, 0.5, PER_SAMPLE, *BOX, ACTIVE, MASK)
SAVED = (TABLE, TABLE, TABLE, TABLE, torch.zeros(4 * 3, dtype=torch.uint8))

CALLS = {
    "pgd_step": STEP,
    "pgd_step_out": (*STEP, X.clone(), 1.0, X.clone()),
    "random_start": (X, "linf", 0.1, PER_SAMPLE, *BOX, 0, 0),
    "knn_topk": (ROWS, ROWS, 2, "dot", OFFSETS, OFFSETS),
    "knn_topk_backward": (torch.rand(4, 2), ROWS, ROWS, torch.rand(4, 2), NEIGHBOURS, "dot"),
    "hamming_topk": (CODES, CODES, 2, 64, OFFSETS, OFFSETS),
    "hamming_distance": (CODES, CODES, 64),
    "multi_batch_norm": (X, TABLE, TABLE, TABLE, TABLE, X, IDS, None, False, 1e-5, "relu"),
    "multi_batch_norm_backward": (X, X, *SAVED, torch.rand(2, 7), IDS, None, True, 1e-5, "relu", True),
    "multi_batch_norm_backward_sums": (X, X, *SAVED, IDS, None, 1e-5, "relu"),
    "multi_batch_norm_update_": (MEANS, VARIANCES, [], TABLE, TABLE, torch.tensor([2, 2]), 0.1),
    "multi_batch_norm_mixture": (X, TABLE, TABLE, TABLE, TABLE, torch.rand(4, 2), 1e-5),
    "multi_batch_norm_mixture_backward": (X, X, TABLE, TABLE, TABLE, TABLE, torch.rand(4, 2), 1e-5, True),
}
ROUTES = {"branch_ids", "branch_sizes"}  # these may come from elsewhere and are copied


def kernel(name, args):
    """Calls the CPU kernel, whatever the devices say."""
    op = getattr(torch.ops.mdprop, name).default
    return op.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args)


def elsewhere(value):
    return [tensor.to("meta") for tensor in value] if isinstance(value, list) else value.to("meta")


def swaps():
    for name, args in CALLS.items():
        schema = getattr(torch.ops.mdprop, name).default._schema
        tensors = [
            (index, argument.name)
            for index, argument in enumerate(schema.arguments)
            if isinstance(args[index], torch.Tensor) or (isinstance(args[index], list) and args[index])
        ]
        for index, argument in tensors:
            if argument not in ROUTES and not (index == 0 and name != "multi_batch_norm_update_"):
                yield pytest.param(name, index, id=f"{name}-{argument}")


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_of_this_file_are_right(name):
    kernel(name, CALLS[name])


@pytest.mark.parametrize(("name", "index"), list(swaps()))
def test_a_tensor_on_another_device_is_refused(name, index):
    args = list(CALLS[name])
    args[index] = elsewhere(args[index])
    with pytest.raises(RuntimeError, match="must be on the device of the first tensor"):
        kernel(name, args)
