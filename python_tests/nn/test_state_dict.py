"""Checkpoints in the layouts of other multi-branch batch norms."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from nn.norm_layers import CHANNELS, randomize
from nn.peer_layers import DualBatchNorm2d, MixBatchNorm2d, SplitBatchNorm2d
from torch import nn

from mdprop_ext.nn import (
    MultiBatchNorm2d,
    adapt_state_dict,
    branch_names,
    convert_multi_bn,
    export_state_dict,
    strip_branches,
    use_branch,
    use_branches,
)

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


class Upgraded(nn.Module):
    """A module whose version 1 kept half of what version 2 keeps."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.register_buffer("size", torch.tensor(4.0))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}size"] = 2 * state_dict[f"{prefix}size"]
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def test_versions_of_other_modules_are_kept():
    model = nn.Sequential(Upgraded(), MultiBatchNorm2d(4))
    for state in (adapt_state_dict(model, model.state_dict()), export_state_dict(model, layout="timm")):
        model.load_state_dict(state)
        assert float(model[0].size) == 4
    model.load_state_dict(adapt_state_dict(model, dict(model.state_dict())))
    assert float(model[0].size) == 8


def test_shared_affine_takes_statistics_only():
    layer = MultiBatchNorm2d(4, share_affine=True)
    layer.load_state_dict(adapt_state_dict(layer, nn.BatchNorm2d(4).state_dict()))


def test_more_branches_than_the_model_has():
    state = checkpoint(["", "aux_bn.0.", "aux_bn.1.", "aux_bn.2."])
    with pytest.raises(ValueError, match=r"the 3 branches of 1.0, got '1.0.aux_bn.2.weight' of branch 3"):
        adapt_state_dict(network(), state)


PEERS = {
    "timm": (lambda: SplitBatchNorm2d(CHANNELS, num_splits=3), NAMES),
    "advprop": (lambda: MixBatchNorm2d(CHANNELS), NAMES[:2]),
    "augmax": (lambda: DualBatchNorm2d(CHANNELS), NAMES[:2]),
    "plain": (lambda: nn.BatchNorm2d(CHANNELS), NAMES[:1]),
}


def peer_network(make):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, CHANNELS, 3), nn.Sequential(randomize(make()), nn.ReLU()), randomize(make()))


def our_network(names):
    plain = nn.Sequential(
        nn.Conv2d(2, CHANNELS, 3), nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.ReLU()), nn.BatchNorm2d(CHANNELS)
    )
    return convert_multi_bn(plain, names)


