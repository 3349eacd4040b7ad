"""What one batch is checked for: shapes that fit, and values that an attack can work with."""

from __future__ import annotations

import warnings

import pytest
import torch
from attacks.attack_cases import image_batch, small_net

from mdprop_ext.attacks import PGD


def test_a_mask_of_another_shape_is_refused():
    x, y = image_batch()
    with pytest.raises(ValueError, match=r"mask: expected a tensor that broadcasts to x \[6, 2, 5, 5\], got \[4, 5\]"):
        PGD(small_net(), mask=torch.ones(4, 5))(x, y)


@pytest.mark.parametrize("y", [torch.tensor([1, 2]), torch.tensor(1)])
def test_an_image_without_its_batch_is_named(y):
    with pytest.raises(ValueError, match=r"x: expected a batch \[N, C, H, W\], got shape \[3, 8, 8\] beside y"):
        PGD(small_net())(torch.rand(3, 8, 8), y)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({0: -0.5}, r"x has values from -0\.5 to 0\.\d+, outside the attack's bounds"),
        ({0: 1.5}, r"x has values from 0\.\d+ to 1\.5, outside the attack's bounds"),
        ({0: -0.5, 3: 1.5}, r"x has values from -0\.5 to 1\.5, outside the attack's bounds"),
        ({3: float("nan")}, r"x has NaN in 1 of 6 images, first at index 3; what is found for them means nothing"),
        ({2: float("nan"), 5: float("nan")}, r"x has NaN in 2 of 6 images, first at index 2"),
    ],
)
@pytest.mark.parametrize("bounds", [(0, 1), (torch.zeros(2, 1, 1), torch.ones(5))], ids=["numbers", "tensors"])
@pytest.mark.parametrize("report", [False, True], ids=["call", "run"])
def test_odd_values_are_warned_of_once(values, message, bounds, report):
    x, y = image_batch()
    for index, value in values.items():
        x[index, 1, 2, 3] = value
    attack = PGD(small_net(), steps=1, bounds=bounds)
    attack = attack.run if report else attack
    with pytest.warns(UserWarning, match=message) as caught:
        attack(x, y)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(x, y)


def test_nan_beside_values_outside_gives_both_warnings():
    x, y = image_batch()
    x[0, 0, 0, :2] = torch.tensor([float("nan"), 255.0])
    attack = PGD(small_net(), steps=1)
    with pytest.warns(UserWarning, match="NaN in 1 of 6"), pytest.warns(UserWarning, match=r"from 0\.\d+ to 255, out"):
        attack(x, y)


def test_values_at_the_bounds_are_not_warned_of():
    x, y = image_batch()
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD(small_net(), steps=1)(x, y)
        PGD(small_net(), steps=1, bounds=(0, 255))(x * 255, y)


def test_results_are_clipped_to_the_bounds():
    x, y = image_batch()
    with pytest.warns(UserWarning, match="outside the attack's bounds"):
        found = PGD(small_net(), steps=1)(x * 255, y)
    assert float(found.max()) <= 1.0
