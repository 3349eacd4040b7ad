from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from page_checks import Page
from recipe_cases import fake_metrics

from mdprop_ext.info import collect
from mdprop_ext.report import Report, plot_robustness, plot_training, write_report
from mdprop_ext.report.run_files import RunFiles

HISTORY = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "val_recall_at_1": 0.75}]
NASTY = "<img src=x onerror=alert(1)>&\"'"


def attack_summary() -> dict[str, Any]:
    return {
        "recipe": "mdprop",
        "seed": 0,
        "images": 12,
        "gallery": 30,
        "eps_255": 16.0,
        "steps": 5,
        "branch": "main",
        "attacks": {"mt5": {"targets": 5, "recall_at_1": 0.25, "largest_change_255": 16}},
        "clean": {"recall_at_1": 0.75},
    }


def provenance(command: str = "train", **arguments: Any) -> dict[str, Any]:
    return {"command": command, "arguments": arguments, "environment": collect()}


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``mdprop train`` leaves it."""
    folder = tmp_path_factory.mktemp("finished")
    metrics = fake_metrics(branches=("main", "worst"))
    config = {"recipe": "plain", "recipe_config": {"eps": 0.0625}, "data": {"name": "folder", "train": NASTY}}
    write(folder, metrics=metrics, config=config, provenance=provenance(recipe="plain", data={"train": NASTY}))
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in HISTORY))
    plot_training({"plain": HISTORY}, folder / "training.png")
    plot_robustness({"plain": metrics}, folder / "robustness.png")
    return folder


def write(folder: Path, **contents: Any) -> None:
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def page_of(folder: Path) -> tuple[Page, str]:
    html = write_report(folder).read_text()
    page = Page(html)
    page.assert_self_contained(html)
    return page, html


def test_one_file_that_loads_nothing_and_has_both_schemes(run: Path):
    before = {path.name for path in run.iterdir()}
    page, html = page_of(run)
    assert {path.name for path in run.iterdir()} - before == {"report.html"}
    assert len(page.pictures()) == 2
    assert "@media (prefers-color-scheme: dark)" in html
    assert "color-scheme: light dark" in html
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert page.texts["h1"] == ["Training: plain, seed 0"]
    assert page.texts["h2"] == ["Clean images", "Under attack", "Training", "Configuration", "Environment"]


def test_numbers_with_their_protocol(run: Path):
    page, _ = page_of(run)
    cells, names = page.texts["td"], page.texts["th"]
    assert "90.0 %" in cells
    assert "30.0 %" in cells
    assert "-45.0" in cells  # 90 % clean, 45 % under the protocol
    assert {"eps 4/255", "eps 8/255", "ST", "MT5"} <= set(names)
    assert "75.0 %, at step 2" in cells
    assert "0.0625" in cells
    texts = " ".join(page.texts["p"])
    assert "each image's own clean version left out" in texts
    assert "5 steps of 2.5 eps/5" in texts


def test_what_users_wrote_is_text(run: Path):
    page, _ = page_of(run)
    assert page.texts["td"].count(NASTY) == 2
    assert all((attributes["src"] or "").startswith("data:") for attributes in page.all("img"))


def test_the_same_files_give_the_same_report(run: Path):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_without_plots_one_line_says_what_is_missing(run: Path):
    for name in ("training.png", "robustness.png"):
        (run / name).unlink()
    page, _ = page_of(run)
    assert not page.all("img")
    (line,) = [text for text in page.texts["p"] if "matplotlib" in text]
    assert "pip install 'mdprop_ext[plot]'" in line
    assert "90.0 %" in page.texts["td"]


def test_a_comparison(tmp_path: Path):
    write(tmp_path, comparison={"plain": [fake_metrics(0.8)], "mdprop": [fake_metrics(0.9), fake_metrics(0.86)]})
    for name, radius in (("plain", None), ("mdprop", 0.125)):
        (tmp_path / f"{name}-seed0").mkdir()
        write(tmp_path / f"{name}-seed0", config={"recipe_config": {} if radius is None else {"eps": radius}})
    page, _ = page_of(tmp_path)
    assert page.texts["h1"] == ["Comparison: plain, mdprop"]
    assert "88.0 ± 2.8 (+8.0)" in page.texts["td"]
    assert {"-", "0.125"} <= set(page.texts["td"])
    assert "It was not recorded." in page.texts["p"]


def test_an_attack(tmp_path: Path):
    write(tmp_path, attack=attack_summary(), provenance=provenance("attack", checkpoint="runs/a"))
    page, _ = page_of(tmp_path)
    assert page.texts["h1"] == ["Attack: mdprop, seed 0"]
    assert page.texts["td"][:6] == ["75.0 %", "-", "0", "25.0 %", "-50.0", "16"]
    assert any("12 test images against a clean gallery of 30" in text for text in page.texts["p"])
    assert "mdprop attack" in page.texts["caption"]


def test_an_unfinished_line_of_the_log_is_left_out(run: Path):
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert "2" in page_of(run)[0].texts["td"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", "{", "metrics.json' is damaged or incomplete"),
        ("metrics.json", "[]", "expected an object in the file"),
        ("metrics.json", '{"recipe": "plain"}', "are damaged or of another version"),
        ("log.jsonl", "no json\n", "log.jsonl' is damaged"),
        ("config.json", "\0", "config.json' is damaged"),
    ],
)
def test_damaged_files_leave_the_old_report(run: Path, name: str, content: str, message: str):
    before = write_report(run).read_bytes()
    (run / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_a_folder_without_results(tmp_path: Path):
    with pytest.raises(ValueError, match=r"report: expected one of metrics\.json, comparison\.json, attack\.json in"):
        write_report(tmp_path)
    assert not any(tmp_path.iterdir())


def test_in_a_notebook(run: Path, tmp_path: Path):
    assert repr(RunFiles.read(run)) == f"RunFiles('{run}': metrics)"
    report = Report.of(run)
    assert repr(report).startswith("Report('Training: plain, seed 0', ")
    (frame,) = Page(report._repr_html_()).all("iframe")
    assert frame["srcdoc"] == report.html
    report.save(tmp_path / "copy.html")
    assert (tmp_path / "copy.html").read_text() == report.html
