"""Examples and the Python code of the documents run and give what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mdprop_ext.recipes import RECIPES, MDPropConfig, TrainConfig, apply_settings

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README.md",
    "docs/guides/attacks.md",
    "docs/guides/batch_norm.md",
    "docs/guides/data.md",
    "docs/guides/distributed.md",
    "docs/guides/losses.md",
    "docs/guides/metrics.md",
    "docs/guides/migrate_from_pytorch_metric_learning.md",
    "docs/guides/train.md",
    "docs/guides/write_a_recipe.md",
    "docs/guides/write_an_objective.md",
    "docs/guides/reports.md",
    "docs/ops/hamming_topk.md",
    "docs/ops/knn_topk.md",
    "docs/ops/multi_batch_norm.md",
    "docs/ops/pgd_step.md",
    "docs/recipes/mdprop.md",
    "docs/guides/add_an_op.md",
    "docs/guides/migrate_from_timm.md",
    "docs/guides/migrate_from_torchattacks.md",
)


def output_of(example: str, folder: Path) -> str:
    """What an example prints when it is started in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / example)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert not list(folder.iterdir()), "an example left files behind"
    return run.stdout


def percentages(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) %", line)]


def test_adversarial_training(tmp_path):
    pytest.importorskip("sklearn")
    lines = output_of("adversarial_training.py", tmp_path).splitlines()
    assert [line.split()[1] for line in lines] == ["clean", "adv"]
    for line in lines:
        clean, attacked = percentages(line)
        assert clean > 90
        assert 50 < attacked < clean


def test_attack_embeddings(tmp_path):
    pytest.importorskip("sklearn")
    clean, single, multi = (percentages(line) for line in output_of("attack_embeddings.py", tmp_path).splitlines())
    assert clean[0] > 60
    for attacked in (single, multi):
        assert attacked[0] < clean[0] - 15
        assert attacked[1] < clean[1]


def test_nearest_neighbours(tmp_path):
    neighbours, gradient, hamming, _ = output_of("nearest_neighbours.py", tmp_path).splitlines()
    assert neighbours.endswith("True")
    assert gradient.endswith("True")
    assert percentages(hamming)[0] > 90


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_stay_short(example):
    assert len((ROOT / "examples" / example).read_text().splitlines()) < 60


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_of_documents_runs(document):
    if "pytorch_metric_learning" in document:
        pytest.importorskip("pytorch_metric_learning")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, document, "exec"), names)
    results = [value for value in names.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    assert results
    assert all(bool(value.isfinite().all()) for value in results)


def documented_keys(text: str) -> dict[str, str]:
    """The defaults by key that tables of the form ``| `key` | `default` |`` have."""
    return dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))


def test_documented_defaults_of_mdprop_are_the_defaults():
    documented = documented_keys((ROOT / "docs/recipes/mdprop.md").read_text())
    assert set(documented) == set(vars(MDPropConfig()))
    assert apply_settings([MDPropConfig()], [f"{key}={value}" for key, value in documented.items()]) == (
        MDPropConfig(),
    )


def test_every_key_of_every_recipe_is_documented_with_its_default():
    text = (ROOT / "docs/guides/train.md").read_text()
    sections = dict(re.findall(r"^### Keys of (.*?)\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE))
    configs = {f"`{name}`": recipe.config_class() for name, recipe in RECIPES.items()}
    assert set(sections) == {"every recipe", *configs}
    for title, config in {"every recipe": TrainConfig(), **configs}.items():
        documented = documented_keys(sections[title])
        assert set(documented) == set(vars(config)), title
        assert apply_settings([config], [f"{key}={value}" for key, value in documented.items()]) == (config,), title


def test_links_of_documents_lead_somewhere():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "csrc/README.md", ROOT / "benchmarks/README.md"]
    for path in documents:
        prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#:]+)\)", prose):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_the_readme_links_every_guide():
    linked = set(re.findall(r"\]\((docs/guides/[^)#]+\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/guides/*.md")}
