"""torch.compile with its own code generator."""

from __future__ import annotations

import pytest
import torch
from op_cases import OP_CASES
from op_checks import assert_same_bits, small
from torch._dynamo.testing import CompileCounterWithBackend

from mdprop_ext.nn import use_branches

FIRST = [pytest.param(case, case.dtypes[0], id=case.name) for case in OP_CASES]


@pytest.mark.parametrize(("case", "dtype"), FIRST)
def test_compiled_ops_give_the_same_bits(case, dtype):
    torch._dynamo.reset()
    sample = small(case, dtype, "cuda")[0]
    compiled = torch.compile(case.function, fullgraph=True)
    assert_same_bits(case.call(compiled, sample), case.call(case.function, sample), sample.name)


def test_a_compiled_network_takes_every_route_without_recompiling(network):
    torch._dynamo.reset()
    model, eager = network(), network()
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for ids in ([0, 1, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0], [0] * 6, [1] * 6):
        x = torch.randn(6, 3, 16, 16, device="cuda")
        outputs = []
        for routed, call in ((model, compiled), (eager, eager)):
            with use_branches(routed, torch.tensor(ids, device="cuda")):
                outputs.append(call(x))
            routed.zero_grad()
            outputs[-1].square().sum().backward()
        torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
        for found, wanted in zip(model.parameters(), eager.parameters(), strict=True):
            if wanted.grad is not None:
                assert (found.grad - wanted.grad).norm() <= 1e-3 * wanted.grad.norm() + 1e-5
    assert counter.frame_count == 1
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
