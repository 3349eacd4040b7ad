"""Batch normalisation with several branches: the layers themselves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from mdprop_ext.nn._names import check_branch_names, default_branch_names
from mdprop_ext.nn._tables import stack
from mdprop_ext.nn.auxiliary_branches import AuxiliaryBranches
from mdprop_ext.nn.sync import check_synchronization, synchronized_batch_norm, synchronizing_group
from mdprop_ext.ops import _branches, _check, _written  # importing the package registers torch.ops.mdprop

_PARAMETERS = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class _MultiBatchNorm(_BatchNorm):
    """What the 1d, 2d and 3d layers share; see :class:`MultiBatchNorm2d`."""

    plain_class: ClassVar[type[_BatchNorm]]

    branches: tuple[str, ...]
    share_affine: bool
    activation: str | None
    sync: bool
    process_group: dist.ProcessGroup | None
    aux_bn: AuxiliaryBranches
    route: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        num_branches: int = 2,
        branches: Sequence[str] | None = None,
        share_affine: bool = False,
        activation: str | None = None,
        sync: bool = False,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        _check.momentum_and_eps(momentum, eps)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:  # not left to nn.BatchNorm2d, which takes the argument from torch 2.13 on
            self.register_parameter("bias", None)
        names = default_branch_names(num_branches) if branches is None else check_branch_names(branches)
        if num_branches not in (2, len(names)):  # 2 where nothing is said
            raise ValueError(f"num_branches must be the number of branches, {len(names)}, got {num_branches}")
        self._add_branches(names, share_affine, activation, sync, process_group)

    def _add_branches(
        self,
        names: tuple[str, ...],
        share_affine: bool = False,
        activation: str | None = None,
        sync: bool = False,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        """Gives a batch norm its further branches, each a copy of what the layer itself holds."""
        if activation not in (None, "relu"):
            raise ValueError(f"activation must be None or 'relu', got {activation!r}")
        check_synchronization(sync, process_group)
        self.branches = names
        self.share_affine = share_affine
        self.activation = activation
        self.sync, self.process_group = sync, process_group
        self.aux_bn = AuxiliaryBranches(self._copy_of_branch_0() for _ in names[1:]).train(self.training)
        self.route = None

    def _copy_of_branch_0(self) -> _BatchNorm:
        branch = self.plain_class(self.num_features, self.eps, self.momentum, affine=False, track_running_stats=False)
        branch.affine = self.affine and not self.share_affine
        branch.track_running_stats = self.track_running_stats
        for name in _PARAMETERS if branch.affine else ():
            parameter = getattr(self, name)
            if parameter is not None:
                setattr(branch, name, nn.Parameter(parameter.detach().clone(), parameter.requires_grad))
        for name in _STATISTICS:
            buffer = getattr(self, name)
            setattr(branch, name, None if buffer is None else buffer.clone())
        return branch

    def reset_running_stats(self) -> None:
        """Resets the running statistics of every branch."""
        super().reset_running_stats()
        for branch in getattr(self, "aux_bn", ()):  # absent while the plain part is being built
            branch.reset_running_stats()

    def reset_parameters(self) -> None:
        """Resets running statistics, scales and shifts of every branch."""
        super().reset_parameters()
        for branch in getattr(self, "aux_bn", ()):
            branch.reset_parameters()

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalises each sample by its branch.

        Args:
            input: ``[N, C]`` or ``[N, C, *]``.
            residual: Like ``input``, added before the activation in the same pass; any dtype under autocast.

        Returns:
            A tensor like ``input``.

        Raises:
            TypeError: If ``input`` is not a floating tensor, or ``residual`` has another dtype.
            ValueError: If input, residual or route have the wrong size, or a branch has one value per channel in
                training.
        """
        residual = self._check_input(input, residual)
        ids = self._branch_ids(input)
        branches: tuple[_BatchNorm, ...] = (self,) if ids is None else (self, *self.aux_bn)
        # As in nn.BatchNorm2d: a layer without running statistics uses those of the batch in eval mode too.
        use_batch = self.training or (self.running_mean is None and self.running_var is None)
        group = synchronizing_group(self.process_group) if self.sync and self.training else None
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        # One expanded row gives the sum of the branches' gradients.
        affine_owners: tuple[_BatchNorm, ...] = (self,) if self.share_affine else branches
        weight = stack(affine_owners, "weight", dtype, len(branches))
        bias = stack(affine_owners, "bias", dtype, len(branches))
        if weight is None:
            # The op reads the number of branches off its tables, of which there may be no other.
            weight = input.new_ones((len(branches), self.num_features), dtype=dtype)
        if group is None:
            if use_batch:
                self._check_values_per_channel(input, ids)
            running = (None if use_batch else stack(branches, name, dtype, len(branches)) for name in _STATISTICS[:2])
            output, mean, variance, counts, _ = torch.ops.mdprop.multi_batch_norm(
                input, weight, bias, *running, residual, ids, None, use_batch, self.eps, self.activation
            )
        else:
            branches = (self, *self.aux_bn)  # where another process may have samples of any of them
            output, mean, variance, counts = synchronized_batch_norm(
                input, weight, bias, residual, ids, self.branches, eps=self.eps, activation=self.activation, group=group
            )
        tracks = self.training and self.track_running_stats and self.running_mean is not None
        if tracks and not _branches.recomputing():
            self._update_statistics(branches, mean, variance, counts)
        assert isinstance(output, Tensor)
        return output

    def _check_input(self, input: Tensor, residual: Tensor | None) -> Tensor | None:
        """Checks what does not fit the layer; returns the residual in the type of the input under autocast."""
        _check.floating("input", input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if input.shape[1] != self.num_features:
            raise ValueError(f"input must have {self.num_features} channels, got {list(input.shape)}")
        if residual is not None:
            _check.floating("residual", residual)
            # A skip connection is wider than the convolutions beside it where autocast narrows those.
            if residual.dtype != input.dtype and torch.is_autocast_enabled(input.device.type):
                residual = residual.to(input.dtype)
            _check.like("residual", residual, "input", input)
        return residual

    @torch.no_grad()
    def _update_statistics(
        self, branches: Sequence[_BatchNorm], mean: Tensor, variance: Tensor, counts: Tensor
    ) -> None:
        buffers = [getattr(branch, name) for name in ("running_mean", "running_var") for branch in branches]
        # Statistics of a layer that was cast to a half type are widened for the update, which has no such kernel.
        wide = [buffer.float() if buffer.itemsize < 4 else buffer for buffer in buffers]
        counters = [branch.num_batches_tracked for branch in branches if branch.num_batches_tracked is not None]
        _written.mark([*wide, *counters])
        torch.ops.mdprop.multi_batch_norm_update_(
            wide[: len(branches)],
            wide[len(branches) :],
            counters,
            mean,
            variance,
            counts,
            self.momentum,
        )
        for buffer, updated in zip(buffers, wide, strict=True):
            if updated is not buffer:
                buffer.copy_(updated)

    def _branch_ids(self, input: Tensor) -> Tensor | None:
        """The branch of every sample ``[N]``, or None where all samples go through branch 0."""
        if self.route is None:
            return None
        samples = input.shape[0]
        if self.route.dim() == 0:
            return self.route.expand(samples)
        if self.route.shape[0] != samples:
            raise ValueError(f"the route has {self.route.shape[0]} branch ids, but the batch has {samples} samples")
        return self.route

    def _check_values_per_channel(self, input: Tensor, ids: Tensor | None) -> None:
        """Raises as nn.BatchNorm2d does, if a branch would have to estimate a variance from one value."""
        values = input.shape[2:].numel()
        if ids is None or self.route is None or self.route.dim() == 0:
            if values * input.shape[0] == 1:
                raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        elif values == 1 and ids.device.type == "cpu" and not torch.compiler.is_compiling():
            counts = torch.bincount(ids, minlength=len(self.branches)).tolist()
            if 1 in counts:
                raise ValueError(
                    f"Expected more than 1 value per channel when training, got one in branch "
                    f"{self.branches[counts.index(1)]!r} of input size {input.shape}"
                )

    def extra_repr(self) -> str:
        """The text of the plain layer, followed by what is special here."""
        text = f"{super().extra_repr()}, branches={self.branches}"  # type: ignore[no-untyped-call]
        text += "".join(f", {flag}=True" for flag in ("share_affine", "sync") if getattr(self, flag))
        return text if self.activation is None else f"{text}, activation={self.activation!r}"

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle made inside a routing context must not stay routed for ever.
        return {**self.__dict__, "route": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> _MultiBatchNorm:
        memo[id(self.process_group)] = self.process_group  # stands for connections, which copies share
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(copy.deepcopy(self.__getstate__(), memo))
        return copied


class MultiBatchNorm1d(_MultiBatchNorm, nn.BatchNorm1d):
    """Batch normalisation of ``[N, C]`` or ``[N, C, L]`` with several branches; see :class:`MultiBatchNorm2d`."""

    plain_class = nn.BatchNorm1d


class MultiBatchNorm2d(_MultiBatchNorm, nn.BatchNorm2d):
    r"""Batch normalisation of ``[N, C, H, W]`` with one set of statistics and parameters for each branch.

    A sample of branch :math:`b` becomes

    .. math:: y = \gamma_b \, \frac{x - \mu_b}{\sqrt{\sigma_b^2 + \epsilon}} + \beta_b

    where in training :math:`\mu_b, \sigma_b^2` are the mean and variance of this branch's samples alone.
    All branches are computed in one pass, for any mixture of samples.

    The layer is itself branch 0: without a route it equals ``nn.BatchNorm2d`` and its parameters have the same names.
    The others are plain ``nn.BatchNorm2d`` in ``aux_bn``, which hold parameters and buffers and are never called; the
    flags of the layer itself (``training``, ``momentum``, ``eps``, ``track_running_stats``) count for all.
    Routes are set with :func:`use_branch` and :func:`use_branches`.

    Args:
        num_features: Channels C.
        eps: Added to the variance, >= 0.
        momentum: Weight of the new statistics in the running ones, in [0, 1]; None for the average over all batches.
        affine: Whether to learn a scale and a shift.
        track_running_stats: Whether to keep running statistics for evaluation.
        device: Device of parameters and buffers.
        dtype: Type of parameters and buffers.
        bias: Whether to learn a shift where ``affine``.
        num_branches: Number of branches B >= 1, named "main", "aux1", "aux2", ...
        branches: Names of the branches instead, the first is branch 0; ``num_branches`` may then be left out.
        share_affine: Whether all branches use the scale and shift of branch 0.
        activation: None, or "relu" to apply it in the same pass.
        sync: Whether statistics in training are those of all processes; see :func:`convert_sync`.
        process_group: The processes to synchronise with; None for all.

    Raises:
        TypeError: If ``branches`` holds something else than strings, a number is none, ``sync`` is not a bool or
            ``process_group`` not a group.
        ValueError: If names repeat, there is no branch, the activation is unknown, a number is out of range, or a group
            comes without ``sync``.

    Example:
        >>> layer = MultiBatchNorm2d(64, branches=("clean", "adv"))
        >>> with use_branches(layer, {"clean": 32, "adv": 32}):
        ...     features = layer(torch.randn(64, 64, 7, 7))

    Reference:
        Xie et al., Adversarial Examples Improve Image Recognition, CVPR 2020 (https://arxiv.org/abs/1911.09665).
    """

    plain_class = nn.BatchNorm2d


class MultiBatchNorm3d(_MultiBatchNorm, nn.BatchNorm3d):
    """Batch normalisation of ``[N, C, D, H, W]`` with several branches; see :class:`MultiBatchNorm2d`."""

    plain_class = nn.BatchNorm3d


MultiBNFused = MultiBatchNorm2d
