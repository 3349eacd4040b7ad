from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_cases import write_folder

from mdprop_ext.cli import main
from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.recipes import MDProp, MDPropConfig, RunInterrupted, TrainConfig, run_training
from mdprop_ext.recipes.trainer import Record

SHORT = ["--set", "steps=3", "--set", "classes_per_batch=4", "--set", "model=own_parts:make_model"]
CONFIG = TrainConfig(steps=3, classes_per_batch=4, model="own_parts:make_model")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture
def folder(images: Path) -> list[str]:
    return ["--data", "folder", "--train", str(images), "--image-size", "16"]


def described(out: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((out / "config.json").read_text())
    return content


def interrupted(out: Path, images: Path) -> None:
    """What Ctrl-C leaves of ``mdprop train --recipe mdprop --set mt_targets=2 --seed 5``."""

    def interrupt(record: Record) -> None:
        if record["step"] == 2:
            raise KeyboardInterrupt

    source = DataSource("folder", train=str(images), image_size=16)
    recipe = MDProp(MDPropConfig(mt_targets=2), seed=5)
    with pytest.raises(RunInterrupted):
        run_training(recipe, source.load(5), CONFIG, out, data=source.describe(), observe=interrupt)


def test_options_come_before_the_file_and_the_file_before_defaults(images: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "recipe: mdprop\nseed: 7\neps: 8/255\nmt_targets: 3\nsteps: 2\nmodel: own_parts:make_model\n"
        f"data: {{name: folder, train: '{images}', image_size: 32}}\n"
    )
    out = tmp_path / "out"
    options = ["--set", "mt_targets=2", "--set", "steps=1", "--image-size", "16", "--out", str(out)]
    assert main(["train", "--config", str(config), *options]) == 0
    content = described(out)
    assert (content["recipe"], content["seed"], content["image_size"]) == ("mdprop", 7, 16)
    assert content["recipe_config"] == {"eps": 8 / 255, "attack_steps": 1, "mt_targets": 2, "loss": "joint"}
    assert content["train_config"]["steps"] == 1

    again = tmp_path / "again"
    assert main(["train", "--config", str(out / "config.json"), "--out", str(again)]) == 0
    assert described(again) == content
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_resume_needs_no_other_option(
    images: Path, folder: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "parts", images)
    assert main(["train", "--resume", "--out", str(tmp_path / "parts")]) == 0
    options = ["--recipe", "mdprop", *folder, *SHORT, "--set", "mt_targets=2", "--seed", "5"]
    assert main(["train", *options, "--out", str(tmp_path / "whole")]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("parts", "whole")]
    assert weights[0] == weights[1]
    capsys.readouterr()
    assert main(["train", *options, "--resume", "--out", str(tmp_path / "parts")]) == 0
    assert capsys.readouterr().out.startswith(f"the run in {tmp_path / 'parts'} is finished, there is nothing to do\n")


def test_resume_of_another_run(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(tmp_path, images)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for options, message in (
        (["--recipe", "plain"], "is one of 'mdprop', got recipe 'plain'"),
        (["--set", "mt_targets=4"], "got mt_targets 4 instead of 2"),
        (["--seed", "6"], "got seed 6 instead of 5"),
        (["--epochs", "2"], "got epochs 2 instead of None"),
        (["--image-size", "32"], "got other images to train on"),
    ):
        assert main(["train", "--resume", *options, "--out", str(tmp_path)]) == 1
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_comparison_keeps_finished_runs(folder: list[str], tmp_path: Path) -> None:
    (tmp_path / "compare.yaml").write_text("steps: 2\nmodel: own_parts:make_model\n")
    command = ["compare", *folder, "--config", str(tmp_path / "compare.yaml"), "--out", str(tmp_path / "runs")]
    assert main([*command, "--recipes", "plain"]) == 0
    weights = tmp_path / "runs" / "plain-seed0" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert main([*command, "--recipes", "plain,mdprop", "--set", "mt_targets=2", "--resume"]) == 0
    assert weights.stat().st_mtime_ns == before
    assert described(tmp_path / "runs" / "mdprop-seed0")["recipe_config"]["mt_targets"] == 2


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("epss: 1", [], "run.yaml': unknown key 'epss', did you mean 'eps'?"),
        ("eps: big", [], "run.yaml': eps: expected a number, got 'big'"),
        ("eps: 8", [], "run.yaml': eps: expected a number from 0 to 1, got 8.0"),
        ("steps: 3.5", [], "run.yaml': steps: expected an integer, got 3.5"),
        ("steps: [3]", [], "run.yaml': steps: expected an integer, got [3]"),
        ("eps: [", [], "run.yaml' is not YAML"),
        ("data: {name: digits, trian: x}", [], "data: unknown key 'trian', did you mean 'train'?"),
        ("data: {nam: digits}", [], "run.yaml': data: unknown key 'nam', did you mean 'name'?"),
        ("data: {path: x}", [], "data: unknown key 'path': expected one of channels, image_size, name, test, train"),
        ("data: {train: x}", [], "data: expected --data NAME"),
        ("data: {name: 3}", [], "under 'data' in the --config file, got 3"),
        ("lr: 0.1", [], "run.yaml': unknown key 'lr', did you mean 'learning_rate'?"),
        ("device: cpu", [], "run.yaml': 'device' is an option of the command: --device"),
        ("", ["--set", "seed=3"], "set: 'seed' is an option of the command: --seed"),
        ("", ["--set", "out=x"], "set: 'out' is an option of the command: --out"),
        ("", ["--set", "train=x"], "set: 'train' is an option of the command: --train"),
        ("", ["--set", "image_size=16"], "set: 'image_size' is an option of the command: --image-size"),
        ("recipe: mdprob", [], "no recipe 'mdprob', did you mean 'mdprop'?"),
        ("", ["--device", "tpu"], "device: expected one of auto, cpu, cuda, got 'tpu'"),
        ("", ["--set", "model=nowhere_at_all:make"], "model: no module 'nowhere_at_all'"),
        ("", ["--set", "criterion=arcfase"], "did you mean 'arcface'?"),
    ],
)
def test_wrong_options(
    content: str, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(content)
    recipe = [] if "recipe" in content else ["--recipe", "mdprop"]
    data = [] if "data" in content else ["--data", "digits"]
    out = tmp_path / "out"
    command = ["train", *recipe, *data, "--config", str(tmp_path / "run.yaml"), *arguments, "--out", str(out)]
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not out.exists()


def test_keys_of_images_that_are_replaced_do_not_matter(images: Path, folder: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("recipe: plain\ndata: {origin: a script}\n")
    command = ["train", *folder, "--config", str(tmp_path / "run.yaml"), *SHORT]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits"], "recipe: expected --recipe NAME, or 'recipe' in the --config file, got none"),
        (["--recipe", "plain"], "data: expected --data NAME, or a name under 'data' in the --config file, got none"),
        (["--resume"], "since there is no run to resume in"),
    ],
)
def test_missing_options(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
