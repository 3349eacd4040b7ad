"""What the contract test needs to know of an op. The rows are in op_case_<op>.py, their list in op_cases.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mdprop_ext import ops

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Sample:
    """One call of a public op: positional tensors and keyword options, and the dispatch variant that it reaches."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    variant: str = ""

    def map(self, change: Callable[[Tensor], Tensor]) -> Sample:
        """The same sample with every tensor changed."""

        def apply(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(apply, value))
            return change(value) if isinstance(value, Tensor) else value

        return Sample(
            self.name, tuple(map(apply, self.args)), {k: apply(v) for k, v in self.kwargs.items()}, self.variant
        )


@dataclass(frozen=True)
class BadCall:
    """A call that must raise: ``match`` names the argument, what was expected and what came."""

    error: type[Exception]
    match: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpCase:
    """One op.

    ``mutates`` lists the positional arguments that a call changes in place; they are compared like results.
    ``differentiable`` lists the positional arguments that have a gradient.
    ``raw_args`` turns a sample into the arguments of ``torch.ops.mdprop.<name>``.
    ``tolerance`` gives (relative, absolute) against the float64 oracle, with ``reason`` saying where it comes from.
    """

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    oracle: Callable[..., Any]
    samples: Callable[[torch.dtype], Iterable[Sample]]
    raw_args: Callable[[Sample], tuple[Any, ...]]
    dtypes: tuple[torch.dtype, ...]
    tolerance: dict[torch.dtype, tuple[float, float]]
    reason: str
    variants: frozenset[str]
    errors: tuple[BadCall, ...]
    mutates: tuple[int, ...] = ()
    differentiable: tuple[int, ...] = ()
    gradcheck_samples: Callable[[], Iterable[Sample]] = tuple
    keeps_channels_last: bool = False
    twice_differentiable: bool = False

    @property
    def autograd_function(self) -> type[torch.autograd.Function]:
        """``ops.<Name>Function`` of the op ``<name>``."""
        return getattr(ops, "".join(map(str.capitalize, self.name.split("_"))) + "Function")

    @property
    def raw(self) -> Any:
        """The op as torch sees it."""
        return getattr(torch.ops.mdprop, self.name).default

    def call(self, function: Callable[..., Any], sample: Sample) -> tuple[Tensor, ...]:
        """Results and mutated arguments of one call on copies of the sample's tensors."""
        copy = sample.map(torch.clone)
        result = function(*copy.args, **copy.kwargs)
        results = result if isinstance(result, tuple) else (result,)
        return (*results, *(copy.args[i] for i in self.mutates if copy.args[i] is not None))
