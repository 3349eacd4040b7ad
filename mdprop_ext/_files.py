"""Files that are either old or new, never half written."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

_TEMPORARY = ".unfinished"


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file by way of a temporary one beside it, so that a reader never meets a part of it.

    Raises:
        OSError: If it cannot be written; the error names it, and an earlier one stays as it was.
    """
    try:
        _replace(path, data)
    except OSError as error:  # that of a full disk names no file, others name the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, all at once."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of writers that were killed; none may be at work in the folder."""
    for path in folder.glob(f".*.{'?' * 8}{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def check_output_folder(path: Path) -> None:
    """Raises unless ``path`` is a folder to write in, or can become one; leaves nothing there."""
    place = path.absolute()
    ancestor = next(each for each in (place, *place.parents) if each.exists())
    if not ancestor.is_dir():
        raise ValueError(f"out: expected a folder, but '{ancestor}' is a file")
    try:
        # Permissions do not tell: the folders of a kernel have them all, and those of a full disk too.
        with tempfile.TemporaryFile(dir=ancestor):
            pass
    except OSError as error:
        raise ValueError(
            f"out: expected a folder to write in, but '{ancestor}' takes no files ({error.strerror})"
        ) from None


def _replace(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # Temporary files are private; the finished one gets the permissions that others in the folder have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
