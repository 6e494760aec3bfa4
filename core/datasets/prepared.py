"""Prepared data sets: what a builder makes of its raw files, kept as ArrayRecord under their checksum."""

import contextlib
import fcntl
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf import json_format

from core.datasets import cache_dir
from core.datasets.raw import digest, writing
from core.errors import DataError, RelicError


def prepared(builder_class: Callable[..., Any], raw: list[Path]) -> Any:
    """A builder whose ArrayRecord files are on disk, in a folder named by the checksum of its raw files."""
    folder = cache_dir() / "tfds" / digest(*raw)[:16]
    with writing(folder), open(folder / ".lock", "w") as lock, contextlib.redirect_stdout(io.StringIO()):
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _intact(folder):
            builder = builder_class(raw=raw, data_dir=str(folder), file_format="array_record")
        tfds.disable_progress_bar()
        try:
            builder.download_and_prepare()
        except RuntimeError as error:  # of ArrayRecord, where a disk is full
            raise DataError(f"{folder} cannot be written ({error}); free space or set RELIC_CACHE") from error
    return builder


def source(builder: Any, split: str) -> Any:
    """The records of a split, read one by one when asked for.

    Raises:
      DataError: then, where the files are damaged.
    """
    with _intact(builder.data_path):
        return _Records(builder.as_data_source(split), builder.data_path)


class _Records(Sequence):
    """Records whose files may be damaged or gone when one of them is asked for."""

    def __init__(self, rows: Any, folder: Any):
        self._rows, self._folder = rows, folder

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        with _intact(self._folder):
            return self._rows[int(index) % len(self)]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        with _intact(self._folder):
            return self._rows.__getitems__(indices)


def records(builder: Any, split: str) -> list[dict[str, Any]]:
    """All records of a split, in the order of the files."""
    with _intact(builder.data_path):
        rows = builder.as_data_source(split)
        return rows.__getitems__(range(len(rows)))


@contextlib.contextmanager
def _intact(folder: Any) -> Iterator[None]:
    """Reports what Riegeli, ArrayRecord and TFDS raise for damaged files of their own as one DataError."""
    try:
        yield
    except RelicError:
        raise
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError, OSError, json_format.Error) as error:
        remedy = "remove this folder and it is made again"
        raise DataError(f"{folder}: the prepared data set is damaged ({error}); {remedy}") from error
