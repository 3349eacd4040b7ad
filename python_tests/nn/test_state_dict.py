"""Checkpoints in the layouts of other multi-branch batch norms."""

import pytest
import torch
from torch import nn

from mdprop_ext.nn import MultiBatchNorm2d, adapt_state_dict, convert_multi_bn

NAMES = ("main", "st", "mt")
# Where each layout keeps branch 0, 1, ...
LAYOUTS = {
    "plain": [""],
    "timm": ["", "aux_bn.0.", "aux_bn.1."],
    "advprop": ["", "aux_bn."],
    "mdprop": ["", "aux_bn1.", "aux_bn2."],
    "augmax": ["bn.0.", "bn.1."],
}


def network():
    return convert_multi_bn(
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.BatchNorm2d(4)), NAMES
    )


def checkpoint(prefixes, layers=("1.0.", "2.")):
    generator = torch.Generator().manual_seed(0)
    state = {"0.weight": torch.rand(4, 2, 1, 1), "0.bias": torch.rand(4)}
    for layer in layers:
        for prefix in prefixes:
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[layer + prefix + name] = torch.rand(4, generator=generator)
            state[f"{layer}{prefix}num_batches_tracked"] = torch.randint(1, 99, (), generator=generator)
    return state


@pytest.mark.parametrize("prefixes", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_each_layout_fills_its_branches_and_branch_0_the_others(prefixes):
    model, state = network(), checkpoint(prefixes)
    keys = list(state)
    model.load_state_dict(adapt_state_dict(model, state))
    assert list(state) == keys
    assert torch.equal(model[0].weight, state["0.weight"])
    for layer, name_of_layer in ((model[1][0], "1.0."), (model[2], "2.")):
        for index, branch in enumerate((layer, *layer.aux_bn)):
            source = prefixes[index] if index < len(prefixes) else prefixes[0]
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                assert torch.equal(getattr(branch, name), state[name_of_layer + source + name])


def test_a_layer_alone_and_its_own_state_dict():
    layer = MultiBatchNorm2d(4, num_branches=3)
    state = checkpoint(["", "aux_bn.0.", "aux_bn.1."], layers=("",))
    state = {key: value for key, value in state.items() if not key.startswith("0.")}
    assert adapt_state_dict(layer, state) == state
    layer.load_state_dict(adapt_state_dict(layer, state))


def test_other_entries_stay():
    model = nn.Sequential(nn.Linear(2, 2), MultiBatchNorm2d(4))
    state = {"0.weight": torch.zeros(2, 2), "head.bn.0.weight": torch.zeros(4), "1.extra": torch.zeros(1)}
    assert adapt_state_dict(model, state) == state


def test_shared_affine_takes_statistics_only():
    layer = MultiBatchNorm2d(4, share_affine=True)
    layer.load_state_dict(adapt_state_dict(layer, nn.BatchNorm2d(4).state_dict()))


def test_more_branches_than_the_model_has():
    state = checkpoint(["", "aux_bn.0.", "aux_bn.1.", "aux_bn.2."])
    with pytest.raises(ValueError, match=r"'1.0.aux_bn.2.weight' of branch 3, but 1.0 has 3 branches"):
        adapt_state_dict(network(), state)
