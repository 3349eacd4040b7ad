"""What a folder of results holds, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdprop_ext.recipes.registry import run_folder_name
from mdprop_ext.recipes.trainer import Record

#: Pictures that commands write, in the order of the report.
PICTURES = ("training.png", "robustness.png", "grid.png", "neighbours.png", "embeddings.png")
_RESULTS = ("metrics", "comparison", "attack")


@dataclass(frozen=True, eq=False, repr=False)
class RunFiles:
    """The files of one folder; None, or empty, where a command does not write them.

    Args:
        folder: Where they lie.
        metrics: ``metrics.json`` of ``train`` and ``eval``.
        comparison: ``comparison.json`` of ``compare``.
        attack: ``attack.json`` of ``attack``.
        provenance: ``provenance.json`` of all of them.
        configurations: ``config.json`` by run: of the folder itself, or of the first run of each recipe.
        history: Lines of ``log.jsonl``.
        pictures: Contents of the PNG files by name.
    """

    folder: Path
    metrics: Mapping[str, Any] | None
    comparison: Mapping[str, Any] | None
    attack: Mapping[str, Any] | None
    provenance: Mapping[str, Any] | None
    configurations: Mapping[str, Mapping[str, Any]]
    history: Sequence[Record]
    pictures: Mapping[str, bytes]

    def __repr__(self) -> str:
        """Returns the folder and which of the results it holds."""
        results = {"metrics": self.metrics, "comparison": self.comparison, "attack": self.attack}
        held = ", ".join(name for name, content in results.items() if content is not None)
        return f"RunFiles('{self.folder}': {held})"

    @classmethod
    def read(cls, folder: str | Path) -> RunFiles:
        """Reads a folder that a command wrote.

        Args:
            folder: The folder.

        Raises:
            ValueError: If it holds no results, or a file in it is damaged.
        """
        folder = Path(folder)
        metrics, comparison, attack = (_read_json(folder / f"{name}.json") for name in _RESULTS)
        if metrics is None and comparison is None and attack is None:
            expected = ", ".join(f"{name}.json" for name in _RESULTS)
            raise ValueError(f"report: expected one of {expected} in '{folder}', got none")
        runs = {name: folder / run_folder_name(name, 0) for name in comparison or ()}
        places = runs or {"this run": folder}
        configurations = {name: _read_json(place / "config.json") for name, place in places.items()}
        return cls(
            folder=folder,
            metrics=metrics,
            comparison=comparison,
            attack=attack,
            provenance=_read_json(folder / "provenance.json"),
            configurations={name: content for name, content in configurations.items() if content is not None},
            history=_read_lines(folder / "log.jsonl"),
            pictures={name: (folder / name).read_bytes() for name in PICTURES if (folder / name).is_file()},
        )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"report: the file '{path}' is damaged or incomplete") from None
    if not isinstance(content, dict):
        raise ValueError(f"report: expected an object in the file '{path}', got {type(content).__name__}")
    return content


def _read_lines(path: Path) -> list[Record]:
    """Reads JSON lines; what an interrupt left behind the last whole one is not one."""
    if not path.is_file():
        return []
    *lines, _ = path.read_text().split("\n")
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError:
        raise ValueError(f"report: the file '{path}' is damaged") from None
