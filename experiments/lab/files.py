"""Files under a work folder, which all processes of a run share."""

from pathlib import Path

from core.parallel import is_primary
from experiments.lab import runs


def write_page(path: Path, text: str) -> Path:
    """Writes a text that is the same in all processes of a run; the first one writes it.

    Raises:
      ConfigError: where it cannot be written.
    """
    if is_primary():
        runs.write(path, text)
    return path
