"""Optional dependencies, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional module, or says in one sentence how to install it.

    Args:
        module: Dotted name of the module to import.
        extra: The extra of this package that brings the module.

    Returns:
        The imported module.

    Raises:
        ImportError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A broken installation of the module itself must show its own error.
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        package = {"sklearn": "scikit-learn", "PIL": "pillow"}.get(module.partition(".")[0], module.partition(".")[0])
        raise ImportError(
            f"this needs the package {package!r}, which is not installed: run pip install 'mdprop_ext[{extra}]'"
        ) from None
