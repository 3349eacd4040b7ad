"""Ctrl-C for commands that save their work before they end."""

from __future__ import annotations

import signal
import threading


def listen_to_interrupts() -> None:
    """Makes SIGINT raise ``KeyboardInterrupt`` in this process, also where it was started with SIGINT ignored.

    Shells start background jobs of scripts that way. Whoever signals such a training run by its id means it to save and
    end, not to go on.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
