"""Tiny Shakespeare: 40,000 lines of the plays as one text, under its TFDS name ``tiny_shakespeare``."""

import lzma
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from core.datasets.raw import needed, one, reading
from core.errors import DataError

FOLDER, FILE = "tinyshakespeare", "input.txt.xz"
CHARACTERS = 1_115_394


def locate(explicit: Path | None = None) -> Path | None:
    """The file in the data directory, if it is there."""
    return one(FOLDER, FILE, explicit)


def load(explicit: Path | None = None) -> UInt8[np.ndarray, " characters"]:
    """The text as bytes.

    Raises:
      DataError: where the file is missing, damaged or of another length.
    """
    path = needed(FOLDER, FILE, "compress the text of the char-rnn repository by xz", explicit)
    with reading(path, "an xz file"):
        text = lzma.decompress(path.read_bytes())
    if len(text) != CHARACTERS:
        raise DataError(f"{path}: {len(text)} characters, not {CHARACTERS}; get it again")
    return np.frombuffer(text, np.uint8)
