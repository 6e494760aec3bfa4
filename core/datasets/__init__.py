"""Data sets: TFDS builders without TensorFlow, raw files found locally or downloaded, everything validated once."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def data_dir(explicit: str | Path | None = None) -> Path | None:
    """Where raw files lie: the argument, else ``RELIC_DATA``, else ``../shared/data`` beside the project, else None."""
    beside = PROJECT.parent / "shared" / "data"
    chosen = explicit or os.environ.get("RELIC_DATA") or (beside if beside.is_dir() else None)
    return Path(chosen) if chosen else None


def cache_dir() -> Path:
    """Where downloads and prepared data sets are kept: ``RELIC_CACHE``, else ``~/.cache/relic``."""
    return Path(os.environ.get("RELIC_CACHE") or Path.home() / ".cache" / "relic")
