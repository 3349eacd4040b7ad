"""Prints the folders and versions of torch and pybind11 for CMake, as a semicolon-separated list."""

import importlib.util
import pathlib

import pybind11

# The package is found, not imported: importing torch takes seconds and the build needs only its folders.
spec = importlib.util.find_spec("torch")
if spec is None or spec.origin is None:
    raise SystemExit("torch is not installed")
root = pathlib.Path(spec.origin).parent
version: dict[str, str] = {}
exec((root / "version.py").read_text(), version)
print(root, version["__version__"], pybind11.get_include(), sep=";", end="")
