"""The helper of tests with several processes: results, errors and dead-locks come back."""

from __future__ import annotations

import time

import pytest
import torch
from distributed import run_on_ranks
from torch import distributed as dist


def sum_of_ranks(rank, factor):
    total = torch.tensor(rank * factor)
    dist.all_reduce(total)
    return rank, total


def fail_in_the_second(rank):
    if rank == 1:
        raise ValueError("rank 1 has had enough")
    dist.barrier()


def wait_for_each_other(rank):
    dist.recv(torch.zeros(1), src=1 - rank)


def test_results_come_in_the_order_of_ranks():
    assert run_on_ranks(sum_of_ranks, 3, 10) == [(0, 30), (1, 30), (2, 30)]


def test_an_error_is_shown_and_stops_the_others():
    begin = time.monotonic()
    with pytest.raises(AssertionError, match="rank 1 has had enough"):
        run_on_ranks(fail_in_the_second, 2, timeout=60)
    assert time.monotonic() - begin < 30


def test_a_dead_lock_fails():
    with pytest.raises(AssertionError, match=r"ranks \[0, 1\] of 2 did not return within 2 s"):
        run_on_ranks(wait_for_each_other, 2, timeout=2)
