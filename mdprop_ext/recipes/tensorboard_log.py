"""The history of a run as event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mdprop_ext._optional import require
from mdprop_ext.recipes.trainer import Record

FOLDER = "tensorboard"
_NOT_CURVES = ("step", "steps", "seconds")


class TensorBoardLog:
    """Writes every value of a record as a scalar: ``train/loss``, ``train/learning_rate``, ``val/recall_at_1``, ...

    Args:
        folder: Of the run; event files go to ``tensorboard`` in it.
        history: Records of the steps that are done. TensorBoard drops what an earlier process wrote and shows these in
            its place, so that the curves of a resumed run have neither gaps nor steps done twice.

    Raises:
        ImportError: If tensorboard is not installed.
    """

    def __init__(self, folder: Path, history: Iterable[Record] = ()) -> None:
        require("tensorboard", extra="log")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=0)
        for record in history:
            self.add(record)

    def add(self, record: Record) -> None:
        """Adds the values of a step."""
        for name, value in record.items():
            if name not in _NOT_CURVES:
                self._writer.add_scalar(_tag(name), value, int(record["step"]))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def _tag(name: str) -> str:
    return f"val/{name.replace('val_', '', 1)}" if "val_" in name else f"train/{name}"
