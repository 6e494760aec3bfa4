"""Signals that ask a process to stop, and when they are answered."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

_AGAIN_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0
"""How long an import is waited for; a module that works while it is imported is interrupted then."""
_IMPORTING = "<frozen importlib._bootstrap>"


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, Ctrl-C, and the closing of a terminal (SIGHUP) unless that is ignored, as under ``nohup``."""
    asked = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asked.append(signal.SIGHUP)
    return tuple(asked)


@contextlib.contextmanager
def handled(*numbers: signal.Signals, by: Handler, importing: Handler | None = None) -> Iterator[None]:
    """Calls a handler that may raise for signals which arrive inside the block, but not while a module is imported.

    What is raised during an import may be lost: libraries try for optional parts and catch whatever comes, extensions
    and callbacks of the import system drop it. Outside of the main thread, which alone can do this, nothing is changed.

    Args:
      numbers: the signals.
      by: the handler.
      importing: what answers during an import, without raising; if None, the signal waits for the import's end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _between_imports(by, importing or _Later())
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _between_imports(handler: Handler, importing: Handler) -> Handler:
    return lambda number, frame: (importing if _is_importing(frame) else handler)(number, frame)


class _Later:
    """Sends a signal again in a moment; one that has waited too long ends the import."""

    def __init__(self):
        self._since: dict[int, float] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._since.setdefault(number, time.monotonic()) > _PATIENCE_SECONDS:
            raise KeyboardInterrupt
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
