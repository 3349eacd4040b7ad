"""Whether a card is still as fast as the committed results of the same card say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST_DROP = 0.05  # of the floor's share: runs differ by less
LEAST_SHARE = 0.8  # of what was reached before, where that is a small share itself

Row = dict[str, Any]


def committed(results: Path, gpu: str | None) -> list[Row]:
    """The rows of a card by its name, from ``<results>/*/bench.json``; none where nobody measured it."""
    found: list[Row] = []
    for path in sorted(results.glob("*/bench.json")):
        content = json.loads(path.read_text())
        if content["machine"].get("gpu") == gpu:
            found += content["rows"]
    return found


def drops(rows: list[Row], known: list[Row]) -> list[str]:
    """The rows that reach less of their floor than they did."""
    before = {key_of(row): row["floor_fraction"] for row in known if row["floor_fraction"] is not None}
    lines = []
    for row in rows:
        old, new = before.get(key_of(row)), row["floor_fraction"]
        if old is not None and new is not None and (old - new > MOST_DROP or new < LEAST_SHARE * old):
            lines.append(f"{' '.join(key_of(row))}: {new:.2f} of the floor, the committed results say {old:.2f}")
    return lines


def key_of(row: Row) -> tuple[str, str, str]:
    """What tells the rows of a card apart."""
    return row["op"], row["case"], row["dtype"]
