"""How an op is registered: schema, default kernel, fake kernel and gradients, each declared once in Python.

Every op is ``torch.ops.mdprop.<name>``. Its default kernel is the plain PyTorch function of
``mdprop_ext/reference``; importing the compiled module ``mdprop_ext._C`` overrides it for the devices that the module
has kernels for. The environment variable ``MDPROP_BACKEND`` chooses between them:

* ``auto`` (the default): compiled kernels where there are any, else the reference, with one warning an op and device;
* ``ext``: compiled kernels only; a call that would take the reference raises;
* ``reference``: the reference only; the compiled module is not loaded.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch

NAMESPACE = "mdprop"
BACKENDS = ("auto", "ext", "reference")


def backend() -> str:
    """The value of ``MDPROP_BACKEND``, checked."""
    name = os.environ.get("MDPROP_BACKEND", "auto") or "auto"
    if name not in BACKENDS:
        raise ValueError(f"MDPROP_BACKEND must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


class BackendError(RuntimeError):
    """The kernels that ``MDPROP_BACKEND`` or ``MDPROP_CPU_ISA`` asks for cannot be had."""


@functools.cache
def load_extension() -> str | None:
    """Loads the compiled kernels once.

    Returns:
        None if they are loaded, else one sentence that says why not and what to do. Nothing is raised here, so that
        the package imports and ``python -m mdprop_ext.info`` works in every case; the first call of an op is told.
    """
    try:
        if backend() == "reference":
            return "MDPROP_BACKEND=reference asks for the plain PyTorch implementations"
        importlib.import_module("mdprop_ext._C")
    except ValueError as error:
        return str(error)
    except ImportError as error:
        if "MDPROP_CPU_ISA" in str(error):
            return str(error)
        return (
            f"the compiled kernels could not be loaded ({error}): {_remedy(Path(__file__).resolve().parent.parent)}, "
            "or set MDPROP_BACKEND=reference to use the plain PyTorch implementations"
        )
    return None


def _remedy(package: Path) -> str:
    """What to do about compiled kernels that do not load from the package's folder."""
    if sys.platform != "linux":
        return "run it on Linux, since they are built nowhere else"
    if torch.__version__ < "2.10":  # compared as versions
        return f"install torch 2.10 or later (this is {torch.__version__})"
    modules = {path.name for path in package.glob("_C.*.so")}
    if not modules:
        return f"install the package, and leave the folder of its source if Python starts there (none are in {package})"
    if modules.isdisjoint(f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
        return f"install the package with this Python ({modules.pop()} belongs to another)"
    return "install the package again"


@functools.cache
def _report_fallback(name: str, device: str) -> None:
    """Says once an op and device that the reference runs where a compiled kernel was wanted, or refuses to run it."""
    chosen = backend()
    if chosen == "reference":
        return
    reason = load_extension() or (
        f"this build has no kernel for {device} tensors (python -m mdprop_ext.info says what it has)"
    )
    if "MDPROP_CPU_ISA" in reason:
        raise BackendError(reason)
    if chosen == "ext":
        raise BackendError(f"mdprop_ext.ops.{name} on {device}: MDPROP_BACKEND=ext forbids the reference, and {reason}")
    warnings.warn(f"mdprop_ext.ops.{name} runs its slower reference on {device}: {reason}", stacklevel=2)


def op_names() -> tuple[str, ...]:
    """The names of all registered ops, private helpers left out."""
    qualified = torch._C._dispatch_get_all_op_names()
    names = {
        name.removeprefix(f"{NAMESPACE}::").partition(".")[0] for name in qualified if name.startswith(f"{NAMESPACE}::")
    }
    return tuple(sorted(name for name in names if not name.startswith("_")))


def register_op(
    name: str, schema: str, default: Callable[..., Any], fake: Callable[..., Any], *, compiled: bool = True
) -> None:
    """Defines ``torch.ops.mdprop.<name>``.

    Args:
        name: Name of the op.
        schema: Arguments and results, such as ``"(Tensor x, int k) -> Tensor"``.
        default: Plain PyTorch kernel with the arguments of the schema, for every device without a compiled one.
        fake: Shape function with the same arguments, for tracing.
        compiled: Whether compiled kernels are wanted, so that a call of the default is a fallback to report. False
            where torch's own ops are the best kernel there is.
    """

    @functools.wraps(default)
    def reported(*args: Any) -> Any:
        if compiled:
            _report_fallback(name, next(_tensors(args)).device.type)
        return default(*args)

    qualified = f"{NAMESPACE}::{name}"
    torch.library.define(qualified, schema)
    torch.library.impl(qualified, "CompositeExplicitAutograd")(reported)
    torch.library.register_fake(qualified)(fake)


def register_gradient(name: str, function: type[torch.autograd.Function]) -> None:
    """Gives ``torch.ops.mdprop.<name>`` the gradient of an ``autograd.Function``, so that both doors have one.

    Args:
        name: Name of the op.
        function: A Function in ``setup_context`` style; its ``forward``, if it has one, takes the arguments of the op.
    """
    torch.library.register_autograd(
        f"{NAMESPACE}::{name}",
        function.backward,
        setup_context=function.setup_context,
    )


def _tensors(args: tuple[Any, ...]) -> Any:
    for argument in args:
        if isinstance(argument, torch.Tensor):
            yield argument
        elif isinstance(argument, (list, tuple)):
            yield from _tensors(tuple(argument))
