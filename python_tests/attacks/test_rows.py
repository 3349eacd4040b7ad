"""Nested tensors: every one changed, or some samples taken out."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import torch

from mdprop_ext.attacks.rows import broadcasts, map_tensors, take, take_samples

Pair = namedtuple("Pair", ["first", "second"])


def test_structures_keep_their_types():
    value = OrderedDict(a=torch.ones(2), b=(Pair(torch.zeros(1), "text"), [torch.ones(3), None, 4]))
    found = map_tensors(lambda tensor: tensor + 1, value)
    assert type(found) is OrderedDict
    assert type(found["b"][0]) is Pair
    assert found["b"][0].second == "text"
    assert found["b"][1][1:] == [None, 4]
    assert torch.equal(found["a"], torch.full((2,), 2.0))
    assert torch.equal(value["a"], torch.ones(2)), "the original was changed"
    assert map_tensors(len, "text") == "text"


@dataclass(frozen=True)
class Output:
    rows: torch.Tensor
    rest: tuple[torch.Tensor | None, str]


def test_data_classes_are_structures_too():
    value = Output(torch.ones(2), (torch.zeros(1), "text"))
    found = map_tensors(lambda tensor: tensor + 1, value)
    assert type(found) is Output
    assert found.rows.tolist() == [2.0, 2.0]
    assert found.rest[0].tolist() == [1.0]
    assert value.rows.tolist() == [1.0, 1.0], "the original was changed"
    assert map_tensors(len, Output) is Output


def test_samples_are_taken_from_what_has_a_row_for_each():
    rows = torch.tensor([3, 1])
    value = {"rows": torch.arange(4), "other": torch.arange(3), "number": torch.tensor(4.0)}
    found = take_samples(value, rows, 4)
    assert found["rows"].tolist() == [3, 1]
    assert found["other"] is value["other"]
    assert found["number"] is value["number"]


def test_taking_keeps_the_memory_format():
    for x, memory_format in (
        (torch.rand(4, 3, 2, 2), torch.channels_last),
        (torch.rand(4, 3, 2, 2, 2), torch.channels_last_3d),
        (torch.rand(4, 3, 2, 2), torch.contiguous_format),
    ):
        rows = torch.tensor([2, 0])
        found = take(x.contiguous(memory_format=memory_format), rows)
        assert found.is_contiguous(memory_format=memory_format)
        assert torch.equal(found, x[rows])
    assert take(torch.rand(3, 2), torch.empty(0, dtype=torch.int64)).shape == (0, 2)


def test_broadcasts():
    like = torch.empty(6, 2, 5, 5)
    for shape, expected in (((), True), ((5,), True), ((2, 1, 5), True), ((6, 1, 1, 1), True), ((4,), False)):
        assert broadcasts(torch.empty(shape), like) == expected
    assert not broadcasts(torch.empty(1, 6, 2, 5, 5), like)
