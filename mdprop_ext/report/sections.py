"""The parts of the report, each from the files that it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mdprop_ext._words import counted
from mdprop_ext.report.comparison import comparison_table
from mdprop_ext.report.html import NOTHING, Html, disclosure, facts, figure, join, paragraph, section, table
from mdprop_ext.report.robustness import attack_title

_MEASURES = {
    "recall_at_1": ("Recall@1", "share of images whose nearest other image has their class"),
    "recall_at_2": ("Recall@2", "with such an image among the 2 nearest"),
    "recall_at_4": ("Recall@4", "among the 4 nearest"),
    "recall_at_8": ("Recall@8", "among the 8 nearest"),
    "map_at_r": ("mAP@R", "mean precision down to as many neighbours as the class has other images"),
    "pi_ratio": ("pi ratio", "mean cosine distance within classes over that between class means"),
    "spectral_decay": ("spectral decay", "KL divergence of equal singular values from those of the embeddings"),
}
_SHARES = ("recall", "map")
_CLEAN_PROTOCOL = (
    "Images of classes that took no part in training or in the choice of the model; each is a query against all others."
)
_ATTACK_PROTOCOL = (
    "Attacked queries search the clean gallery, each image's own clean version left out; targets are images of other "
    "classes; random start in the linf ball of radius eps, n steps of 2.5 eps/n, running statistics. The fixed "
    "protocol, the same for every run: eps 16/255, 5 steps of 2.5 eps/5, through branch main."
)
_GRID_PROTOCOL = (
    "By attack, number of steps and radius. Branch worst, where it is listed, is an attacker who picks the "
    "best branch for each image."
)
_ROUNDING = (
    "Measured again from the written 8-bit images. Changes are rounded towards the clean image, so that the written "
    "images are in the ball too."
)


def clean_section(metrics: Mapping[str, Any]) -> Html:
    """Retrieval of clean test images, from ``metrics.json``."""
    rows = []
    for name, value in metrics["test"].items():
        label, meaning = _MEASURES.get(name, (name, ""))
        rows.append((label, _percent(value) if name.startswith(_SHARES) else f"{value:.3f}", meaning))
    return section(
        "Clean images", paragraph(_CLEAN_PROTOCOL), table("Test images, clean", ("measure", "value", "meaning"), rows)
    )


def robust_section(metrics: Mapping[str, Any], pictures: Mapping[str, bytes], *, grid_first: bool = False) -> Html:
    """Retrieval under attack, from ``metrics.json``.

    Args:
        metrics: Its content.
        pictures: Contents of the PNG files by name.
        grid_first: Whether the grid is what was asked for, and so comes before the fixed protocol.
    """
    clean = metrics["test"]["recall_at_1"]
    rows = [("none", _percent(clean), NOTHING)]
    for attack, measured in metrics["robust"].items():
        recall = measured["recall_at_1"]
        rows.append((attack_title(attack), _percent(recall), f"{100 * (recall - clean):+.1f}"))
    header = ("attack", "Recall@1", "difference in points")
    protocol = table("The fixed protocol: Recall@1 at eps 16/255, 5 steps", header, rows)
    explained = paragraph(_ATTACK_PROTOCOL)
    grid = metrics["robust_grid"]
    title = "The attacks that were asked for" if grid_first else "More attacks"
    measured = join(
        paragraph(_GRID_PROTOCOL),
        _grid_table(f"{title}: Recall@1 by attack and radius", grid, clean),
        robustness_picture(pictures, worst=any(row["branch"] == "worst" for row in grid)),
    )
    return section("Under attack", explained, *((measured, protocol) if grid_first else (protocol, measured)))


def _grid_table(caption: str, grid: Sequence[Mapping[str, Any]], clean: float) -> Html:
    """One row for each attack, number of steps and branch; one column a radius."""
    radii = sorted({row["eps_255"] for row in grid})
    recalls = {(row["attack"], row["steps"], row["branch"], row["eps_255"]): row["recall_at_1"] for row in grid}
    rows = []
    for attack, steps, branch in dict.fromkeys(key[:3] for key in recalls):
        found = [recalls.get((attack, steps, branch, radius)) for radius in radii]
        cells = [NOTHING if recall is None else _percent(recall) for recall in found]
        rows.append((attack.upper(), str(steps), branch, _percent(clean), *cells))
    header = ("attack", "steps", "branch", "clean", *(f"eps {radius:g}/255" for radius in radii))
    return table(caption, header, rows)


def training_section(history: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]) -> Html:
    """The course of training, from ``log.jsonl``."""
    measured = [record for record in history if "val_recall_at_1" in record]
    values = {}
    if history:
        values = {"steps": f"{history[-1]['step']:g}", "last loss": f"{history[-1]['loss']:.4f}"}
    if measured:
        # The trainer's rule: of equal recalls the higher mAP@R, of equal ones the first.
        best = max(measured, key=lambda record: (record["val_recall_at_1"], record.get("val_map_at_r", 0.0)))
        values["best validation Recall@1"] = f"{_percent(best['val_recall_at_1'])}, at step {best['step']:g}"
    return section("Training", facts("The run", values), _picture(pictures, "training.png", _TRAINING_ALT, _TRAINING))


def comparison_section(comparison: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Html:
    """The table of recipes, from ``comparison.json``."""
    header, rows = comparison_table(comparison)
    runs = max(len(seeds) for seeds in comparison.values())
    spread = f"mean and standard deviation of {runs} seeds" if runs > 1 else "one seed"
    explained = (
        f"In percent, {spread}; in brackets the difference (clean) or the ratio (attacked) to {rows[0][0]}. "
        f"{_CLEAN_PROTOCOL}"
    )
    return join(
        section("Comparison", paragraph(explained), table("Unseen classes, in %", header, rows)),
        section("Under attack", paragraph(_ATTACK_PROTOCOL), robustness_picture(pictures)),
        training_section([], pictures),
    )


def attack_section(attack: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Html:
    """The attacked images, from ``attack.json``."""
    clean = attack["clean"]["recall_at_1"]
    rows = [("none", _percent(clean), NOTHING, "0")]
    for name, measured in attack["attacks"].items():
        recall = measured["recall_at_1"]
        lost, change = f"{100 * (recall - clean):+.1f}", str(measured["largest_change_255"])
        rows.append((attack_title(name), _percent(recall), lost, change))
    what = (
        f"{attack['images']} test images against a clean gallery of {attack['gallery']}, each image's own clean "
        f"version left out; linf eps {attack['eps_255']:g}/255, {counted(attack['steps'], 'step')}, branch "
        f"{attack['branch']}. {_ROUNDING}"
    )
    header = ("attack", "Recall@1", "difference in points", "largest change in 1/255")
    return section(
        "Attacked images",
        paragraph(what),
        table("Recall@1 of the written images", header, rows),
        _picture(pictures, "grid.png", "Clean images, magnified changes and attacked images, row by row.", _GRID),
        _picture(pictures, "neighbours.png", "Queries and the images nearest to them, clean and attacked.", _NEAREST),
        _picture(pictures, "embeddings.png", "Map of the embeddings, arrows from clean to attacked points.", _MAP),
    )


def robustness_picture(pictures: Mapping[str, bytes], *, worst: bool = False) -> Html:
    """The plot of R@1 against the attack's strength, where it was drawn."""
    alt = "Line plots of Recall@1 against radius and steps of each attack; the tables have the numbers."
    caption = f"{_ROBUSTNESS}; dashed lines are the worst branch." if worst else f"{_ROBUSTNESS}."
    return _picture(pictures, "robustness.png", alt, caption)


