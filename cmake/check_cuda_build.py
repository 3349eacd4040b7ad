"""Builds the module with CUDA kernels, compares them with their record, and runs it under the installed torch."""

import subprocess
import sys

import cuda_tools
import kernel_record

if cuda_tools.nvcc() is None:
    print("skipped: nvcc was not found, so CUDA kernels cannot be compiled here")
    sys.exit(0)

with cuda_tools.build(kernel_record.CHECKED) as (log, module):
    program = (
        f"import sys; sys.path.insert(0, {str(module.parent.parent)!r}); from mdprop_ext import _C, selftest; "
        "print(_C.build_info()); raise SystemExit(selftest.main([]))"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
    status = kernel_record.check(log, module)

# The wrappers that no kernel of the module uses yet: the test kernels of the emulation use all of them.
for architecture in kernel_record.CHECKED:
    number = architecture.replace(".", "")
    target = ["-gencode", f"arch=compute_{number},code=sm_{number}", "--cubin", "-o", "/dev/null"]
    source = [f"-I{cuda_tools.ROOT}/csrc", f"{cuda_tools.ROOT}/csrc/tests/emulation_kernels.cu"]
    subprocess.run([cuda_tools.nvcc() or "nvcc", "-std=c++17", "--fmad=false", *target, *source], check=True)
sys.exit(status)
