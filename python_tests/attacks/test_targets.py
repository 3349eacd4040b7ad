"""Target rules of classifiers, and that attacks go towards what they name."""

from __future__ import annotations

import pytest
import torch
from attacks.attack_cases import image_batch, small_net

from mdprop_ext.attacks import FGSM, MIFGSM, PGD, least_likely, random_other_class


def test_least_likely():
    assert least_likely(torch.tensor([[0.0, 1.0, -2.0], [3.0, 1.0, 2.0]]), None, torch.Generator()).tolist() == [2, 1]


def test_random_other_class_is_uniform_over_the_others():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat(1000)
    drawn = random_other_class(torch.zeros(4000, 4), y, generator)
    counts = torch.zeros(4, 4).index_put_((y, drawn), torch.ones(4000), accumulate=True)
    assert not bool(counts.diagonal().any())
    torch.testing.assert_close(counts / 1000, (1 - torch.eye(4)) / 3, atol=0.05, rtol=0)
    predicted = random_other_class(torch.eye(4), None, generator)
    assert not bool((predicted == torch.arange(4)).any())
    with pytest.raises(ValueError, match=r"output: expected logits of two classes at least, got \[3, 1\]"):
        random_other_class(torch.zeros(3, 1), None, generator)


@pytest.mark.parametrize("build", [PGD, FGSM, MIFGSM])
@pytest.mark.parametrize(
    "target", [1, least_likely, random_other_class, lambda logits, y, generator: (y + 1) % 3], ids=str
)
def test_targeted_attacks_raise_the_target_and_untargeted_ones_lower_the_label(build, target):
    model = small_net().eval()
    x, _ = image_batch(12)
    y = model(x).argmax(dim=1)
    recorded = {}
    attack = build(model, eps=0.1, target=target)
    if callable(target):
        attack.target = lambda *arguments: recorded.setdefault("classes", target(*arguments))
    found = attack.run(x, y)
    classes = recorded.get("classes", torch.full((12,), 1))

    def share(images, labels):
        return model(images).log_softmax(1).gather(1, labels[:, None]).mean().item()

    assert share(found.x_adv, classes) > share(x, classes)
    torch.testing.assert_close(found.objective, model(found.x_adv).log_softmax(1).gather(1, classes[:, None])[:, 0])
    assert torch.equal(found.success, model(found.x_adv).argmax(1) == classes)
    untargeted = build(model, eps=0.1).run(x, y)
    assert share(untargeted.x_adv, y) < share(x, y)
    assert torch.equal(untargeted.success, model(untargeted.x_adv).argmax(1) != y)


@pytest.mark.parametrize("wrong", [-100, -1, 3, 7])
@pytest.mark.parametrize("build", [PGD, FGSM, MIFGSM])
def test_classes_that_the_logits_do_not_have_are_named(build, wrong):
    model = small_net()
    x, y = image_batch()
    message = rf"expected classes from 0 to 2, the columns of logits, got {wrong}$"
    for target in (wrong, torch.where(y == 1, wrong, y), lambda logits, y, generator: y.masked_fill(y == 1, wrong)):
        with pytest.raises(ValueError, match=f"^target: {message}"):
            build(model, target=target)(x, y)
    labels = y.clone()
    labels[4] = wrong
    for target in (None, random_other_class):
        with pytest.raises(ValueError, match=f"^y: {message}"):
            build(model, target=target)(x, labels)
    with pytest.raises(TypeError, match=r"^target: cross entropy expects classes as int64 \[N\], got torch.float32"):
        build(model, target=y.float())(x, y)
