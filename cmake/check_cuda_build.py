"""Builds the module with CUDA kernels into a temporary folder and shows that it works under the installed torch."""

import os
import shutil
import subprocess
import sys
import tempfile

if shutil.which("nvcc") is None and not os.environ.get("CUDACXX"):
    print("skipped: nvcc was not found, so CUDA kernels cannot be compiled here")
    sys.exit(0)

with tempfile.TemporaryDirectory() as folder:
    environment = {**os.environ, "MDPROP_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "8.0 9.0a+PTX"}
    build = [
        sys.executable,
        "setup.py",
        "-q",
        "build",
        "--build-base",
        f"{folder}/build",
        "--build-lib",
        f"{folder}/lib",
    ]
    subprocess.run(build, check=True, env=environment)
    check = "from mdprop_ext import _C, selftest; print(_C.build_info()); raise SystemExit(selftest.main([]))"
    command = [sys.executable, "-P", "-c", check] if sys.version_info >= (3, 11) else [sys.executable, "-c", check]
    subprocess.run(command, check=True, env={**environment, "PYTHONPATH": f"{folder}/lib"}, cwd=folder)
