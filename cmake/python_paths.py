"""Prints the folders and versions of torch and pybind11 for CMake, as a semicolon-separated list."""

import importlib.util
import pathlib

# The package is found, not imported: importing torch takes seconds and the build needs only its folders.
spec = importlib.util.find_spec("torch")
if spec is None or spec.origin is None:
    raise SystemExit("torch is not installed")
root = pathlib.Path(spec.origin).parent
version: dict[str, str] = {}
exec((root / "version.py").read_text(), version)
try:
    import pybind11

    headers = pathlib.Path(pybind11.get_include())
except ModuleNotFoundError:  # torch carries its own copy
    headers = root / "include"
if not (headers / "pybind11" / "pybind11.h").exists():
    raise SystemExit("pybind11 is not installed, and this torch does not carry its headers: run pip install pybind11")
print(root, version["__version__"], headers, sep=";", end="")
