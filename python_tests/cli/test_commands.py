from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from recipe_cases import write_folder

from mdprop_ext.cli import main
from mdprop_ext.cli.forward import find_benchmarks
from mdprop_ext.recipes import RECIPES, load_checkpoint

COMPARISON = ["comparison.json", "comparison.md", "provenance.json", "report.html", "robustness.png", "training.png"]
SHORT = ["--set", "steps=3", "--set", "validate_every=2", "--set", "classes_per_batch=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = write_folder(tmp_path_factory.mktemp("data") / "images")
    return ["--data", "folder", "--train", str(path), "--image-size", "16"]


@pytest.fixture(scope="module")
def trained(folder: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mdprop"
    assert main(["train", "--recipe", "mdprop", *folder, *SHORT, "--seed", "3", "--out", str(out)]) == 0
    return out


def test_train_writes_everything_in_few_words(
    folder: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--recipe", "plain", *folder, *SHORT, "--epochs", "1", "--out", str(tmp_path / "a" / "run")]
    assert main(arguments) == 0
    printed = capfd.readouterr()
    started, done = printed.err.splitlines()  # all that there is where no terminal shows progress
    assert started == "mdprop: plain: training, 1 step"
    assert done.startswith("mdprop: plain: done after ")
    assert printed.out.startswith("plain: R@1 ")
    assert "attacked (eps 16/255, 5 steps): st " in printed.out
    assert printed.out.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "a" / "run").iterdir()) == [
        "config.json",
        "log.jsonl",
        "metrics.json",
        "model.safetensors",
        "provenance.json",
        "report.html",
        "robustness.png",
        "training.png",
    ]
    # One epoch: 12 images in batches of 4 classes with 16 images each meet every class in one batch.
    assert len((tmp_path / "a" / "run" / "log.jsonl").read_text().splitlines()) == 1


def test_eval_gives_the_numbers_of_training_again(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--attacks", "st,pgd", "--eps", "8/255,16", "--steps", "2"]
    assert main(["eval", "--checkpoint", str(trained), *arguments, "--out", str(tmp_path)]) == 0
    ours, of_training = (json.loads((path / "metrics.json").read_text()) for path in (tmp_path, trained))
    for key in ("recipe", "seed", "test", "robust"):
        assert ours[key] == of_training[key]
    keys = {(row["attack"], row["eps_255"], row["steps"], row["branch"]) for row in ours["robust_grid"]}
    assert keys == {
        (attack, eps, 2, branch)
        for attack in ("st", "pgd")
        for eps in (8.0, 16.0)
        for branch in ("main", "st", "mt", "worst")
    }
    assert (tmp_path / "robustness.png").stat().st_size > 1000
    report = (tmp_path / "report.html").read_text()
    assert "Evaluation: mdprop, seed 3" in report
    captions = ["The attacks that were asked for: Recall@1", "The fixed protocol: Recall@1 at eps 16/255, 5 steps"]
    assert 0 < report.index(captions[0]) < report.index(captions[1])
    assert captions[0] not in (trained / "report.html").read_text()
    recalls = {
        (row["attack"], row["branch"], row["eps_255"]): f"{100 * row['recall_at_1']:.1f} %"
        for row in ours["robust_grid"]
    }
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"  {attack}, 2 steps, {through}: eps 8/255 {recalls[attack, branch, 8.0]}, "
        f"eps 16/255 {recalls[attack, branch, 16.0]}"
        for attack in ("st", "pgd")
        for branch, through in (("main", "branch main"), ("worst", "worst branch"))
    ]
    arguments_written = json.loads((tmp_path / "provenance.json").read_text())["arguments"]
    assert arguments_written == {
        "checkpoint": str(trained),
        "out": str(tmp_path),
        "data": None,
        "train": None,
        "test": None,
        "image_size": None,
        "channels": None,
        "attacks": "st,pgd",
        "eps": "8/255,16",
        "steps": "2",
        "seed": 3,
        "device": "auto",
    }


def test_eval_takes_other_images(trained: Path, folder: list[str], tmp_path: Path) -> None:
    path = folder[3]
    short = ["--attacks", "st", "--eps", "4", "--steps", "1", "--out", str(tmp_path)]
    command = ["eval", "--checkpoint", str(trained), "--data", "folder", "--test", f"{path}::class0,class1", *short]
    assert main(command) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["recipe"] == "mdprop"


def test_eval_leaves_the_results_of_training_alone(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in trained.iterdir()}
    assert main(["eval", "--checkpoint", str(trained), "--out", str(trained / ".." / trained.name)]) == 1
    assert "out: expected another folder than the checkpoint's" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in trained.iterdir()}


def test_eval_of_damaged_checkpoints(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(trained, broken)
    (broken / "model.safetensors").write_bytes(b"")
    command = ["eval", "--checkpoint", str(broken), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert capsys.readouterr().err.strip().endswith("is damaged or incomplete")
    assert main(["eval", "--checkpoint", str(trained), "--channels", "3", "--data", "digits", *command[3:]]) == 1
    assert "channels: the model takes images of 1, got 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_compare_trains_all_and_ends_with_a_table(
    folder: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--recipes", "plain,mdprop", "--seeds", "2", *SHORT, "--set", "mt_targets=2"]
    assert main(["compare", *folder, *arguments, "--out", str(tmp_path)]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    runs = ["mdprop-seed0", "mdprop-seed1", "plain-seed0", "plain-seed1"]
    assert names == sorted([*runs, *COMPARISON])
    assert load_checkpoint(tmp_path / "mdprop-seed1")[1].recipe_config["mt_targets"] == 2
    printed = capsys.readouterr().out
    assert "MT5 R@1" in printed
    assert str(tmp_path / "robustness.png") in printed
    table = (tmp_path / "comparison.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table] == ["recipe", "---", "plain", "mdprop"]
    assert "±" in table[2]


def test_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(RECIPES)
    assert all(row["summary"] and row["paper"] for row in rows)
    assert rows[1]["settings"]["mt_targets"] == 5
    assert main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in RECIPES)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(
        name in printed
        for name in ("train", "eval", "attack", "compare", "report", "recipes", "info", "selftest", "bench")
    )


def test_flags_take_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["train"], ["compare"], ["recipes"], ["report"]):
        assert main([*command, "--help"]) == 0
        printed = capsys.readouterr().out
        assert "--help" in printed
        assert "bool" not in printed.lower()


def test_info_goes_to_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    assert "torch" in capsys.readouterr().out


def test_benchmarks_need_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run this in a checkout of its source"):
        find_benchmarks([tmp_path, tmp_path / "lib"])
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text("")
    assert find_benchmarks([tmp_path / "lib", tmp_path]) == tmp_path


def test_missing_typer_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)  # as if it were not installed
    assert main(["recipes"]) == 1
    assert capsys.readouterr().err == (
        "mdprop: this needs the package 'typer', which is not installed: run pip install 'mdprop_ext[cli]'\n"
    )


def test_programs_of_other_modules_get_their_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["selftest", "--help"])
    assert end.value.code == 0
    assert "mdprop_ext.selftest" in capfd.readouterr().out
    assert main(["bench", "--help"]) == 0
    assert "benchmarks" in capfd.readouterr().out
