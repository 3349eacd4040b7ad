"""Layers to compare, one plain batch norm for each branch of a multi-branch one."""

import torch

CHANNELS = 5
OPTIONS = {
    "default": {},
    "momentum": {"momentum": 0.3, "eps": 1e-3},
    "cumulative": {"momentum": None},
    "no_affine": {"affine": False},
    "no_bias": {"bias": False},
    "no_statistics": {"track_running_stats": False},
}


def plain_norm(plain_class, *, bias=True, **options):
    """A plain batch norm; older ones of torch take no ``bias``."""
    norm = plain_class(CHANNELS, **options)
    if not bias:
        norm.register_parameter("bias", None)
    return norm


def randomize(layer):
    """Parameters and statistics that differ between channels and branches."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in [*layer.parameters(), *layer.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return layer


def plain_branches(layer, plain_class):
    """One plain batch norm a branch with copies of its values."""
    plain = []
    for branch in (layer, *layer.aux_bn):
        options = {name: getattr(layer, name) for name in ("eps", "momentum", "affine", "track_running_stats")}
        norm = plain_norm(plain_class, bias=layer.bias is not None, **options)
        norm.load_state_dict({key: value for key, value in branch.state_dict().items() if "aux_bn" not in key})
        plain.append(norm.train(layer.training))
    return plain


def assert_same_branches(layer, plain):
    for branch, norm in zip((layer, *layer.aux_bn), plain, strict=True):
        for name, expected in norm.state_dict().items():
            torch.testing.assert_close(getattr(branch, name), expected, msg=lambda text, name=name: f"{name}: {text}")
        for name, parameter in norm.named_parameters():
            grad = getattr(branch, name).grad
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(torch.zeros_like(expected) if grad is None else grad, expected)
