"""The layers in a training run: checkpointed blocks, half types, gradient scaling, learning rates, averaged weights."""

import copy

import pytest
import torch
from nn.norm_layers import CHANNELS, randomize
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from mdprop_ext import ops
from mdprop_ext.nn import (
    MultiBatchNorm2d,
    backbones,
    branch_parameters,
    convert_multi_bn,
    strip_branches,
    use_branch,
    use_branches,
)

NAMES = ("main", "adv")
ROUTE = {"main": 5, "adv": 3}


def network(**options):
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(2, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Conv2d(CHANNELS, 4, 1)
    )
    return randomize(convert_multi_bn(plain, NAMES, **options))


def images(dtype=torch.float32):
    return torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(2)).to(dtype)


def step(model, call):
    """Input gradient after one routed step, whose parameter gradients stay on the model."""
    x = images().requires_grad_()
    model.zero_grad()
    with use_branches(model, ROUTE):
        output = call(x)
        output.square().sum().backward()
    return output.detach(), x.grad


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpointed_block_equals_the_plain_run(use_reentrant, momentum):
    plain, model = network(fuse_activation=True), network(fuse_activation=True)
    for layer in (plain[1], model[1]):
        layer.momentum = momentum
    for run in range(1, 3):
        expected = step(plain, plain)
        result = step(model, lambda x: checkpoint(model, x, use_reentrant=use_reentrant))
        torch.testing.assert_close(result, expected)
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
        assert int(model[1].aux_bn[0].num_batches_tracked) == run


def test_a_block_checkpointed_inside_a_checkpointed_one_counts_once():
    plain, model = network(), network()
    step(plain, plain)

    def inner(x):
        return checkpoint(model[1], model[0](x), use_reentrant=False)

    step(model, lambda x: model[3](model[2](checkpoint(inner, x, use_reentrant=False))))
    torch.testing.assert_close(dict(model.state_dict()), dict(plain.state_dict()))