def configuration_section(
    configurations: Mapping[str, Mapping[str, Any]], provenance: Mapping[str, Any] | None
) -> Html:
    """What was run, from ``config.json`` and ``provenance.json``."""
    parts = []
    if provenance is not None:
        parts.append(facts(f"mdprop {provenance['command']}", given(provenance["arguments"])))
    described = {name: flattened(config) for name, config in configurations.items()}
    keys = list(dict.fromkeys(key for config in described.values() for key in config))
    rows = [(key, *(config.get(key, NOTHING) for config in described.values())) for key in keys]
    if rows:
        parts.append(disclosure("Every setting", table("Settings of training", ("setting", *described), rows)))
    return section("Configuration", *parts)


def environment_section(provenance: Mapping[str, Any] | None) -> Html:
    """Versions and devices, from ``provenance.json``."""
    if provenance is None:
        return section("Environment", paragraph("It was not recorded.", kind="quiet"))
    environment = dict(provenance["environment"])
    kernels = {name: ", ".join(devices) or "reference" for name, devices in environment.pop("ops", {}).items()}
    return section(
        "Environment",
        facts("Where it ran", given(environment)),
        disclosure("Compiled kernels", facts("Devices with a compiled kernel, by op", kernels)),
    )


def given(content: Mapping[str, Any]) -> dict[str, str]:
    """The flattened content without what is not there."""
    return {name: value for name, value in flattened(content).items() if value != NOTHING}


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested names and values as text, names joined by dots."""
    flat: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{name}"] = ", ".join(str(item) for item in value) or NOTHING
        elif isinstance(value, float):
            flat[f"{prefix}{name}"] = f"{value:.6g}"
        else:
            flat[f"{prefix}{name}"] = NOTHING if value is None else str(value)
    return flat


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _picture(pictures: Mapping[str, bytes], name: str, alt: str, caption: str) -> Html:
    return figure(pictures[name], alt=alt, caption=caption) if name in pictures else Html("")


_TRAINING_ALT = "Line plots of the training loss and of validation Recall@1 against the step."
_TRAINING = "Loss of each step (pale) with its running mean, and Recall@1 on validation classes, which chose the model."
_ROBUSTNESS = "Recall@1 against radius and, where several were measured, steps of each attack, clean at 0"
_GRID = "Clean images, their changes, magnified by the factor above them around the grey of none, and the results."
_NEAREST = (
    "Each query and its nearest clean images, before and after the attack. Queries that the attack leads astray come "
    "first, so the picture shows more of them than there are."
)
_MAP = (
    "Embeddings of the first classes: filled markers are clean images, hollow ones their attacked versions, drawn "
    "for a share of them."
)
