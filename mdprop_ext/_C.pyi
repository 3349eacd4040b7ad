"""Compiled kernels of mdprop_ext; importing the module registers them with torch."""

from typing import TypedDict

class BuildInfo(TypedDict):
    version: str
    torch: str
    compiler: str
    cuda: str | None
    cuda_architectures: list[str]
    emulated: bool
    cpu_isas: list[str]
    cpu_isa: str

def build_info() -> BuildInfo: ...