def test_a_compiled_checkpoint_counts_once():
    torch._dynamo.reset()
    plain, model = network(), network()
    expected = step(plain, plain)
    compiled = torch.compile(lambda x: checkpoint(model, x, use_reentrant=False), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(step(model, compiled), expected)
    torch.testing.assert_close(dict(model.state_dict()), dict(plain.state_dict()))


def test_the_op_updates_its_tables_once_too():
    tables = [torch.ones(2, 2), torch.zeros(2, 2), torch.zeros(2, 2), torch.ones(2, 2)]
    expected = [table.clone() for table in tables]
    ops.multi_batch_norm(images(), *expected, branch=[5, 3], training=True)

    def run(x):
        return ops.multi_batch_norm(x, *tables, branch=[5, 3], training=True)

    checkpoint(run, images().requires_grad_(), use_reentrant=False).sum().backward()
    assert all(torch.equal(table, value) for table, value in zip(tables, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norms_stay_wide", [True, False])
def test_a_model_cast_to_a_half_type_trains(dtype, norms_stay_wide):
    model, reference = network(fuse_activation=True).to(dtype), network(fuse_activation=True)
    if norms_stay_wide:
        model[1].float()
        assert model[1].aux_bn[0].running_mean.dtype == torch.float32
    with use_branches(model, ROUTE), use_branches(reference, ROUTE):
        output, expected = model(images(dtype)), reference(images())
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), expected, atol=0.06, rtol=0.06)
    output.float().square().mean().backward()
    expected.square().mean().backward()
    grad = model[1].aux_bn[0].weight.grad
    assert grad.dtype == model[1].weight.dtype == (torch.float32 if norms_stay_wide else dtype)
    torch.testing.assert_close(grad.float(), reference[1].aux_bn[0].weight.grad, atol=0.02, rtol=0.1)
    for name in ("running_mean", "running_var"):
        value, wide = (getattr(each[1].aux_bn[0], name) for each in (model, reference))
        torch.testing.assert_close(value.float(), wide, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scaled_gradients_under_autocast(dtype):
    model, reference = network(fuse_activation=True), network(fuse_activation=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, reference)]
    with use_branches(model, ROUTE), torch.autocast("cpu", dtype=dtype):
        output = model(images())
    assert output.dtype == dtype
    scaler.scale(output.float().square().mean()).backward()
    with use_branches(reference, ROUTE):
        reference(images()).square().mean().backward()
    scaler.step(optimizers[0])
    scaler.update()
    optimizers[1].step()
    for name, parameter in reference.named_parameters():
        assert model.get_parameter(name).dtype == torch.float32
        torch.testing.assert_close(model.get_parameter(name), parameter, atol=0.01, rtol=0.02)
    assert model[1].running_mean.dtype == torch.float32
    before = copy.deepcopy(dict(model.named_parameters()))
    with use_branches(model, ROUTE), torch.autocast("cpu", dtype=dtype):
        scaler.scale(model(images()).float().square().mean() * float("inf")).backward()
    scaler.step(optimizers[0])  # skipped: the gradients are not finite
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_two_branches_learn_at_two_rates():
    model = network()
    adversarial = list(branch_parameters(model, "adv"))
    held = {id(parameter) for parameter in adversarial}
    others = [parameter for parameter in model.parameters() if id(parameter) not in held]
    optimizer = torch.optim.SGD([{"params": others, "lr": 0.5}, {"params": adversarial, "lr": 0.125}])
    assert len(adversarial) == 2
    before = copy.deepcopy(dict(model.named_parameters()))
    step(model, model)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0
        rate = 0.125 if "aux_bn" in name else 0.5
        torch.testing.assert_close(parameter.detach(), before[name] - rate * parameter.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("share_affine", [True, False])
def test_an_averaged_model_averages_every_branch(use_buffers, share_affine):
    model = nn.Sequential(randomize(MultiBatchNorm2d(2, branches=NAMES, share_affine=share_affine)))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75), use_buffers=use_buffers)
    averaged.update_parameters(model)  # the first one copies
    first = copy.deepcopy(model.state_dict())
    step(model, model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(0.1 * parameter.grad)
    averaged.update_parameters(model)
    parameters = dict(model.named_parameters())
    for name, value in averaged.module.state_dict().items():
        now = model.state_dict()[name]
        is_averaged = name in parameters or (use_buffers and now.is_floating_point())
        expected = 0.75 * first[name] + 0.25 * now if is_averaged else now
        if not now.is_floating_point():
            continue
        torch.testing.assert_close(value, expected, msg=lambda text, name=name: f"{name}: {text}")
    with use_branch(averaged, "adv"):
        routed = averaged.eval()(images())
    torch.testing.assert_close(routed, strip_branches(copy.deepcopy(averaged.module), "adv")(images()))


def test_update_bn_of_torch_estimates_the_routed_branches_and_resets_the_others():
    model = randomize(nn.Sequential(MultiBatchNorm2d(2, branches=("main", "adv", "far"))))
    batches = [images(), images() + 1]
    with use_branches(model, ROUTE):
        update_bn(batches, model)
    for branch, rows in ((model[0], slice(0, 5)), (model[0].aux_bn[0], slice(5, 8))):
        expected = torch.stack([batch[rows].mean((0, 2, 3)) for batch in batches]).mean(0)
        torch.testing.assert_close(branch.running_mean, expected)
    unused = model[0].aux_bn[1]
    assert (unused.running_mean.tolist(), unused.running_var.tolist()) == ([0, 0], [1, 1])
    assert model[0].momentum == 0.1


@pytest.mark.skipif(not torch.distributed.is_available(), reason="a torch without torch.distributed")
def test_sharded_parameters_get_the_same_gradients(tmp_path):
    from torch.distributed.fsdp import fully_shard

    plain, model = network(fuse_activation=True), network(fuse_activation=True)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for module in (model[1], model):
            fully_shard(module)
        torch.testing.assert_close(step(model, model), step(plain, plain))
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(model.get_parameter(name).grad.full_tensor(), parameter.grad)
        for name, buffer in plain.named_buffers():
            torch.testing.assert_close(model.get_buffer(name), buffer)
    finally:
        torch.distributed.destroy_process_group()


class FormatRecord(TorchDispatchMode):
    """Which images our ops read and write out of channels_last, and which images are copied on the way."""

    def __init__(self):
        super().__init__()
        self.calls, self.other_formats, self.copies = 0, [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        images = [
            value for value in tree_leaves((args, result)) if isinstance(value, torch.Tensor) and value.dim() == 4
        ]
        if func.namespace == "mdprop":
            self.calls += 1
            if not all(value.is_contiguous(memory_format=torch.channels_last) for value in images):
                self.other_formats.append(func)
        elif images and func.overloadpacket.__name__ in ("clone", "copy_", "_to_copy", "contiguous"):
            self.copies.append(func)
        return result


@pytest.mark.parametrize(("make", "fuse_activation"), [(backbones.conv4, False), (backbones.resnet18, True)])
def test_channels_last_from_end_to_end_without_a_copy(make, fuse_activation):
    model = convert_multi_bn(make(in_channels=3), NAMES, fuse_activation=fuse_activation)
    model.to(memory_format=torch.channels_last)
    x = torch.rand(3, 3, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    with use_branches(model, {"main": 1, "adv": 2}):
        outputs = []
        model.get_submodule("features" if make is backbones.conv4 else "layer3").register_forward_hook(
            lambda module, inputs, output: outputs.append(output)
        )
        with FormatRecord() as record:
            model(x).square().sum().backward()
    norms = sum(isinstance(module, MultiBatchNorm2d) for module in model.modules())
    assert record.calls == 3 * norms  # forward, update, backward
    assert (record.other_formats, record.copies) == ([], [])
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in (*outputs, x.grad))
