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
    """Raises unless ``path`` is a folder, or can become one; creates nothing."""
    for ancestor in (path, *path.parents):
        if ancestor.is_dir():
            if not os.access(ancestor, os.W_OK):
                raise ValueError(f"out: no permission to write in '{ancestor}'")
            return
        if ancestor.exists():
            raise ValueError(f"out: expected a folder, but '{ancestor}' is a file")


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
