"""Options are checked at construction, by every attack alike, before anything is computed from them."""

from __future__ import annotations

import warnings

import pytest
import torch
from attacks.attack_cases import BUILDERS, OF_STEPS, image_batch, small_net

from mdprop_ext.attacks import FGSM, MIFGSM, PGD, FeaturePush
from mdprop_ext.attacks.options import step_length


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps": "big"}, TypeError, r"eps: expected a number or a tensor \[N\], got str"),
        ({"eps": None}, TypeError, r"eps: expected a number or a tensor \[N\], got NoneType"),
        ({"eps": -1.0}, ValueError, "eps: expected a finite number >= 0, got -1.0"),
        ({"bounds": ("low", "high")}, TypeError, "bounds: expected numbers or tensors, got str"),
        ({"generator": 5}, TypeError, r"generator: expected a torch\.Generator or None, got int"),
        ({"mean": "grey"}, TypeError, "mean: expected a number or one number a channel, got str"),
        ({"mean": float("nan")}, ValueError, r"mean: expected finite values, got \[nan\]"),
        ({"std": float("inf")}, ValueError, r"std: expected finite values, got \[inf\]"),
    ],
)
@pytest.mark.parametrize("build", BUILDERS)
def test_every_attack_names_the_argument(build, options, error, message):
    with pytest.raises(error, match=message):
        build(small_net(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "3"}, "steps: expected an integer, got str"),
        ({"steps": None}, "steps: expected an integer, got NoneType"),
        ({"steps": "3", "alpha": 0.1}, "steps: expected an integer, got str"),
        ({"random_start": "no"}, "random_start: expected True or False, got str"),
        ({"keep_best": 1}, "keep_best: expected True or False, got int"),
    ],
)
@pytest.mark.parametrize("build", OF_STEPS)
def test_every_attack_of_several_steps_names_the_argument(build, options, message):
    with pytest.raises(TypeError, match=message):
        build(small_net(), **options)


@pytest.mark.parametrize("build", [PGD, FGSM, MIFGSM])
def test_a_switch_is_no_class(build):
    with pytest.raises(TypeError, match="target: expected a class, a tensor, a callable or None, got bool"):
        build(small_net(), target=True)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("shape", [(7,), (2, 6, 2, 5, 5), (2,)])
def test_bounds_of_another_shape_are_refused(build, shape):
    x, y = image_batch()
    with pytest.raises(ValueError, match=r"bounds: expected a tensor that broadcasts to x \[6, 2, 5, 5\], got \["):
        build(small_net(), bounds=(0.0, torch.ones(shape)))(x, y)


def test_default_lengths_of_steps():
    assert step_length(None, 0.2, 1) == step_length(None, 0.2, 0) == 0.2
    assert step_length(None, 0.2, 5) == pytest.approx(0.1)
    assert step_length(None, 0.2, 5, reach=1.0) == pytest.approx(0.04)
    assert step_length(0.3, 0.2, 5) == 0.3
    torch.testing.assert_close(step_length(None, torch.tensor([0.2, 0.4]), 5), torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize("build", BUILDERS)
def test_a_radius_without_dimensions_is_a_number(build):
    x, y = image_batch()
    for eps in (0.1, 0.0):
        found = build(small_net(), eps=torch.tensor(eps, dtype=torch.float64))(x, y, seed=1)
        assert torch.equal(found, build(small_net(), eps=eps)(x, y, seed=1))


@pytest.mark.parametrize(
    ("build", "eps", "bounds", "message"),
    [
        (PGD, 8, (0, 1), r"^eps=8 is larger than the range of pixels 0 to 1; for 8/255 write 8/255$"),
        (FGSM, torch.tensor([0.1, 4.0]), (0, 1), r"^eps=4 is larger than the range of pixels 0 to 1; for 4/255"),
        (MIFGSM, 2.5, (-1, 1), r"^eps=2.5 is larger than the range of pixels -1 to 1$"),
        (FeaturePush, 3, (0, torch.tensor([1.0, 2.0])), r"^eps=3 is larger than the widest range of pixels, 2$"),
    ],
)
def test_eps_beyond_all_pixels_gives_one_warning(build, eps, bounds, message):
    with pytest.warns(UserWarning, match=message) as caught:
        build(small_net(), eps=eps, bounds=bounds)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 1},
        {"eps": torch.tensor([0.0, 1.0])},
        {"eps": torch.zeros(0)},
        {"eps": 8, "bounds": (0, 255)},
        {"eps": 2, "bounds": (0, torch.tensor([1.0, 2.0]))},
        {"eps": 8, "norm": "l2"},
        {"eps": 8, "norm": "l1"},
    ],
)
def test_eps_within_the_pixels_or_of_a_sum_gives_none(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD(small_net(), **options)
