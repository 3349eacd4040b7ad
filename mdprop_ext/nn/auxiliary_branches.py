"""The container of a multi-branch batch norm's further branches."""

from __future__ import annotations

from torch import nn


class AuxiliaryBranches(nn.ModuleList):
    """Branches 1, 2, ... of a multi-branch batch norm: plain batch norms that only hold parameters and buffers."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a branch, but never a ``SyncBatchNorm``: that is how torch's own conversion would lose all branches."""
        if isinstance(module, nn.SyncBatchNorm):
            raise TypeError(
                "nn.SyncBatchNorm would silently drop the branches of a multi-branch batch norm: call "
                "mdprop_ext.nn.convert_sync(model) instead of convert_sync_batchnorm(model), or strip_branches first"
            )
        super().add_module(name, module)
