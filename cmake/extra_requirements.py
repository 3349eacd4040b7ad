"""Prints the requirements of an extra of pyproject.toml, so that they can be installed without building the package."""

import pathlib
import re
import sys

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

EXTRAS = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]["optional-dependencies"]


def requirements(extra: str) -> list[str]:
    """The requirements of an extra, with references to other extras of this package resolved."""
    result = []
    for requirement in EXTRAS[extra]:
        reference = re.fullmatch(r"mdprop_ext\[(.*)\]", requirement)
        result += [r for name in reference[1].split(",") for r in requirements(name)] if reference else [requirement]
    return list(dict.fromkeys(result))


print(*requirements(sys.argv[1]))
