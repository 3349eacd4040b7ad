"""From plain batch norms to multi-branch ones and back, in place."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mdprop_ext.nn._names import check_branch_names
from mdprop_ext.nn.multi_batch_norm import (
    _PARAMETERS,
    _STATISTICS,
    MultiBatchNorm1d,
    MultiBatchNorm2d,
    MultiBatchNorm3d,
    _MultiBatchNorm,
)
from mdprop_ext.nn.residual_batch_norm import RESIDUAL_CLASSES
from mdprop_ext.nn.routing import branch_index, layers_to_route, multi_layers

_MULTI_CLASSES: tuple[type[_MultiBatchNorm], ...] = (MultiBatchNorm1d, MultiBatchNorm2d, MultiBatchNorm3d)


class MultiBatchNormAct2d(MultiBatchNorm2d):
    """The multi-branch form of timm's ``BatchNormAct2d``, which keeps its ``drop`` and ``act`` behind the norm."""

    norm_act_class: type[_BatchNorm]
    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalises each sample by its branch, then drops and activates as the converted layer did."""
        output: Tensor = self.act(self.drop(super().forward(input, residual)))
        return output


def convert_multi_bn(
    model: nn.Module, branches: Sequence[str], *, fuse_activation: bool = False, skip: Collection[str] = ()
) -> nn.Module:
    """Gives every batch norm of a model several branches, in place.

    Every branch starts with the parameters **and** the running statistics of the converted layer. The modules stay the
    same objects and only change their class, so that parameters, hooks, flags, shared modules, optimizers and
    references to them stay valid. Converted are ``nn.BatchNorm1d``, ``2d``, ``3d`` and timm's ``BatchNormAct2d``;
    instance norms and other layers are left alone. If anything cannot be converted, nothing is.

    Args:
        model: Any module; a batch norm itself will do.
        branches: Names of the branches; the first is the layer as it was.
        fuse_activation: Whether to compute a ReLU that directly follows a batch norm in the same pass. Found are
            neighbours in ``nn.Sequential``, pairs of names that a module's class declares as
            ``norm_activations = (("bn1", "act1"), ...)``, and the activation inside ``BatchNormAct2d``. An
            ``nn.Identity`` takes the place of the ReLU. Layers with hooks, and norms used in several places, keep it. A
            warning tells if no layer of the model has one fused.
        skip: Names of modules, as in ``model.named_modules()``, that stay as they are with all that they hold.

    Returns:
        The model.

    Raises:
        TypeError: If the model holds another kind of batch norm, such as ``nn.SyncBatchNorm``.
        ValueError: If the model has no batch norm, or has multi-branch layers with other branches, or a name in
            ``skip`` is none of its modules.

    Example:
        >>> model = convert_multi_bn(resnet18(), ("main", "st", "mt"), fuse_activation=True)
    """
    names = check_branch_names(branches)
    present = {layer.branches for layer in multi_layers(model)}
    if present - {names}:
        raise ValueError(f"the model has the branches {present.pop()} already: call strip_branches first")
    conversions = [(norm, _multi_class(norm)) for norm in _plain_norms(model, skip)]
    if not conversions and not present:
        raise ValueError(
            f"model: {type(model).__name__} has no batch norm to convert: expected layers such as nn.BatchNorm2d, or "
            "training without branches"
        )
    for norm, multi_class in conversions:
        plain_class = type(norm)
        norm.__class__ = multi_class
        assert isinstance(norm, _MultiBatchNorm)
        if isinstance(norm, MultiBatchNormAct2d):
            norm.norm_act_class = plain_class
        norm._add_branches(names)
    if fuse_activation:
        _fuse_activations(model)
        if all(layer.activation is None for layer in multi_layers(model)):
            warnings.warn(
                f"fuse_activation=True found no ReLU of {type(model).__name__} to fuse: expected one behind its norm "
                "in an nn.Sequential, or a pair of names in norm_activations of the module's class",
                stacklevel=2,
            )
    return model


def strip_branches(model: nn.Module, keep: str | int = 0, *, residual: bool = False) -> nn.Module:
    """Turns every multi-branch layer into the plain batch norm of one branch, in place.

    The result is an ordinary network for export, folding into convolutions or other libraries. A fused ReLU returns to
    where it was; one that was asked for by ``activation="relu"`` is put behind its layer in an ``nn.Sequential``. A
    plain batch norm takes no residual: where the model hands one to its layers, ask for ``residual=True``.

    Args:
        model: Any module; one without multi-branch layers is returned as it is. It loses its other branches: copy it
            first to keep them.
        keep: Name or index of the branch that stays; the first by default.
        residual: Whether the layers stay callable as ``layer(x, residual)``: they become a ``ResidualBatchNorm2d`` (1d,
            3d), which is an ``nn.BatchNorm2d`` that adds and activates in plain PyTorch.

    Returns:
        The model.

    Raises:
        TypeError: If the model is not a module, the branch neither a name nor an index, or a layer of a subclass, such
            as those that ``torch.nn.utils.parametrize`` and ``fully_shard`` make; then nothing is stripped.
        ValueError: If the branch is unknown.

    Example:
        >>> torch.onnx.export(strip_branches(copy.deepcopy(model)), (images,), "model.onnx")
    """
    layers = multi_layers(model)
    if not layers:
        return model
    index = branch_index(layers[0].branches, keep)
    for layer in layers:
        # As in the conversion: what a subclass does besides would be lost without a word.
        if type(layer) not in (*_MULTI_CLASSES, MultiBatchNormAct2d):
            raise TypeError(f"cannot strip a {type(layer).__name__}: expected MultiBatchNorm1d, 2d or 3d")
    _unfuse_activations(model)
    if not residual:
        model = _put_activations_behind(model)
    for layer in layers:
        _strip(layer, index, residual=residual)
    return model


def branch_parameters(model: nn.Module, branch: str | int) -> Iterator[nn.Parameter]:
    """The parameters that belong to one branch, for learning rates or freezing by branch.

    Args:
        model: A module with multi-branch layers.
        branch: Name or index of the branch.

    Returns:
        An iterator over scales and shifts. With ``share_affine`` they belong to branch 0.

    Raises:
        TypeError: If the model is not a module, or the branch neither a name nor an index.
        ValueError: If the model has no multi-branch layer, or the branch is unknown.

    Example:
        >>> optimizer.add_param_group({"params": list(branch_parameters(model, "adv")), "lr": 1e-4})
    """
    layers = layers_to_route(model)
    index = branch_index(layers[0].branches, branch)
    holders: list[nn.Module] = [layer if index == 0 else layer.aux_bn[index - 1] for layer in layers]
    return itertools.chain.from_iterable(holder.parameters(recurse=False) for holder in holders)


def _plain_norms(model: nn.Module, skip: Collection[str]) -> Iterator[_BatchNorm]:
    """Every batch norm once that is neither to skip, nor multi-branch, nor a branch of such a layer."""
    passed = {id(branch) for layer in multi_layers(model) for branch in layer.aux_bn}
    if isinstance(skip, str):
        raise TypeError(f"skip: expected names of modules such as ('head',), got {skip!r}")
    names = dict(model.named_modules(remove_duplicate=False))
    for name in skip:
        if name not in names:
            raise ValueError(f"skip: expected names of modules of the model, got {name!r}")
        passed.update(id(module) for module in names[name].modules())
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _MultiBatchNorm) and id(module) not in passed:
            yield module


def _multi_class(norm: _BatchNorm) -> type[_MultiBatchNorm]:
    # By exact type: a subclass may do more in its forward, which a conversion would silently drop.
    for multi_class in _MULTI_CLASSES:
        if type(norm) is multi_class.plain_class:
            return multi_class
    # By name, since timm is no dependency of this package.
    if isinstance(norm, nn.BatchNorm2d) and type(norm).__name__ == "BatchNormAct2d":
        return MultiBatchNormAct2d
    if isinstance(norm, nn.SyncBatchNorm):
        raise TypeError(
            "cannot give branches to an nn.SyncBatchNorm: call convert_multi_bn on the network as it was, and then "
            "convert_sync(model) instead of convert_sync_batchnorm(model)"
        )
    raise TypeError(
        f"cannot give branches to a {type(norm).__name__}: expected nn.BatchNorm1d, 2d, 3d or timm's BatchNormAct2d"
    )


def _norm_activation_slots(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a parent's children of which the second is applied directly to what the first returns."""
    if isinstance(parent, nn.Sequential) and type(parent).forward is nn.Sequential.forward:
        yield from itertools.pairwise(parent._modules)
    yield from getattr(type(parent), "norm_activations", ())


