"""A run's own folder: whether it can be written, whose it is, and that one process at a time uses it."""

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax

from core.errors import CheckpointError, ConfigError
from core.parallel import agreed, in_all_processes

IDENTITY, METRICS, CHECKPOINTS = "identity.json", "metrics.jsonl", "checkpoints"
"""What a run keeps in its folder: what it is, a row of metrics per chunk, and its state."""


@contextlib.contextmanager
def claimed(folder: Path, identity: Mapping[str, Any]) -> Iterator[None]:
    """Holds a folder for one run.

    Args:
      folder: made if it is not there.
      identity: what the run is, in JSON values; kept in :data:`IDENTITY`.

    Raises:
      CheckpointError: where the folder cannot be written, belongs to another run or is in use.
      ConfigError: where the identity is no JSON values.
    """
    lock = in_all_processes(lambda: _locked(folder))
    with lock:
        ours = _as_json(identity)
        agreed(lambda: _require_identity(folder, ours))
        yield


def _as_json(identity: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(identity))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"identity must be JSON values by name ({error})") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of ``path`` when the block ends without an error.

    Until then ``path`` is as before. The temporary name is random: processes of a run in containers may have equal
    process ids. The folder is made if it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(fresh, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that has its old content or the new one, whatever happens meanwhile."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write to workdir {folder}: {error.strerror}; name another") from error


def _locked(folder: Path) -> Any:
    """The open file by which this process holds the folder."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _require_no_links(folder)
        lock = open(folder / f".lock-{jax.process_index()}", "a")  # noqa: SIM115 - held until the run ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise CheckpointError(f"another process is running in workdir {folder}; wait or name another") from error
    except OSError:
        pass  # some network file systems have no locks
    return lock


def _require_no_links(folder: Path) -> None:
    """What a run writes lies in its folder; that may be reached by a link itself."""
    names = (IDENTITY, METRICS, CHECKPOINTS, "tensorboard", f".lock-{jax.process_index()}")
    for path in (folder / name for name in names):
        if path.is_symlink():
            raise CheckpointError(
                f"{path} is a link, and a run writes nothing behind one; remove the link, or name another workdir"
            )


def _require_identity(folder: Path, ours: dict[str, Any]) -> None:
    path = folder / IDENTITY
    with _writing(folder):
        if not path.exists():
            for name in (CHECKPOINTS, METRICS):
                if (folder / name).is_file() or any(folder.glob(f"{name}/*")):
                    raise CheckpointError(
                        f"workdir {folder} has {name}, but no {IDENTITY} that says of what run; use another workdir or "
                        "delete this one"
                    )
            write_atomically(path, json.dumps(ours, indent=1))
            return
        theirs = _identity_in(path)
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


def _identity_in(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found:
        raise CheckpointError(
            f"{path} is damaged, so that nothing says of what run this workdir is; use another workdir or delete this "
            "one"
        )
    return found


def _difference(name: str, theirs: Any, ours: Any) -> str:
    if any(isinstance(value, dict) and "sha256" in value for value in (theirs, ours)):
        return f"its {name} is not this one"
    texts = [repr(value) for value in (theirs, ours)]
    if max(map(len, texts)) > 80:
        return f"its {name} is not this one"
    return f"{name} is {texts[0]} there and {texts[1]} here"
