"""Every op runs on the current stream and waits for no other."""

from __future__ import annotations

import pytest
import torch
from op_cases import OP_CASES
from op_checks import assert_same_bits, raw_args, small, with_gradients

CASES = [pytest.param(case, id=case.name) for case in OP_CASES]
HALF_A_SECOND = 1_000_000_000  # clock ticks


@pytest.mark.parametrize("case", CASES)
def test_a_busy_default_stream_is_not_waited_for(case):
    samples = small(case, case.dtypes[0], "cuda")

    def run():
        everything = []
        for sample in samples:
            inputs = with_gradients(case, sample)  # copies made on the current stream
            results = case.raw(*raw_args(case, inputs))
            results = results if isinstance(results, tuple) else (results,)
            wanted = [inputs.args[i] for i in case.differentiable if inputs.args[i] is not None]
            if wanted:
                results += torch.autograd.grad(results[0], wanted, torch.ones_like(results[0]))
            everything.append(tuple(result.detach() for result in results))
        return everything

    expected = [tuple(result.cpu() for result in results) for results in run()]
    side, default = torch.cuda.Stream(), torch.cuda.default_stream()
    with torch.cuda.stream(side):
        run()  # kernels are loaded and memory is allocated now, which may wait for the device
    torch.cuda.synchronize()
    torch.cuda._sleep(HALF_A_SECOND)
    with torch.cuda.stream(side):
        found = [tuple(result.cpu() for result in results) for results in run()]
    assert not default.query(), "something waited for the default stream, or this card counts too fast for the test"
    for sample, results, wanted in zip(samples, found, expected, strict=True):
        assert_same_bits(results, wanted, sample.name)
    torch.cuda.synchronize()
