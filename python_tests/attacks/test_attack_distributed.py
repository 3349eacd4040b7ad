"""Attacks in several processes: each attacks what it likes, and all give what one process would."""

from __future__ import annotations

import copy

import pytest
import torch
from attacks.attack_cases import fingerprint, image_batch, small_net
from distributed import run_on_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mdprop_ext.attacks import PGD, FeatureTargetAttack
from mdprop_ext.nn import Normalized, convert_multi_bn, convert_sync, use_branches

SHARES = (slice(2), slice(2, 6))


def network():
    model = small_net().double()
    model.features[3].p = 0.0
    return convert_multi_bn(model, ("clean", "adv"), fuse_activation=True)


def attack_of(kind, model, **options):
    attack = {"pgd": PGD, "feature": FeatureTargetAttack}[kind]
    return attack(model, branch="adv", steps=3, random_start=False, **options)


def images():
    return image_batch(6, dtype=torch.float64)


def attack_share(rank, kind, bn_mode):
    """Attacks this process's samples through the wrapper, the network inside, and the wrapper inside another module.

    The first process goes on alone, which ends only if it waits for no other.
    """
    parallel = DistributedDataParallel(convert_sync(network()), find_unused_parameters=True)
    inside = Normalized(parallel, 0.0, 1.0)
    x, y = (values[SHARES[rank]] for values in images())
    before = fingerprint(parallel.module)
    found = [attack_of(kind, model, bn_mode=bn_mode)(x, y) for model in (parallel, parallel.module, inside)]
    if rank == 0:
        for model in (parallel, inside):
            attack_of(kind, model, bn_mode=bn_mode).run(x, y)
    assert "forward" not in vars(parallel)
    assert fingerprint(parallel.module) == before
    return found


@pytest.mark.parametrize("bn_mode", ["running", "batch"])
@pytest.mark.parametrize("kind", ["pgd", "feature"])
def test_every_process_attacks_its_own_samples(kind, bn_mode):
    ranks = run_on_ranks(attack_share, 2, kind, bn_mode)
    for share, found in zip(SHARES, ranks, strict=True):
        x, y = (values[share] for values in images())
        expected = attack_of(kind, network(), bn_mode=bn_mode)(x, y)
        assert not torch.equal(expected, x)
        for attacked in found:
            torch.testing.assert_close(attacked, expected, rtol=1e-12, atol=1e-12)


def train_on_attacked(model, rows, scale):
    """Two steps on clean and attacked images; the attack runs in the middle of training, against the same model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        x, y = (values[rows] for values in images())
        attacked = attack_of("pgd", model)(x, y)
        with use_branches(model, {"clean": len(x), "adv": len(x)}):
            output = model(torch.cat([x, attacked]))
        optimizer.zero_grad()
        (nn.functional.cross_entropy(output, y.repeat(2), reduction="sum") * scale).backward()
        optimizer.step()


def train_share(rank):
    parallel = DistributedDataParallel(convert_sync(network()))
    train_on_attacked(parallel, SHARES[rank], scale=2 / 6)  # the wrapper averages what it should add up
    return copy.deepcopy(parallel.module.state_dict())


def test_adversarial_training_equals_one_process():
    expected = network()
    train_on_attacked(expected, slice(6), scale=1 / 6)
    for state in run_on_ranks(train_share, 2):
        torch.testing.assert_close(dict(state), dict(expected.state_dict()), rtol=1e-9, atol=1e-12)
