"""One live run at a time in a folder."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Keeps other runs out of a folder for as long as the block runs; the system lets go of it when the process dies.

    The folder itself is locked, so nothing is left in it. Systems that cannot lock folders go without.

    Args:
        folder: Need not be there yet; :meth:`take` is called again once it is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def take(self) -> None:
        """Locks the folder if it is there and not locked by this object yet.

        Raises:
            ValueError: If another run has locked it.
        """
        if fcntl is None or self._descriptor is not None or not self._folder.is_dir():
            return
        self._descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ValueError(f"out: expected a folder that no run is writing to, got '{self._folder}'") from None
        except OSError:
            self.release()

    def release(self) -> None:
        """Lets other runs in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FolderLock:
        self.take()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
