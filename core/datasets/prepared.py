"""Prepared data sets: what a builder makes of its raw files, kept as ArrayRecord under their checksum."""

import contextlib
import fcntl
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf import json_format

from core.datasets import cache_dir
from core.datasets.raw import digest, writing
from core.errors import DataError


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
        except RuntimeError as error:  # ArrayRecord's, of a disk that is full
            remedy = "make room, or name another place in RELIC_CACHE"
            raise DataError(f"{folder}: the prepared data set cannot be written ({error}); {remedy}") from error
    return builder


def source(builder: Any, split: str) -> Any:
    """The records of a split, read one by one when asked for."""
    with _intact(builder.data_path):
        return builder.as_data_source(split)


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
    except (RuntimeError, ValueError, IndexError, json_format.Error) as error:
        remedy = "remove this folder and it is made again"
        raise DataError(f"{folder}: the prepared data set is damaged ({error}); {remedy}") from error
