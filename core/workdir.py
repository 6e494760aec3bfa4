"""A run's own folder: whether it can be written, whose it is, and that one process at a time uses it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from core.errors import CheckpointError
from core.parallel import agreed


@contextlib.contextmanager
def claimed(folder: Path, identity: Mapping[str, Any]) -> Iterator[None]:
    """Holds a folder for one run.

    Args:
      folder: made if it is not there.
      identity: what the run is, in JSON values; kept in ``identity.json``.

    Raises:
      CheckpointError: where the folder cannot be written, belongs to another run or is in use.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / f".lock-{jax.process_index()}", "w")  # noqa: SIM115 - held until the run ends
    with lock:
        _take(lock, folder)
        agreed(lambda: _require_identity(folder, json.loads(json.dumps(identity))))
        yield


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is either as before or whole, whatever happens meanwhile."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(fresh, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write to workdir {folder}: {error.strerror}; name another") from error


def _take(lock: Any, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CheckpointError(f"another process is running in workdir {folder}; wait or name another") from error
    except OSError:
        pass  # some network file systems have no locks


def _require_identity(folder: Path, ours: dict[str, Any]) -> None:
    path = folder / "identity.json"
    with _writing(folder):
        if not path.exists():
            write_atomically(path, json.dumps(ours, indent=1))
            return
        theirs = json.loads(path.read_text())
    differing = [
        _difference(name, theirs.get(name), ours.get(name))
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"workdir {path.parent} belongs to another run: {'; '.join(differing)};"
            " use another workdir or delete this one"
        )


def _difference(name: str, theirs: Any, ours: Any) -> str:
    if any(isinstance(value, dict) and "sha256" in value for value in (theirs, ours)):
        return f"its {name} is not this one"
    return f"{name} is {theirs!r} there and {ours!r} here"
