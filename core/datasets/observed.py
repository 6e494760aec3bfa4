"""Which raw files a computation depends on: each that it looked for, by name, with a digest of what it held.

A file that was looked for and not found is a dependence too: when it appears, what was computed without it is out of
date. :mod:`core.datasets.raw` reports every look-up and every reading here.
"""

import contextlib
import contextvars
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from core.datasets import cache_dir

Files = dict[str, str | None]
"""By name, the digest of a file's content; None where it was not there.

Names are relative to the data directory; those of downloads begin with ``cache:``, and files elsewhere have their
absolute path.
"""
DOWNLOADED = "cache:"
UNREADABLE = "unreadable"

_observers: contextvars.ContextVar[tuple[tuple[Path | None, Files], ...]] = contextvars.ContextVar(
    "observers", default=()
)


@contextlib.contextmanager
def observing(base: Path | None) -> Iterator[Files]:
    """Yields a dictionary that grows by each raw file which the block looks for or reads.

    Args:
      base: the data directory that names start from, see :func:`core.datasets.data_dir`.
    """
    files: Files = {}
    token = _observers.set((*_observers.get(), (base, files)))
    try:
        yield files
    finally:
        _observers.reset(token)


def there(base: Path | None, name: str) -> bool:
    """Whether a file is in a data directory (in none, where that is None); the answer is noted."""
    if base is None:
        for _, files in _observers.get():
            files[name] = None
        return False
    note(base / name)
    return (base / name).is_file()


def note(path: Path) -> None:
    """Notes that a result depends on a file, or on its absence."""
    for base, files in _observers.get():
        files[_name(path, base)] = digest(path)


def state(name: str, base: Path | None) -> str | None:
    """What is to be noted for a name now; None where no file is there."""
    if name.startswith(DOWNLOADED):
        return digest(cache_dir() / "raw" / name.removeprefix(DOWNLOADED))
    if os.path.isabs(name):
        return digest(Path(name))
    return digest(base / name) if base else None


def changed(files: Mapping[str, str | None], base: Path | None) -> list[str]:
    """Names whose files are no longer as they were noted."""
    return [name for name, before in files.items() if state(name, base) != before]


def _name(path: Path, base: Path | None) -> str:
    whole = Path(os.path.abspath(path))
    for folder, prefix in ((base, ""), (cache_dir() / "raw", DOWNLOADED)):
        if folder is not None and whole.is_relative_to(os.path.abspath(folder)):
            return prefix + whole.relative_to(os.path.abspath(folder)).as_posix()
    return str(whole)


def digest(path: Path) -> str | None:
    """The beginning of the SHA-256 of a file's content; None where there is no file.

    Computed once for a path, a size and a time of change.
    """
    try:
        found = path.stat()
        return _digest(str(path), found.st_size, found.st_mtime_ns) if path.is_file() else None
    except FileNotFoundError:
        return None
    except OSError:
        return UNREADABLE


@functools.lru_cache(maxsize=4096)
def _digest(path: str, size: int, changed_ns: int) -> str:
    del size, changed_ns  # they tell versions of the file apart
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