def outputs_of_branches(layout, peer, ours, x):
    """What both networks make of a batch in equal parts, each part through its branch."""
    names = branch_names(ours)
    for layer in peer.modules():
        if isinstance(layer, MixBatchNorm2d):
            layer.batch_type = "mix"
    if layout != "augmax":
        with use_branches(ours, {name: len(x) // len(names) for name in names}):
            return peer(x), ours(x)
    outputs = []
    for route, name, part in zip("MA", names, x.chunk(2), strict=True):
        for layer in peer.modules():
            if isinstance(layer, DualBatchNorm2d):
                layer.route = route
        with use_branch(ours, name):
            outputs.append((peer(part), ours(part)))
    theirs, own = zip(*outputs, strict=True)
    return torch.cat(theirs), torch.cat(own)


@pytest.mark.parametrize("layout", PEERS)
def test_both_ways_between_a_peer_and_ours(layout):
    make, names = PEERS[layout]
    peer, ours = peer_network(make), our_network(names)
    ours.load_state_dict(adapt_state_dict(ours, peer.state_dict()))
    x = torch.randn(12, 2, 6, 6)
    for _ in range(2):
        theirs, own = outputs_of_branches(layout, peer, ours, x)
        torch.testing.assert_close(own, theirs)
        for model, output in ((peer, theirs), (ours, own)):
            model.zero_grad()
            output.square().sum().backward()
        torch.testing.assert_close(ours[0].weight.grad, peer[0].weight.grad, atol=1e-3, rtol=1e-3)
        for model in (peer, ours):
            torch.optim.SGD(model.parameters(), lr=1e-3).step()
    exported = export_state_dict(ours, layout=layout)
    assert set(exported) == set(peer.state_dict())
    for name, value in peer.state_dict().items():
        torch.testing.assert_close(exported[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: name + text)
    back = peer_network(make)
    back.load_state_dict(exported)
    torch.testing.assert_close(back.eval()(x), ours.eval()(x))


@pytest.mark.parametrize(
    ("layout", "branches"),
    [(layout, ("mt", "main")) for layout in ("timm", "mdprop", "advprop", "augmax")]
    + [("timm", (0, 2, 1)), ("mdprop", NAMES)],
)
def test_round_trips_are_exact(layout, branches):
    model = randomize(network())
    exported = export_state_dict(model, layout=layout, branches=branches)
    back = convert_multi_bn(strip_branches(network()), [str(branch) for branch in branches])
    back.load_state_dict(adapt_state_dict(back, exported))
    for layer, copied in ((model[1][0], back[1][0]), (model[2], back[2])):
        for branch, holder in zip(branches, (copied, *copied.aux_bn), strict=True):
            index = branch if isinstance(branch, int) else NAMES.index(branch)
            for name, value in holder.state_dict().items():
                if "aux_bn" not in name:
                    assert torch.equal(value, getattr((layer, *layer.aux_bn)[index], name))


def test_one_branch_as_a_plain_network():
    model = randomize(network())
    exported = export_state_dict(model, layout="plain", branches=("st",))
    plain = strip_branches(network())
    plain.load_state_dict(exported)
    x = torch.randn(4, 2, 5, 5)
    torch.testing.assert_close(plain.eval()(x), strip_branches(copy.deepcopy(model), "st").eval()(x))
    assert exported["0.weight"].data_ptr() == model[0].weight.data_ptr()


@pytest.mark.parametrize("layout", ["timm", "augmax"])
def test_a_shared_affine_is_written_for_each_branch_and_joined_again(layout):
    model = nn.Sequential(randomize(MultiBatchNorm2d(4, share_affine=True)))
    exported = export_state_dict(model, layout=layout)
    peer = nn.Sequential(SplitBatchNorm2d(4) if layout == "timm" else DualBatchNorm2d(4))
    peer.load_state_dict(exported)
    assert len({value.data_ptr() for value in exported.values()}) == len(exported)
    back = nn.Sequential(MultiBatchNorm2d(4, share_affine=True))
    back.load_state_dict(adapt_state_dict(back, exported))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.state_dict().items())
    exported["0.aux_bn.0.bias" if layout == "timm" else "0.bn.1.bias"] += 1
    with pytest.raises(ValueError, match=r"one bias for all branches of 0, .*another one in branch 1"):
        adapt_state_dict(back, exported)


def test_layers_without_affine_or_statistics_and_shared_ones():
    for options in ({"affine": False}, {"track_running_stats": False}):
        layer = MultiBatchNorm2d(4, **options)
        exported = export_state_dict(layer, layout="augmax")
        assert adapt_state_dict(layer, exported).keys() == layer.state_dict().keys()
        assert all(name.startswith(("bn.0.", "bn.1.")) for name in exported)
    shared = MultiBatchNorm2d(4)
    model = nn.ModuleDict({"a": shared, "b": shared})
    exported = export_state_dict(model, layout="advprop")
    assert {"a.aux_bn.weight", "b.aux_bn.weight"} <= set(exported)
    assert adapt_state_dict(model, exported).keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layout": "keras"}, ValueError, r"layout: expected one of 'plain', 'timm'.* got 'keras'"),
        ({"layout": "plain"}, ValueError, r"expected 1 for the layout 'plain', got \['main', 'st', 'mt'\]"),
        ({"layout": "advprop"}, ValueError, r"expected 2 for the layout 'advprop'"),
        ({"layout": "augmax"}, ValueError, r"expected 2 for the layout 'augmax'"),
        (
            {"layout": "timm", "branches": ["st"]},
            ValueError,
            r"expected at least 2 for the layout 'timm', got \['st'\]",
        ),
        ({"layout": "augmax", "branches": ("st", 1)}, ValueError, "each branch once"),
        ({"layout": "augmax", "branches": ("st", "adv")}, ValueError, "'adv' is unknown"),
        ({"layout": "plain", "branches": "st"}, TypeError, "branches: expected a sequence"),
    ],
)
def test_layouts_that_cannot_hold_the_branches(options, error, message):
    with pytest.raises(error, match=message):
        export_state_dict(network(), **options)
    with pytest.raises(ValueError, match="Linear has no multi-branch batch norm"):
        export_state_dict(nn.Linear(2, 2), layout="timm")


def test_the_split_batch_norm_of_timm_itself():
    package = importlib.util.find_spec("timm")
    if package is None:
        pytest.skip("timm is not installed")
    # The file alone: timm as a whole needs torchvision.
    spec = importlib.util.spec_from_file_location(
        "split_batchnorm", Path(package.origin).parent / "layers" / "split_batchnorm.py"
    )
    split_batchnorm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(split_batchnorm)
    peer = randomize(split_batchnorm.SplitBatchNorm2d(CHANNELS, num_splits=3))
    layer = MultiBatchNorm2d(CHANNELS, branches=NAMES)
    layer.load_state_dict(adapt_state_dict(layer, peer.state_dict()))
    x = torch.randn(12, CHANNELS, 3, 3)
    theirs, own = outputs_of_branches("timm", peer, layer, x)
    torch.testing.assert_close(own, theirs)
    peer.load_state_dict(export_state_dict(layer, layout="timm"))
    torch.testing.assert_close(peer.eval()(x), layer.eval()(x))


def test_a_path_is_no_state_dict():
    model = convert_multi_bn(nn.Sequential(nn.BatchNorm2d(3)), ("main", "adv"))
    with pytest.raises(TypeError, match=r"state_dict: expected a state dict such as torch.load gives, got str"):
        adapt_state_dict(model, "model.pth")
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got OrderedDict"):
        adapt_state_dict(model.state_dict(), model)
