"""MDPROP_BACKEND=reference: every op through its dispatcher, in a process without the compiled module."""

from __future__ import annotations

import os
import subprocess
import sys

from op_cases import OP_CASES

CODE = """
import sys, torch
from op_cases import OP_CASES
from op_checks import assert_near, size
for case in OP_CASES:
    dtype = case.dtypes[0]
    torch.manual_seed(0)
    every = sorted(case.samples(dtype), key=size)
    for sample in every[:: max(1, len(every) // 16)][:8]:
        expected = case.call(case.oracle, sample)
        assert_near(case.call(case.function, sample), expected, case.tolerance[dtype], f"{case.name}, {sample.name}")
    for sample in list(case.gradcheck_samples())[:1]:
        leaves = sample.map(torch.clone)
        inputs = [leaves.args[i] for i in case.differentiable if leaves.args[i] is not None]
        for tensor in inputs:
            tensor.requires_grad_()
        assert torch.autograd.gradcheck(lambda *_: case.raw(*case.raw_args(leaves)), inputs), case.name
    print(case.name)

means, variances = [torch.zeros(3), torch.zeros(3)], [torch.ones(3), torch.ones(3)]
batch = torch.full((2, 3), 4.0), torch.full((2, 3), 2.0), torch.tensor([5, 0])
torch.ops.mdprop.multi_batch_norm_update_(means, variances, [], *batch, 0.5)
assert torch.stack(means).tolist() == [[2.0] * 3, [0.0] * 3]
assert torch.stack(variances).tolist() == [[1.75] * 3, [1.0] * 3]
assert torch.ops.mdprop._cuda_probe(torch.ones(2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
assert "mdprop_ext._C" not in sys.modules
"""


def test_every_op_is_right_without_compiled_kernels():
    own = {name: value for name, value in os.environ.items() if not name.startswith("MDPROP_")}
    environment = {**own, "MDPROP_BACKEND": "reference", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [case.name for case in OP_CASES]
    assert result.stderr == "", "the reference was asked for, so nothing is said of it"
