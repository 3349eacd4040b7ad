from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy
import pytest
import torch
from image_files import write_classes
from page_checks import Page
from PIL import Image
from safetensors.torch import load_file

from mdprop_ext.cli import main
from mdprop_ext.recipes import embed, load_checkpoint
from mdprop_ext.recipes.attacked_images import query_recall

PICTURES = ["embeddings.png", "grid.png", "neighbours.png"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of images in colour, whose test classes have names that no file system likes."""
    folder = tmp_path_factory.mktemp("attack")
    write_classes(folder / "images", [f"class {index} & <more>" for index in range(12)], images=3, mode="RGB")
    data = ["--data", "folder", "--train", str(folder / "images"), "--image-size", "16", "--channels", "3"]
    short = ["--set", "steps=3", "--set", "classes_per_batch=4"]
    assert main(["train", "--recipe", "mdprop", *data, *short, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def attacked(trained: Path) -> Path:
    out = trained.parent / "attacked"
    options = ["--attacks", "st,mt5,pgd,st", "--eps", "6.5", "--steps", "3", "--seed", "1"]
    assert main(["attack", "--checkpoint", str(trained), *options, "--out", str(out)]) == 0
    return out


def pixels(folder: Path) -> torch.Tensor:
    """All PNG files of a folder in order of their names, by an independent reader: ``uint8`` ``[N, C, H, W]``."""
    images = [torch.from_numpy(numpy.array(Image.open(path))) for path in sorted(folder.glob("*.png"))]
    return torch.stack(images).permute(0, 3, 1, 2)


def test_what_lies_in_the_folder(attacked: Path):
    expected = ["attack.json", *PICTURES, "provenance.json", "report.html"]
    for name in ("clean", "mt5", "pgd", "st"):
        expected += [name, f"{name}.safetensors"]
    assert sorted(path.name for path in attacked.iterdir()) == sorted(expected)
    assert len({path.name for path in (attacked / "st").iterdir()}) == 18
    assert (attacked / "st" / "00000-class_4_more_.png").exists()


@pytest.mark.parametrize("attack", ["st", "mt5", "pgd"])
def test_written_images_obey_eps_after_rounding(attacked: Path, attack: str):
    clean, rounded = pixels(attacked / "clean"), pixels(attacked / attack)
    tensors = load_file(attacked / f"{attack}.safetensors")
    assert torch.equal(tensors["pixels"], rounded)
    assert torch.equal(load_file(attacked / "clean.safetensors")["pixels"], clean)
    change = rounded.short() - clean.short()
    assert change.abs().max() == 6  # of 6.5
    exact = tensors["images"].double() * 255 - clean
    assert exact.abs().max() <= 6.5 + 1e-4
    assert 0 <= tensors["images"].min() <= tensors["images"].max() <= 1
    assert (change * exact >= 0).all()
    assert (change.abs() <= exact.abs() + 1e-3).all()


def test_recall_is_that_of_the_written_images(trained: Path, attacked: Path):
    summary = json.loads((attacked / "attack.json").read_text())
    model, _ = load_checkpoint(trained)
    clean = load_file(attacked / "clean.safetensors")
    labels, positions = clean["labels"], clean["positions"]
    with torch.no_grad():
        gallery = model(pixels(attacked / "clean").float() / 255)
        assert summary["clean"]["recall_at_1"] == query_recall(gallery, positions, gallery, labels)
        for name, row in summary["attacks"].items():
            queries = model(pixels(attacked / name).float() / 255)
            assert row["recall_at_1"] == query_recall(queries, positions, gallery, labels)
            assert row["largest_change_255"] == 6
    assert summary["attacks"]["mt5"]["targets"] == 5
    assert (summary["eps_255"], summary["steps"], summary["branch"], summary["seed"]) == (6.5, 3, "main", 1)
    given = json.loads((attacked / "provenance.json").read_text())["arguments"]
    expected = {"attacks": "st,mt5,pgd,st", "eps": "6.5", "steps": 3, "seed": 1, "branch": "main", "count": None}
    assert {**expected, "map": "pca"}.items() <= given.items()
    assert summary["rounding"] == "towards the clean image"


def test_the_report_shows_all_pictures(attacked: Path):
    html = (attacked / "report.html").read_text()
    page = Page(html)
    page.assert_self_contained(html)
    assert len(page.pictures()) == len(PICTURES)
    assert page.texts["h1"] == ["Attack: mdprop, seed 1"]


def test_some_images_through_another_branch(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "st").mkdir()
    (tmp_path / "st" / "mine.png").write_text("keep")
    (tmp_path / "st" / "00017-old.png").write_text("of an earlier run")
    options = ["--attacks", "st", "--branch", "mt", "--count", "7", "--steps", "1", "--map", "tsne"]
    assert main(["attack", "--checkpoint", str(trained), *options, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("mdprop: attack: 1 attack\n")
    assert printed.out.startswith("mdprop: R@1 ")
    assert "attacked (eps 16/255, 1 step): st " in printed.out
    assert printed.out.count("\n") == 1
    assert "1 step, branch mt." in (tmp_path / "report.html").read_text()
    names = {path.name for path in (tmp_path / "st").iterdir()}
    assert "mine.png" in names
    assert len(names) == 1 + 7
    summary = json.loads((tmp_path / "attack.json").read_text())
    assert (summary["branch"], summary["images"], summary["gallery"]) == ("mt", 7, 18)
    assert len(load_file(tmp_path / "st.safetensors")["labels"].unique()) == 6


def test_eps_0_changes_nothing(trained: Path, tmp_path: Path):
    options = ["--attacks", "pgd", "--eps", "0", "--count", "4"]
    assert main(["attack", "--checkpoint", str(trained), *options, "--out", str(tmp_path)]) == 0
    assert torch.equal(pixels(tmp_path / "pgd"), pixels(tmp_path / "clean"))
    summary = json.loads((tmp_path / "attack.json").read_text())
    assert summary["attacks"]["pgd"]["recall_at_1"] == summary["clean"]["recall_at_1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "/nowhere"], "checkpoint: no file 'config.json' in '/nowhere'"),
        (["--attacks", "st,fgsm"], "attacks: expected st, pgd or mt with a number of targets"),
        (["--attacks", ","], "attacks: expected values separated by commas"),
        (["--branch", "adv"], "branch: expected one of main, st, mt, got 'adv'"),
        (["--eps", "300"], "eps: expected a radius from 0 to 255, in 1/255, got 300"),
        (["--eps", "-1"], "eps: expected a radius from 0 to 255, in 1/255, got -1"),
        (["--eps", "0.5"], "eps: expected a radius in 1/255, got 0.5: write 8 for 8/255, or 0.5/255"),
        (["--eps", "nan"], "eps: expected a radius from 0 to 255, in 1/255, got nan"),
        (["--steps", "-1"], "steps: expected at least 0, got -1"),
        (["--count", "1"], "count: expected at least 2, got 1"),
        (["--count", "19"], "count: expected at most the 18 test images, got 19"),
        (["--seed", "-1"], "seed: expected an integer from 0 to 2^63 - 1, got -1"),
        (["--device", "tpu"], "device: expected one of auto, cpu, cuda, got 'tpu'"),
        (["--map", "umap"], "map: expected one of pca, tsne, got 'umap'"),
        (["--test", "x"], "data: expected one of digits, omniglot, folder beside --train and --test"),
        (["--data", "digits", "--channels", "1"], "channels: the model takes images of 3, got 1"),
    ],
)
def test_bad_arguments_write_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    out = tmp_path / "out"
    assert main(["attack", "--checkpoint", str(trained), "--out", str(out), *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert not out.exists()


def test_a_file_as_output_folder(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("mine")
    assert main(["attack", "--checkpoint", str(trained), "--out", str(tmp_path / "file")]) == 1
    assert "out: expected a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_report_is_made_again(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    for name in ("report.html", "robustness.png", "training.png"):
        (copy / name).unlink()
    assert main(["report", str(copy)]) == 0
    assert capsys.readouterr().out == f"{copy / 'report.html'}\n"
    for name in ("report.html", "robustness.png", "training.png"):
        assert (copy / name).read_bytes() == (trained / name).read_bytes()
    assert main(["report", str(tmp_path)]) == 1
    assert "report: expected one of metrics.json" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_without_matplotlib_the_report_says_so(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copy = Path(shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("*.png")))
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["report", str(copy)]) == 0
    page = Page((copy / "report.html").read_text())
    assert not page.all("img")
    assert any("pip install 'mdprop_ext[plot]'" in text for text in page.texts["p"])
    assert not list(copy.glob("*.png"))


def test_outcomes_are_short_in_notebooks(trained: Path, tmp_path: Path):
    from mdprop_ext.cli.attack import attack_checkpoint
    from mdprop_ext.recipes import AttackSetting

    outcome = attack_checkpoint(trained, tmp_path, [AttackSetting(attack="st", steps=1)], count=4)
    assert repr(outcome).startswith("AttackOutcome(4 of ImageSet(18 images of 3 x 16 x 16 in 6 classes: ")
    assert torch.equal(outcome.gallery, embed(load_checkpoint(trained)[0], outcome.images))
