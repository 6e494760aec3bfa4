"""Data sets: TFDS builders without TensorFlow, raw files found locally or downloaded, everything validated once."""

import os
from pathlib import Path

from core.errors import DataError

PROJECT = Path(__file__).resolve().parents[2]


def data_dir(explicit: str | Path | None = None) -> Path | None:
    """Where raw files lie: the argument, else ``RELIC_DATA``, else ``../shared/data`` beside the project, else None."""
    beside = PROJECT.parent / "shared" / "data"
    chosen = explicit or os.environ.get("RELIC_DATA") or (beside if beside.is_dir() else None)
    return Path(chosen) if chosen else None


def require_data_dir(explicit: str | Path | None = None) -> Path | None:
    """The same, where one that is named has to be there.

    Raises:
      DataError: where it is not a folder.
    """
    chosen = data_dir(explicit)
    if chosen is not None and not chosen.is_dir():
        origin = "--data-dir" if explicit else "RELIC_DATA"
        raise DataError(f"{origin} names {chosen}, which is not a folder; correct the path, or leave it out")
    return chosen


def cache_dir() -> Path:
    """Where downloads and prepared data sets are kept: ``RELIC_CACHE``, else ``~/.cache/relic``."""
    return Path(os.environ.get("RELIC_CACHE") or Path.home() / ".cache" / "relic")
