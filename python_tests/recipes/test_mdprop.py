from __future__ import annotations

import pytest
import torch
from recipe_cases import RecordingLoss, small_batch
from torch import Tensor, nn

from mdprop_ext.nn import MultiBatchNorm2d, branch_names
from mdprop_ext.nn.backbones import conv4
from mdprop_ext.recipes import MDProp, MDPropConfig

EPS = 8 / 255


class Watcher:
    """Keeps the inputs of forward passes in training mode, and the route of each."""

    def __init__(self, model: nn.Module) -> None:
        self.inputs: list[Tensor] = []
        self.routes: list[list[int]] = []
        self.layer = next(module for module in model.modules() if isinstance(module, MultiBatchNorm2d))
        model.register_forward_pre_hook(self._look)

    def _look(self, model: nn.Module, arguments: tuple[Tensor]) -> None:
        if model.training:
            self.inputs.append(arguments[0])
            assert self.layer.route is not None
            self.routes.append(self.layer.route.tolist())


def prepared(*, loss: str = "joint", steps: int = 1) -> tuple[MDProp, nn.Module, RecordingLoss]:
    torch.manual_seed(0)
    criterion = RecordingLoss()
    recipe = MDProp(MDPropConfig(eps=EPS, attack_steps=steps, loss=loss), criterion=criterion, seed=3)
    return recipe, recipe.prepare(conv4()).train(), criterion


@pytest.mark.parametrize(("classes", "per_class"), [(4, 2), (3, 7), (5, 1), (2, 2)])
def test_one_fused_forward_with_explicit_branches(classes: int, per_class: int) -> None:
    # Odd batches too: 21 images are 21 clean ones, 11 single-targeted and 10 multi-targeted.
    recipe, model, criterion = prepared()
    watcher = Watcher(model)
    images, labels = small_batch(classes, per_class)
    recipe.step(model, (images, labels))
    count = len(images)
    assert len(watcher.inputs) == 1
    route = watcher.routes[0]
    assert route[:count] == [0] * count
    assert route[count:] == sorted(route[count:])
    assert route.count(1) + route.count(2) == count
    assert 0 <= route.count(1) - route.count(2) <= 2
    assert torch.equal(watcher.inputs[0][:count], images)
    assert len(criterion.calls[0][1]) == 2 * count


def test_adversarial_images_stay_in_the_ball_and_keep_their_labels() -> None:
    recipe, model, criterion = prepared()
    watcher = Watcher(model)
    images, labels = small_batch()
    recipe.step(model, (images, labels))
    attacked, attacked_labels = watcher.inputs[0][8:], criterion.calls[0][1][8:]
    assert not attacked.requires_grad
    assert float(attacked.min()) >= 0
    assert float(attacked.max()) <= 1
    distances = (attacked[:, None] - images[None]).abs().flatten(2).amax(2)
    source = distances.argmin(1)
    assert sorted(source.tolist()) == list(range(8))
    assert torch.equal(attacked_labels, labels[source])
    nearest = distances.amin(1)
    assert float(nearest.max()) <= EPS + 1e-6
    assert float(nearest.min()) > 0.5 * EPS


def test_each_branch_is_updated_once_by_its_own_images() -> None:
    recipe, model, _ = prepared()
    first_norm = Watcher(model).layer
    plain = conv4()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "aux_bn" not in k})
    batch = small_batch()
    recipe.step(model, batch)
    plain.train()(batch[0])
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert int(buffer) == 1, name
    torch.testing.assert_close(first_norm.running_mean, plain.features[0][1].running_mean)
    for branch in first_norm.aux_bn:
        assert not torch.allclose(branch.running_mean, first_norm.running_mean, atol=1e-5)


def test_all_branches_start_from_the_statistics_of_the_model() -> None:
    model = conv4()
    model.train()(torch.rand(8, 1, 16, 16) * 3)
    model = MDProp().prepare(model)
    assert branch_names(model) == ("main", "st", "mt")
    for layer in (module for module in model.modules() if isinstance(module, MultiBatchNorm2d)):
        assert float(layer.running_mean.abs().max()) > 0
        for branch in layer.aux_bn:
            assert torch.equal(branch.running_mean, layer.running_mean)
            assert torch.equal(branch.running_var, layer.running_var)
            assert torch.equal(branch.weight, layer.weight)


def test_attacks_go_through_their_own_branch() -> None:
    recipe, model, _ = prepared()
    first_norm = Watcher(model).layer
    seen: list[tuple[bool, int]] = []

    def look(layer: nn.Module, arguments: tuple[Tensor]) -> None:
        if not layer.training:
            seen.append((layer.training, int(first_norm.route)))

    first_norm.register_forward_pre_hook(look)
    recipe.step(model, small_batch())
    branches = [branch for _, branch in seen]
    assert set(branches) == {1, 2}
    assert branches == sorted(branches)
    assert model.training


def test_a_step_leaves_gradients_and_random_state_alone() -> None:
    recipe, model, _ = prepared()
    state = torch.get_rng_state()
    loss = recipe.step(model, small_batch())["loss"]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_number_of_targets() -> None:
    recipe, _, _ = prepared()
    assert (recipe.st_attack.target.count, recipe.mt_attack.target.count) == (1, 5)
    assert recipe.st_attack.generator is not recipe.mt_attack.generator


def test_separate_and_joint_losses() -> None:
    joint, model, criterion = prepared(loss="joint")
    joint.step(model, small_batch(8))
    assert [len(labels) for _, labels in criterion.calls] == [32]
    separate, model, criterion = prepared(loss="separate")
    loss = separate.step(model, small_batch(8))["loss"]
    assert [len(labels) for _, labels in criterion.calls] == [16, 8, 8]
    parts = [RecordingLoss()(*call) for call in criterion.calls]
    torch.testing.assert_close(loss, torch.stack(parts).mean())


def test_the_same_seed_gives_the_same_loss() -> None:
    losses = []
    for _ in range(2):
        recipe, model, _ = prepared(steps=2)
        losses.append([recipe.step(model, small_batch())["loss"].item() for _ in range(2)])
    assert losses[0] == losses[1]


def test_a_batch_of_one_class_has_no_targets() -> None:
    recipe, model, _ = prepared()
    with pytest.raises(ValueError, match="two labels"):
        recipe.step(model, small_batch(1, 6))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"eps": -0.1}, "eps: expected a number from 0 to 1, got -0.1"),
        ({"eps": 8.0}, "eps: expected a number from 0 to 1, got 8.0"),
        ({"eps": float("nan")}, "eps: expected"),
        ({"attack_steps": 0}, "attack_steps: expected at least 1, got 0"),
        ({"mt_targets": 0}, "mt_targets: expected at least 1, got 0"),
        ({"loss": "both"}, "loss: expected one of joint, separate, got 'both'"),
    ],
)
def test_wrong_hyper_parameters(options: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        MDPropConfig(**options)
