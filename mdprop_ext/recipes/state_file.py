"""The state of an unfinished run, in one file that is either the old or the new one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdprop_ext._files import write_bytes
from mdprop_ext._optional import require
from mdprop_ext.recipes._state import StateTree, joined_tree, split_tree
from mdprop_ext.recipes.checkpoint import Checkpoint, describe, parse_description, storable

STATE_FILE = "training_state.safetensors"


def write_state(folder: Path, description: Checkpoint, state: StateTree) -> None:
    """Writes the state of a run: its tensors, and everything else as JSON in the header of the file.

    Args:
        folder: An existing folder; the file of an earlier state is replaced.
        description: What is trained.
        state: Nested dictionaries of tensors and plain values.

    Raises:
        ImportError: If safetensors is not installed.
        TypeError: If something in the state cannot be written.
    """
    safetensors = require("safetensors.torch", extra="cli")
    skeleton, tensors = split_tree(state)
    header = {"run": json.dumps(describe(description)), "state": json.dumps(skeleton)}
    content = safetensors.save({name: storable(tensor) for name, tensor in tensors.items()}, header)
    write_bytes(folder / STATE_FILE, content)


def read_state(folder: Path) -> StateTree:
    """Reads the state that :func:`write_state` wrote, its tensors on the CPU.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If the file is damaged.
    """
    with _opened(folder) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        state: StateTree = joined_tree(json.loads(file.metadata()["state"]), tensors)
        return state


def read_state_description(folder: Path) -> Checkpoint:
    """Reads what is trained, without the tensors; raises as :func:`read_state` does."""
    with _opened(folder) as file:
        return parse_description(json.loads(file.metadata()["run"]))


@contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    path = folder / STATE_FILE
    package = require("safetensors", extra="cli")
    try:
        with package.safe_open(path, framework="pt") as file:
            yield file
    except (package.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"resume: the file '{path}' is damaged or of another version ({error})") from error