def _fusion_slots(model: nn.Module) -> Iterator[tuple[_MultiBatchNorm, nn.Module, str]]:
    """Each multi-branch layer that is used in one place and has something behind it, with that slot."""
    uses = Counter(id(child) for module in model.modules() for child in module._modules.values())
    for parent in model.modules():
        for norm_name, activation_name in _norm_activation_slots(parent):
            norm = parent.get_submodule(norm_name)
            if isinstance(norm, _MultiBatchNorm) and uses[id(norm)] == 1:
                yield norm, parent, activation_name
        if isinstance(parent, MultiBatchNormAct2d) and isinstance(parent.drop, nn.Identity):
            yield parent, parent, "act"


def _fuse_activations(model: nn.Module) -> None:
    for norm, parent, name in list(_fusion_slots(model)):
        activation = parent.get_submodule(name)
        # A hook must go on seeing what it saw.
        if type(activation) is nn.ReLU and not _has_hooks(activation) and not _has_hooks(norm):
            norm.activation = "relu"
            parent._modules[name] = nn.Identity().train(activation.training)


def _has_hooks(module: nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def _unfuse_activations(model: nn.Module) -> None:
    for norm, parent, name in list(_fusion_slots(model)):
        if norm.activation is not None and type(parent.get_submodule(name)) is nn.Identity:
            norm.activation = None
            parent._modules[name] = nn.ReLU().train(norm.training)


def _put_activations_behind(model: nn.Module) -> nn.Module:
    wrapped = {
        id(layer): nn.Sequential(layer, nn.ReLU()).train(layer.training)
        for layer in multi_layers(model)
        if layer.activation is not None
    }
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            parent._modules[name] = wrapped.get(id(child), child)
    return wrapped.get(id(model), model)


def _strip(layer: _MultiBatchNorm, index: int, *, residual: bool) -> None:
    """Makes a layer the plain batch norm of one of its branches, with the very tensors of that branch."""
    if index > 0:
        branch = layer.aux_bn[index - 1]
        for name in _STATISTICS if layer.share_affine else (*_PARAMETERS, *_STATISTICS):
            setattr(layer, name, getattr(branch, name))
    norm: _BatchNorm = layer
    # What was timm's has never been given a residual.
    accepts_residual = residual and not isinstance(layer, MultiBatchNormAct2d)
    plain_class = layer.norm_act_class if isinstance(layer, MultiBatchNormAct2d) else layer.plain_class
    for name in ("aux_bn", "branches", "share_affine", "sync", "process_group", "route", "norm_act_class"):
        if hasattr(layer, name):
            delattr(layer, name)
    if not accepts_residual:
        del layer.activation
    norm.__class__ = RESIDUAL_CLASSES[plain_class] if accepts_residual else plain_class
