"""An attack over a loader: reproducible batch by batch, resumed after interrupts and kills, never mixed up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from attacks.attack_cases import fingerprint, image_batch, small_net
from torch import nn

from mdprop_ext.attacks import MIFGSM, PGD, FeatureTargetAttack, attack_loader, unpack_batch

ROOT = Path(__file__).resolve().parents[2]


def batches(count: int = 4):
    x, y = image_batch(6 * count)
    return [(x[6 * i : 6 * i + 6], y[6 * i : 6 * i + 6]) for i in range(count)]


def assert_equal(found, expected):
    assert [batch.index for batch in found] == [batch.index for batch in expected]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.y, other.y)
        for name, value in vars(one.result).items():
            assert torch.equal(value, getattr(other.result, name)), name


def assert_only_whole_files(folder: Path, count: int):
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"batch-{index:06d}.pt" for index in range(count)),
        "settings.json",
    ]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net()
        self.calls = [0]

    def forward(self, x):
        self.calls[0] += 1
        return self.net(x)


def test_each_batch_has_a_seed_of_its_own():
    model = small_net().train()
    attack = PGD(model, eps=0.1, steps=2)
    before = fingerprint(model)
    state = attack.generator.get_state()
    found = list(attack_loader(attack, batches()))
    assert fingerprint(model) == before
    assert torch.equal(attack.generator.get_state(), state)
    assert_equal(list(attack_loader(attack, batches())), found)
    # Without the batches before it a batch gets the same result only at its own position.
    x, y = batches()[0]
    again = list(attack_loader(attack, [(x, y), (x, y)]))
    assert torch.equal(again[0].result.x_adv, found[0].result.x_adv)
    assert not torch.equal(again[1].result.x_adv, found[0].result.x_adv)
    other = list(attack_loader(attack, batches(), seed=1))
    assert not torch.equal(other[0].result.x_adv, found[0].result.x_adv)


@pytest.mark.parametrize(
    "attack",
    [
        lambda model: PGD(model, eps=0.1, steps=2, restarts=2),
        lambda model: MIFGSM(model, steps=2, random_start=True, early_stop=True),
        lambda model: FeatureTargetAttack(model, targets=2),
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, attack):
    expected = list(attack_loader(attack(small_net()), batches()))
    model = Counting()
    for index, batch in enumerate(attack_loader(attack(model), batches(), out=tmp_path)):
        assert batch.index == index
        if index == 1:
            break
    assert_only_whole_files(tmp_path, 2)
    first = model.calls[0]
    assert first > 0
    assert_equal(list(attack_loader(attack(model), batches(), out=tmp_path)), expected)
    assert model.calls[0] > first
    assert_only_whole_files(tmp_path, 4)
    finished = model.calls[0]
    assert_equal(list(attack_loader(attack(model), batches(), out=tmp_path)), expected)
    assert model.calls[0] == finished, "finished batches were attacked again"


KILLED = """
import os, signal, sys
from attacks.attack_cases import small_net
from attacks.test_loader import batches
from mdprop_ext.attacks import PGD, attack_loader

def die(source, target):
    if target.name == "batch-000002.pt":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

replace, os.replace = os.replace, die
for _ in attack_loader(PGD(small_net(), eps=0.1, steps=2), batches(), out=sys.argv[1]):
    pass
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_run_killed_while_writing_goes_on_bit_for_bit(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "python_tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    hidden = [path for path in tmp_path.iterdir() if path.name.startswith(".batch-000002.pt.")]
    assert len(hidden) == 1
    assert len(list(tmp_path.iterdir())) == 4, "settings, two batches and what was to be the third"
    attack = PGD(small_net(), eps=0.1, steps=2)
    expected = list(attack_loader(attack, batches()))
    assert_equal(list(attack_loader(attack, batches(), out=tmp_path)), expected)
    assert_only_whole_files(tmp_path, 4)


@pytest.mark.parametrize("whole", range(4))
def test_an_interrupt_while_writing_leaves_whole_files_alone(tmp_path, monkeypatch, whole):
    attack = PGD(small_net(), eps=0.1, steps=2)
    names = ["settings.json", *(f"batch-{index:06d}.pt" for index in range(3))]
    list(attack_loader(attack, batches(3), out=tmp_path / "peace"))
    replace = os.replace

    def interrupted(source, target):
        if target.name == names[whole]:
            raise KeyboardInterrupt
        replace(source, target)

    folder = tmp_path / "interrupted"
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(attack_loader(attack, batches(3), out=folder))
    assert {path.name for path in folder.iterdir()} == set(names[:whole])
    monkeypatch.undo()
    list(attack_loader(attack, batches(3), out=folder))
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "peace" / name).read_bytes()


