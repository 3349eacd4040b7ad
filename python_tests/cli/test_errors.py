from __future__ import annotations

from pathlib import Path

import pytest
from image_files import write_classes, write_image
from recipe_cases import write_folder

from mdprop_ext.cli import main

PLACE = Path(__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "good")


def outcome(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Status and the one line on standard error."""
    status = main(arguments)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mdprop: ")
    assert printed.err.count("\n") == 1, printed.err
    assert "Traceback" not in printed.err
    return status, printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "mdprp"], "no recipe 'mdprp', did you mean 'mdprop'?"),
        (["--set", "epss=1"], "unknown key 'epss', did you mean 'eps'?"),
        (["--set", "eps=much"], "eps: expected a number, got 'much'"),
        (
            ["--recipe", "plain", "--set", "eps=8/255"],
            "no key 'eps', it is one of mdprop, mdprop_shared, advprop_st, mdprop",
        ),
        (["--set", "eps"], "expected key=value, got 'eps'"),
        (["--epochs", "-1"], "epochs: expected at least 1, got -1"),
        (["--epochs", "0"], "epochs: expected at least 1, got 0"),
        (["--seed", "-1"], "seed: expected an integer from 0 to 2^63 - 1, got -1"),
        (["--seed", "9" * 30], "seed: expected an integer from 0 to 2^63 - 1"),
        (["--set", "embedding_dim=1000000000000"], "not enough memory"),
        (["--data", "cifar"], "data: expected one of digits, omniglot, folder, got 'cifar'"),
        (["--data", "digits"], "the digits come without a path"),
        (["--train", "/nowhere"], "no such file or folder: '/nowhere'"),
        (["--image-size", "0"], "image_size: expected at least 1 pixel, got 0"),
        (["--image-size", "8"], "image_size: expected at least 16 pixels for model conv4, got 8"),
        (["--set", "eps=8"], "eps: expected a number from 0 to 1, got 8.0: write 8/255 for 8 levels"),
        (["--set", "model=own_parts:make_linear"], "model: Sequential has no batch norm to convert"),
        (["--channels", "2"], "channels: expected 1 (greyscale) or 3 (RGB), got 2"),
    ],
)
def test_training_with_bad_arguments(
    arguments: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ["--recipe", "mdprop", "--data", "folder", "--train", str(data), "--image-size", "16"]
    out = tmp_path / "out"
    status, printed = outcome(["train", *good, "--out", str(out), *arguments], capsys)
    assert status == 1
    assert message in printed
    assert not out.exists()


def test_a_misspelt_key_of_a_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "typo.yaml").write_text(f"reciep: mdprop\ndata: {{name: folder, train: '{data}'}}\n")
    options = ["--recipe", "plain", "--config", str(tmp_path / "typo.yaml"), "--out", str(tmp_path / "out")]
    assert "unknown key 'reciep', did you mean 'recipe'?" in outcome(["train", *options], capsys)[1]


def test_bad_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    write_classes(tmp_path / "few", ["a", "b", "c"])
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 not really")
    write_folder(tmp_path / "damaged")
    (tmp_path / "damaged" / "class0" / "00.png").write_bytes(b"\x89PNG but no more")
    write_image(tmp_path / "flat" / "0.png")
    messages = {
        "empty": "found no images",
        "few": "expected at least 2 classes",
        "broken.zip": "is damaged or incomplete",
        "damaged": "the image 'class0/00.png'",
        "flat": "expected images in one folder a class",
    }
    for name, message in messages.items():
        arguments = ["--recipe", "plain", "--data", "folder", "--train", str(tmp_path / name)]
        status, printed = outcome(["train", *arguments, "--out", str(tmp_path / "out")], capsys)
        assert status == 1
        assert message in printed
        assert not (tmp_path / "out").exists()


def test_a_file_as_output_folder(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    for command in (["train", "--recipe", "plain"], ["compare"]):
        arguments = [*command, "--data", "folder", "--train", str(data), "--out", str(tmp_path / "file")]
        status, printed = outcome(arguments, capsys)
        assert status == 1
        assert "out: expected a folder" in printed
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs the process file system of Linux")
def test_an_output_folder_that_cannot_be_made(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before any work: not even the checkpoint is looked for."""
    images, checkpoint = ["--data", "folder", "--train", str(data)], ["--checkpoint", str(tmp_path / "nowhere")]
    for command in (
        ["train", "--recipe", "plain", *images],
        ["compare", *images],
        ["eval", *checkpoint],
        ["attack", *checkpoint],
    ):
        status, printed = outcome([*command, "--out", "/proc/run"], capsys)
        assert status == 1
        assert "out: expected a folder to write in, but '/proc' takes no files" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "/nowhere"], "checkpoint: no file 'config.json' in '/nowhere'"),
        (["--checkpoint", "/nowhere", "--attacks", "st,fgsm"], "attacks: expected st, pgd or mt"),
        (["--checkpoint", "/nowhere", "--attacks", ","], "attacks: expected values separated by commas, got ','"),
        (["--checkpoint", __file__], f"expected a folder, got the file '{__file__}': give its folder '{PLACE}'"),
        (["--checkpoint", "/nowhere", "--eps", "4,x"], "eps: expected radii in 1/255 such as 8 or 8/255, got 'x'"),
        (["--checkpoint", "/nowhere", "--eps", "8/0"], "eps: expected radii in 1/255 such as 8 or 8/255, got '8/0'"),
        (["--checkpoint", "/nowhere", "--eps", "-4"], "eps: expected a radius from 0 to 255, in 1/255, got -4"),
        (["--checkpoint", "/nowhere", "--eps", "8,0.03"], "got 0.03: write 8 for 8/255"),
        (["--checkpoint", "/nowhere", "--steps", "-1"], "steps: expected at least 0, got -1"),
        (["--checkpoint", "/nowhere", "--steps", "5,x"], "steps: expected values separated by commas, got '5,x'"),
        (["--checkpoint", "/nowhere", "--test", "x"], "data: expected one of digits, omniglot, folder"),
    ],
)
def test_evaluation_with_bad_arguments(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed = outcome(["eval", *arguments, "--out", str(tmp_path / "out")], capsys)
    assert status == 1
    assert message in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes", "plain,mdprp"], "no recipe 'mdprp'"),
        (["--recipes", ","], "recipes: expected values separated by commas"),
        (["--seeds", "0"], "seeds: expected at least 1, got 0"),
        (["--set", "mt_target=2"], "unknown key 'mt_target', did you mean 'mt_targets'?"),
        (["--set", "epz=1"], "unknown key 'epz', did you mean 'eps'?"),
        (["--recipes", "plain", "--set", "eps=1"], "set: the recipe has no key 'eps', it is one of mdprop"),
        (["--set", "mt_targets=0"], "mt_targets: expected at least 1, got 0"),
        (["--set", "seeds=2"], "set: 'seeds' is an option of the command: --seeds"),
        (["--set", "tensorboard=true"], "unknown key 'tensorboard': expected one of accumulate, "),
    ],
)
def test_comparison_with_bad_arguments(
    arguments: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "--data", "folder", "--train", str(data), "--out", str(tmp_path / "out"), *arguments]
    status, printed = outcome(command, capsys)
    assert status == 1
    assert message in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        ([], "Missing command"),
        (["train", "--recipe", "plain", "--data", "digits"], "Missing option '--out'"),
        (["train", "--colour", "red"], "No such option: --colour"),
        (["recipes", "extra"], "unexpected extra argument"),
        (["train", "--seed", "one"], "'--seed'"),
    ],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = outcome(arguments, capsys)
    assert status == 2
    assert message in printed


def training_that_raises(error: str, data: Path, folder: Path) -> list[str]:
    """Arguments to train a model, found in ``folder``, whose factory raises."""
    options = "*, in_channels, embedding_dim, image_size"
    (folder / f"raises_{error}.py").write_text(f"def make({options}):\n    raise {error}('deep inside')\n")
    arguments = ["train", "--recipe", "plain", "--data", "folder", "--train", str(data), "--image-size", "16"]
    return [*arguments, "--set", f"model=raises_{error}:make", "--out", str(folder / "run")]


def test_faults_of_a_program_show_where_they_are(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the user's mistake is not put into a sentence."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="deep inside"):
        main(training_that_raises("RuntimeError", data, tmp_path))


def test_a_lack_of_memory_is_one_sentence(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcome(training_that_raises("MemoryError", data, tmp_path), capsys) == (
        1,
        "mdprop: error: not enough memory for images, embeddings or batches of this size\n",
    )
