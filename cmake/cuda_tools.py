"""What the checks of CUDA builds share: nvcc, cuobjdump, and a build of the module in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "build" / "cuda-tools"


def nvcc() -> str | None:
    """The CUDA compiler, if there is one."""
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def cuobjdump() -> str | None:
    """The disassembler: the one on PATH, else the one that the triton wheel carries, fetched once by pip."""
    if found := shutil.which("cuobjdump"):
        return found
    if not (TOOLS / "cuobjdump").exists() and not _fetch():
        return None
    os.environ["PATH"] = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"  # it calls nvdisasm
    return str(TOOLS / "cuobjdump")


def _fetch() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "triton==3.9.0"]
        if subprocess.run(download, capture_output=True).returncode != 0:
            return False
        with zipfile.ZipFile(next(Path(folder).glob("triton-*.whl"))) as wheel:
            TOOLS.mkdir(parents=True, exist_ok=True)
            for name in ("nvdisasm", "cuobjdump"):
                (TOOLS / name).write_bytes(wheel.read(f"triton/backends/nvidia/bin/{name}"))
                (TOOLS / name).chmod(0o755)
    return True


@contextmanager
def build(architectures: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Builds the module with CUDA kernels for the architectures and PTX of the last.

    Yields:
        The log, with what ptxas says of each kernel, and the module; both live as long as the context.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = " ".join(architectures) + "+PTX"
        environment = {**os.environ, "MDPROP_CUDA": "1", "TORCH_CUDA_ARCH_LIST": names, "CUDAFLAGS": "-Xptxas=-v"}
        places = ["--build-base", f"{folder}/build", "--build-lib", f"{folder}/lib"]
        result = subprocess.run(
            [sys.executable, "setup.py", "-q", "build", *places],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if result.returncode != 0:
            print(result.stdout[-6000:])
            raise SystemExit("the CUDA build failed; its log is above")
        yield result.stdout, next(Path(folder, "lib", "mdprop_ext").glob("_C.*.so"))
