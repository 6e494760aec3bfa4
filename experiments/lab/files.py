"""Files under a work folder, which all processes of a run share."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from core.errors import ConfigError
from core.parallel import is_primary
from core.workdir import write_atomically


def write_page(path: Path, text: str) -> Path:
    """Writes a text that is the same in all processes of a run; the first one writes it.

    Raises:
      ConfigError: where it cannot be written.
    """
    if not is_primary():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another place") from error
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of ``path`` when the block ends without an error.

    Until then ``path`` is as before. The temporary name is random: processes of a run in containers may have equal
    process ids. Every process writes, so that each can read the file at once.

    Args:
      path: in a folder that is made if it is not there.
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