def test_other_settings_weights_or_batches_are_refused(tmp_path):
    list(attack_loader(PGD(small_net(), steps=1), batches(2), out=tmp_path))
    changed = small_net()
    changed.head.bias.data += 1e-3
    for attack, name in (
        (PGD(small_net(), steps=2), "steps"),
        (PGD(changed, steps=1), "model"),
        (MIFGSM(small_net(), steps=1), "attack"),
    ):
        with pytest.raises(ValueError, match=f"out: .* holds results of another .*{name}"):
            attack_loader(attack, batches(2), out=tmp_path)
    attack = PGD(small_net(), steps=1)
    with pytest.raises(ValueError, match="holds results of another seed; give another folder, or remove it"):
        attack_loader(attack, batches(2), out=tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"loader: batch 0 is not the one that was attacked .* does it shuffle"):
        list(attack_loader(attack, batches(2)[::-1], out=tmp_path))
    x, y = batches(2)[0]
    with pytest.raises(ValueError, match="loader: batch 0 is not the one"):
        list(attack_loader(attack, [(x, (y + 1) % 3)], out=tmp_path))
    assert len(list(attack_loader(attack, batches(3), out=tmp_path))) == 3


def test_damaged_files_and_wrong_folders_are_named(tmp_path):
    attack = PGD(small_net(), steps=1)
    list(attack_loader(attack, batches(1), out=tmp_path / "a" / "b"))
    folder = tmp_path / "a" / "b"
    (folder / "batch-000000.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"out: the file '.*batch-000000.pt' is damaged"):
        list(attack_loader(attack, batches(1), out=folder))
    (folder / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"out: the file '.*settings.json' is damaged"):
        attack_loader(attack, batches(1), out=folder)
    (folder / "settings.json").unlink()
    with pytest.raises(ValueError, match="got batches alone"):
        attack_loader(attack, batches(1), out=folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out: expected a folder"):
        attack_loader(attack, batches(1), out=tmp_path / "file")


def test_settings_are_readable(tmp_path):
    list(attack_loader(PGD(small_net(), eps=0.25, steps=1), batches(1), out=str(tmp_path), seed=5))
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert (settings["attack"], settings["eps"], settings["seed"]) == ("PGD", 0.25, 5)


def test_loaders_of_any_form(tmp_path):
    x, y = image_batch(10)
    dataset = torch.utils.data.TensorDataset(x, torch.eye(3)[y], torch.arange(10))
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    attack = PGD(small_net(), steps=1)
    found = list(attack_loader(attack, loader, out=tmp_path, unpack=lambda batch: unpack_batch(batch, class_ids=True)))
    assert [len(batch.result) for batch in found] == [4, 4, 2]
    assert torch.equal(torch.cat([batch.y for batch in found]), y)
    stream = ({"image": images, "label": labels} for images, labels in batches(2))
    assert len(list(attack_loader(attack, stream))) == 2
    drift = PGD(small_net(), objective=lambda output, y: output.sum(1), steps=1)
    assert next(iter(attack_loader(drift, [x]))).y is None


def test_labels_that_could_not_be_read_again_are_refused_at_once(tmp_path):
    x, _ = image_batch(4)
    attack = PGD(small_net(), objective=lambda output, y: output.sum(1), steps=1)
    for labels in (numpy.arange(4), {"ids": [numpy.int64(3)]}):
        with pytest.raises(TypeError, match="loader: out= keeps labels of tensors, numbers and text"):
            list(attack_loader(attack, [(x, labels)], out=tmp_path))
        assert len(list(attack_loader(attack, [(x, labels)]))) == 1
    assert_only_whole_files(tmp_path, 0)
    for labels in (None, ["a", "b", "c", "d"], {"ids": torch.arange(4), "names": ("x", 2.0)}):
        folder = tmp_path / str(type(labels))
        first, second = (next(attack_loader(attack, [(x, labels)], out=folder)).y for _ in range(2))
        assert str(first) == str(second) == str(labels)


def test_nothing_runs_before_the_first_result_and_nothing_is_printed(capfd):
    def loader():
        raise AssertionError("the loader was asked")
        yield

    attack_loader(PGD(small_net()), loader())
    list(attack_loader(PGD(small_net(), steps=1), batches(1)))
    assert capfd.readouterr() == ("", "")
    pytest.importorskip("rich")
    list(attack_loader(PGD(small_net(), steps=1), batches(2), progress=True))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "attack" in captured.err


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="attack: expected bn_mode 'running' or 'batch', got 'train'"):
        attack_loader(PGD(small_net(), bn_mode="train"), batches(1))
    with pytest.raises(ValueError, match="seed: expected an integer"):
        attack_loader(PGD(small_net()), batches(1), seed=-1)
    with pytest.raises(TypeError, match=r"attack: expected an attack such as PGD\(model\), got Sequential"):
        attack_loader(nn.Sequential(small_net()), batches(1))
