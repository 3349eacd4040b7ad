"""What a recipe is: a configuration, a prepared model and one training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from mdprop_ext.losses import MultiSimilarityLoss
from mdprop_ext.recipes._state import StateTree, restore_state, state_of

#: Images ``[N, C, H, W]`` with pixels in [0, 1], and their classes int64 ``[N]``.
Batch = tuple[Tensor, Tensor]

#: ``criterion(embeddings [N, D], labels [N]) -> scalar``: any loss of metric learning.
Criterion = Callable[[Tensor, Tensor], Tensor]

ConfigT = TypeVar("ConfigT")


class Recipe(ABC, Generic[ConfigT]):
    """One way to train an embedding model, usable in any loop.

    ``prepare`` changes the model once, before the optimizer is made; ``step`` turns a batch into a loss. The loop calls
    ``backward`` and the optimizer. A step leaves ``training`` flags as they are: call ``model.train()`` before.

    Args:
        config: Hyper-parameters; None means the defaults.
        criterion: The loss of embeddings; None means :class:`~mdprop_ext.losses.MultiSimilarityLoss`.
        seed: Of the recipe's own random numbers.

    Example:
        >>> recipe = MDProp(MDPropConfig(eps=8 / 255))
        >>> model = recipe.prepare(conv4())
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        >>> for images, labels in batches:
        ...     loss = recipe.step(model, (images, labels))["loss"]
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
    """

    name: ClassVar[str]
    """What ``mdprop train --recipe`` calls it."""
    summary: ClassVar[str]
    """The recipe in one line."""
    paper: ClassVar[str]
    """Where it comes from."""
    config_class: type[ConfigT]
    """The frozen dataclass of its hyper-parameters, which raises ``ValueError`` for wrong values."""

    def __init__(self, config: ConfigT | None = None, *, criterion: Criterion | None = None, seed: int = 0) -> None:
        self.config: ConfigT = self.config_class() if config is None else config
        self.criterion: Criterion = MultiSimilarityLoss() if criterion is None else criterion
        self.seed = seed

    @abstractmethod
    def prepare(self, model: nn.Module) -> nn.Module:
        """Changes a model as the recipe needs it, in place.

        Args:
            model: From images ``[N, C, H, W]`` to embeddings ``[N, D]``.

        Returns:
            The model to train, which keeps the parameters of the given one.
        """

    @abstractmethod
    def step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Computes the loss of one batch.

        Args:
            model: The prepared model, in training mode.
            batch: Images and labels.

        Returns:
            ``"loss"``, a scalar to call ``backward`` on, and further scalars worth a log.
        """

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields what the recipe learns beside the model: by default what the criterion does, such as proxies."""
        if isinstance(self.criterion, nn.Module):
            yield from self.criterion.parameters()

    def state_dict(self) -> StateTree:
        """Returns everything that changes from step to step, for an exact continuation of training.

        By default the state of all attributes that are random generators, attacks, modules (the criterion is one),
        tensors, numbers, and lists, tuples and dictionaries of them. Override this and :meth:`load_state_dict` for
        anything else.

        Returns:
            Nested dictionaries of tensors and plain values.
        """
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        """Puts back what :meth:`state_dict` returned; to be called after :meth:`prepare`.

        Args:
            state: Of a recipe with the same configuration.
            device: Where the model is.
        """
        restore_state(self, state, device)

    def __repr__(self) -> str:
        options = [f"{field.name}={_readable(getattr(self.config, field.name))}" for field in fields(self.config)]  # type: ignore[arg-type]
        if not isinstance(self.criterion, MultiSimilarityLoss):
            options.append(f"criterion={getattr(self.criterion, '__name__', type(self.criterion).__name__)}")
        return f"{type(self).__name__}({', '.join([*options, f'seed={self.seed}'])})"


def _readable(value: Any) -> str:
    """Writes a radius in pixels as the fraction that it is."""
    if isinstance(value, float) and 0 < value < 1 and abs(255 * value - round(255 * value)) < 1e-9:
        return f"{round(255 * value)}/255"
    return repr(value)


def spawn_generators(seed: int, count: int) -> list[torch.Generator]:
    """Makes independent CPU generators from one seed, so that sources of randomness do not disturb one another."""
    parent = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**62, (count,), generator=parent).tolist()
    return [torch.Generator().manual_seed(child) for child in seeds]
