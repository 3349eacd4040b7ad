"""An attack over a whole loader, which an interrupt does not send back to the start."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdprop_ext._arguments import check_seed
from mdprop_ext._files import check_output_folder, remove_leftovers, write_bytes, write_json
from mdprop_ext._optional import require
from mdprop_ext.attacks.attack import Attack
from mdprop_ext.attacks.batches import unpack_batch
from mdprop_ext.attacks.description import digest, short
from mdprop_ext.attacks.model_state import child_seed
from mdprop_ext.attacks.result import AttackResult
from mdprop_ext.attacks.rows import map_tensors

_FORMAT = 1
_SETTINGS = "settings.json"


@dataclass(frozen=True, repr=False)
class AttackedBatch:
    """One batch of a loader after the attack, on the CPU.

    Args:
        index: Its number in the loader, from 0.
        y: What came with the images.
        result: What the attack found.
    """

    index: int
    y: Any
    result: AttackResult

    def __repr__(self) -> str:
        y = short(self.y) if self.y is None or isinstance(self.y, Tensor) else type(self.y).__name__
        return f"AttackedBatch(index={self.index}, y={y}, result={self.result})"


def attack_loader(
    attack: Attack,
    loader: Iterable[Any],
    *,
    out: str | Path | None = None,
    seed: int = 0,
    unpack: Callable[[Any], tuple[Tensor, Any]] = unpack_batch,
    progress: bool = False,
) -> Iterator[AttackedBatch]:
    """Attacks the batches of a loader one by one, and keeps those that are finished in a folder.

    Nothing runs before the first result is asked for; a loop over the results needs memory for one batch. The same call
    after an interrupt or a kill goes on where it stopped: finished batches are read from ``out`` instead of attacked
    again, and all results are those of an uninterrupted run bit for bit, since each batch is attacked with a seed that
    depends on ``seed`` and its number alone.

    Args:
        attack: What to do with each batch; its generator is not used.
        loader: Batches in the same order each time; their tensors are brought to the device of the model.
        out: Folder for the results, made if it is missing: ``settings.json`` and one file a batch, each written all at
            once. None keeps nothing.
        seed: Of all random numbers, an int64 >= 0.
        unpack: ``batch -> (images, labels)``; the default knows the usual forms, see :func:`unpack_batch`.
        progress: Whether to show a bar on standard error, which needs the extra ``cli``.

    Yields:
        The batches in order, on the CPU.

    Raises:
        ImportError: If ``progress`` is asked for and rich is not installed.
        TypeError: If ``attack`` is not an attack.
        ValueError: If ``out`` holds results of other settings, weights or seed, or of other batches, or something that
            is not a result; if a batch has no labels where the attack needs them; if ``bn_mode`` is ``"train"``, where
            a result depends on the batches before it.

    Example:
        >>> for batch in attack_loader(PGD(model), loader, out="runs/pgd"):
        ...     print(batch.index, batch.result)
    """
    if not isinstance(attack, Attack):
        raise TypeError(f"attack: expected an attack such as PGD(model), got {type(attack).__name__}")
    check_seed(seed)
    if attack.options.bn_mode == "train":
        raise ValueError(
            "attack: expected bn_mode 'running' or 'batch', got 'train', which changes from batch to batch"
        )
    if progress:
        require("rich.progress", extra="cli")
    store = None if out is None else _Store(Path(out), {"format": _FORMAT, "seed": seed, **attack.settings()})
    return _attacked(attack, loader, store, seed, unpack, progress)


def _attacked(
    attack: Attack,
    loader: Iterable[Any],
    store: _Store | None,
    seed: int,
    unpack: Callable[[Any], tuple[Tensor, Any]],
    progress: bool,
) -> Iterator[AttackedBatch]:
    parameter = next(attack.model.parameters(), None)
    for index, batch in enumerate(_shown(loader) if progress else loader):
        x, y = _to_device(unpack(batch), torch.device("cpu"))
        done = None if store is None else store.read(index, x, y)
        if done is None:
            near_x, near_y = (x, y) if parameter is None else _to_device((x, y), parameter.device)
            result = attack.run(near_x, near_y, seed=child_seed(seed, index))
            done = AttackedBatch(index, y, AttackResult(**_to_device(vars(result), torch.device("cpu"))))
            if store is not None:
                store.write(done, x)
        yield done


def _to_device(values: Any, device: torch.device) -> Any:
    return map_tensors(lambda tensor: tensor.to(device), values)


def _shown(loader: Iterable[Any]) -> Iterable[Any]:
    console = require("rich.console", extra="cli").Console(stderr=True)
    track = require("rich.progress", extra="cli").track
    total = len(loader) if isinstance(loader, Sized) else None
    shown: Iterable[Any] = track(loader, description="attack", total=total, console=console)
    return shown


class _Store:
    """The folder of one run: its settings, and a file for each finished batch."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        check_output_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self._folder = folder
        path = folder / _SETTINGS
        if not path.exists():
            if any(folder.glob("batch-*.pt")):
                raise ValueError(f"out: expected '{folder}' to be empty or to hold '{_SETTINGS}', got batches alone")
            write_json(path, settings)
            return
        try:
            found = json.loads(path.read_bytes())
        except ValueError:
            raise ValueError(f"out: the file '{path}' is damaged; remove the folder to start anew") from None
        expected = json.loads(json.dumps(settings))
        if found != expected:
            other = [name for name in expected | found if expected.get(name) != found.get(name)]
            raise ValueError(
                f"out: '{folder}' holds results of another {', '.join(other)}; give another folder, or remove it"
            )

    def read(self, index: int, x: Tensor, y: Any) -> AttackedBatch | None:
        """The result of batch number ``index``, None if it is not finished."""
        path = self._path(index)
        if not path.exists():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            batch = AttackedBatch(index, content["y"], AttackResult(**content["result"]))
            attacked = content["batch"]
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
            raise ValueError(f"out: the file '{path}' is damaged; remove it to attack that batch again") from error
        if attacked != digest((x, y)):
            raise ValueError(f"loader: batch {index} is not the one that was attacked for '{path}'; does it shuffle?")
        return batch

    def write(self, batch: AttackedBatch, x: Tensor) -> None:
        """Keeps a finished batch, the attacked ``x``.

        Raises:
            TypeError: If the labels hold something that cannot be read again without running code from the file.
        """
        labels = io.BytesIO()
        torch.save(batch.y, labels)
        labels.seek(0)
        try:
            torch.load(labels, weights_only=True)
        except pickle.UnpicklingError:
            raise TypeError(
                "loader: out= keeps labels of tensors, numbers and text, in tuples, lists and dicts, got "
                f"{type(batch.y).__name__}; make tensors of arrays by unpack="
            ) from None
        content = {"batch": digest((x, batch.y)), "y": batch.y, "result": vars(batch.result)}
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_bytes(self._path(batch.index), buffer.getvalue())

    def _path(self, index: int) -> Path:
        return self._folder / f"batch-{index:06d}.pt"
