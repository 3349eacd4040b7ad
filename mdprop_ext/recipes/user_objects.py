"""Models, losses and recipes of the user's own, named ``module:attribute`` on the command line."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext._words import did_you_mean


def is_user_object(name: str) -> bool:
    """Tells whether a name is meant as ``module:attribute``."""
    return ":" in name


def load_object(argument: str, name: str) -> Any:
    """Imports what a name stands for; modules in the current folder are found too.

    Args:
        argument: What the name was given for, for messages.
        name: ``module:attribute``, such as ``my_package.my_module:make_model``.

    Returns:
        The attribute.

    Raises:
        ValueError: If the name has another form, or there is no such module or attribute.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ValueError(f"{argument}: expected module:name, such as my_module:make, got {name!r}")
    try:
        with _current_folder_on_path():
            found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is there but imports another one that is not must show that one.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"{argument}: no module {error.name!r}, looked for in '{Path.cwd()}' too") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{argument}: {module_name!r} has no {attribute!r}{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    return found


def call_factory(argument: str, name: str, options: Mapping[str, Any]) -> Any:
    """Loads a factory and calls it.

    Args:
        argument: What the name was given for, for messages.
        name: ``module:attribute`` of a callable.
        options: Keyword arguments for it.

    Returns:
        What the factory returned.

    Raises:
        ValueError: If there is no such callable, or it does not take these arguments.
    """
    factory = load_object(argument, name)
    if not callable(factory):
        raise ValueError(f"{argument}: expected {name!r} to be callable, got {type(factory).__name__}")
    _check_signature(argument, name, factory, options)
    # A factory may import what it needs only when it is called.
    with _current_folder_on_path():
        return factory(**options)


def build_user_model(name: str, *, in_channels: int, embedding_dim: int, image_size: int) -> nn.Module:
    """Builds a model by ``factory(in_channels=..., embedding_dim=..., image_size=...)`` and tries it on two images.

    Args:
        name: ``module:factory``.
        in_channels: Channels C of the images.
        embedding_dim: Numbers D in an embedding.
        image_size: Height and width S of the images.

    Returns:
        A module from ``[N, C, S, S]`` to ``[N, D]``.

    Raises:
        ValueError: If the factory does not make such a module.
    """
    options = {"in_channels": in_channels, "embedding_dim": embedding_dim, "image_size": image_size}
    model = call_factory("model", name, options)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected {name!r} to return a torch.nn.Module, got {type(model).__name__}")
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad():
        output = model(torch.zeros(2, in_channels, image_size, image_size))
    for module, mode in training:
        module.training = mode
    if not isinstance(output, Tensor) or output.shape != (2, embedding_dim):
        got = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"model: expected {name!r} to give embeddings [2, {embedding_dim}] for two images, got {got}")
    return model


def _check_signature(argument: str, name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # built-in callables may have none
        return
    try:
        signature.bind(**options)
    except TypeError as error:
        call = ", ".join(f"{key}=..." for key in options)
        raise ValueError(f"{argument}: expected {name!r} to take ({call}), got {signature} ({error})") from None


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
