"""Standard streams as they may be: closed, full, or of an encoding that has no ±."""

import codecs
import contextlib
import io
import os
import shutil
import sys
import unicodedata

from core.errors import RelicError

ASCII = {
    "±": "+/-", "−": "-", "–": "-", "—": "-", "·": "-", "…": "...", "×": "x", "≤": "<=", "≥": ">=", "≈": "~",
    "“": '"', "”": '"', "‘": "'", "’": "'", "†": "+", "‡": "++", "§": "S", "¶": "P", "✓": "+", "✗": "x", "◐": "~",
    "○": "o", "µ": "u", "σ": "sigma", "λ": "lambda", "ρ": "rho", "β": "beta", "α": "alpha", "ε": "eps", "→": "->",
    "─": "-", "━": "-", "│": "|", "┃": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "∞": "inf", "≠": "!=", "Δ": "delta",
}  # fmt: skip
"""What stands for a character that an encoding lacks."""
WIDEST = 120
"""Columns of what is no terminal."""


class OutputError(RelicError):
    """Standard output cannot be written."""


def prepare() -> None:
    """Makes standard streams that are closed swallow what they get, and others write what they can."""
    for number in range(3):  # else the next file that is opened would be standard output
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process
    codecs.register_error("relic", _in_other_words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="relic")


def _in_other_words(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return ASCII.get(character) or plain or "?"


def write(text: str) -> None:
    """Writes to standard output, all of it.

    Raises:
      OutputError: where it cannot be written.
      BrokenPipeError: where its reader has left.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def discard_output() -> None:
    """Lets what is left for standard output vanish, so that the end of the process is quiet."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def columns() -> int:
    """Width of the terminal, or what COLUMNS says if it is a number above 0, or :data:`WIDEST`."""
    return max(20, shutil.get_terminal_size((WIDEST, 50)).columns)
