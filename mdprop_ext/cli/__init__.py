"""The command line: ``mdprop``, or ``python -m mdprop_ext.cli``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from mdprop_ext._optional import require
from mdprop_ext.ops import BackendError
from mdprop_ext.recipes import RunInterrupted

__all__ = ["main"]

_FAILED = 1
_INTERRUPTED = 130  # as shells report a process that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Whatever is wrong with what the user gave is said in one sentence on standard error.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        The exit status: 0; 1 for bad values, data or files; 2 for unknown commands and options; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        typer = require("typer", extra="cli")
        require("rich", extra="cli")
    except ImportError as error:
        return _fail(str(error), _FAILED)
    # Commands are declared in terms of these packages, so their module can be imported only now.
    from mdprop_ext.cli.app import build_app

    try:
        status = typer.main.get_command(build_app()).main(arguments, prog_name="mdprop", standalone_mode=False)
    except (RunInterrupted, KeyboardInterrupt, typer.Abort) as interruption:
        if argv is None:  # another Ctrl-C could disturb nothing but the end of the process
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        is_saved = isinstance(interruption, RunInterrupted)
        return _fail(str(interruption) if is_saved else "interrupted: unfinished work was not written", _INTERRUPTED)
    except (ValueError, ImportError, OSError, BackendError) as error:
        return _fail(f"error: {error}", _FAILED)
    except Exception as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return _fail("error: not enough memory for images, embeddings or batches of this size", _FAILED)
        # Usage errors: their class has another home in each version of typer.
        if not hasattr(error, "format_message"):
            raise
        return _fail(f"error: {error.format_message()}", getattr(error, "exit_code", 2))
    return status if isinstance(status, int) else 0


def _fail(sentence: str, status: int) -> int:
    sys.stderr.write(f"mdprop: {' '.join(sentence.split())}\n")
    return status
