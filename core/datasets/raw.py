"""Raw files: where they are found, how they are fetched, and how they are read without trusting them."""

import dataclasses
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from core.datasets import cache_dir, data_dir
from core.errors import DataError

TIMEOUT_S = 5.0


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that others publish."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rsplit("/", 1)[-1]


def find(name: str, local: Sequence[str], sources: Sequence[Source], explicit: Path | None = None) -> list[Path]:
    """The raw files of a data set.

    Looks for ``<data dir>/<name>/`` with the files ``local``, or else with those that ``sources`` names; downloads the
    latter into the cache if neither is there.

    Raises:
      DataError: where they are nowhere to be had; names the places and the remedy.
    """
    folder = data_dir(explicit)
    for names in (local, [source.name for source in sources]):
        paths = [folder / name / file for file in names] if folder and names else []
        if paths and all(path.is_file() for path in paths):
            return paths
    cache = cache_dir() / "raw" / name
    try:
        return [download(source, cache / source.name) for source in sources]
    except DataError as error:
        looked = f"{folder / name} has no {' or '.join(local)}" if folder else "no data directory is set"
        raise DataError(
            f"data set {name!r}: {looked}, and {error}; put the files there, name their folder with --data-dir or "
            "RELIC_DATA, or connect to the network"
        ) from error


def download(source: Source, path: Path) -> Path:
    """The file at ``path``, fetched if it is not there yet; it appears whole and verified or not at all."""
    if path.is_file() and digest(path) == source.sha256:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(source.url, timeout=TIMEOUT_S) as response:
            body = response.read()
    except (OSError, urllib.error.URLError) as error:
        raise DataError(f"{source.url} cannot be fetched ({getattr(error, 'reason', error)})") from error
    found = hashlib.sha256(body).hexdigest()
    if found != source.sha256:
        raise DataError(f"{source.url} has SHA-256 {found}, not {source.sha256}: it changed or arrived damaged")
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as fresh:
        fresh.write(body)
    os.replace(fresh.name, path)
    return path


def digest(*paths: Path) -> str:
    """SHA-256 of the files' contents, one after the other."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def read_npz(path: Path, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """Integer arrays of an npz file.

    Raises:
      DataError: where the file is missing or truncated, a field is missing, or one is not made of whole numbers.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [field for field in fields if field not in file.files]
            if missing:
                raise DataError(f"{path}: field {missing[0]!r} is missing; it has {', '.join(file.files)}")
            arrays = {field: file[field] for field in fields}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise DataError(f"{path}: truncated or not an npz file ({error}); get it again") from error
    return {field: whole_numbers(array, f"{path}: field {field!r}") for field, array in arrays.items()}


def whole_numbers(array: np.ndarray, where: str) -> np.ndarray:
    """The array as int64 if each element is a whole number.

    Raises:
      DataError: otherwise, naming the first element that is not.
    """
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise DataError(f"{where} has type {array.dtype}; whole numbers are needed")
    bad = np.flatnonzero(~np.isfinite(array.ravel()) | (array.ravel() != np.floor(array.ravel())))
    if bad.size:
        raise DataError(f"{where}, element {bad[0]} is {array.ravel()[bad[0]]}; whole numbers are needed")
    return array.astype(np.int64)


def read_rows(path: Path, *, columns: int | None = None, keep: int | None = None) -> list[np.ndarray]:
    """Lines of whole numbers separated by white space.

    Args:
      path: the file.
      columns: how many words each line must have; any positive number of them if None.
      keep: how many of them are read; all if None.

    Raises:
      DataError: naming the line that is not so, or the file where it cannot be read, is empty or is cut.
    """
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a text file of numbers ({error}); get it again") from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty; get it again")
    rows = [_numbers(line, f"{path}, line {number}", columns, keep) for number, line in enumerate(text.splitlines(), 1)]
    return [row for row in rows if row is not None]


def _numbers(line: str, where: str, columns: int | None, keep: int | None) -> np.ndarray | None:
    words = line.split()
    if not words:
        return None
    if columns is not None and len(words) != columns:
        raise DataError(f"{where} has {len(words)} columns, not {columns}: a wrong or truncated file; get it again")
    try:
        return np.array([int(word) for word in words[:keep]], np.int64)
    except ValueError as error:
        bad = next(word for word in words[:keep] if not word.lstrip("-").isdigit())
        raise DataError(f"{where}: {bad!r} is not a whole number") from error


def require_columns(found: Sequence[str], wanted: Mapping[str, str], where: str) -> None:
    """Raises a DataError that names the first column that a table lacks, with what it is for."""
    for column, meaning in wanted.items():
        if column not in found:
            raise DataError(f"{where}: column {column!r} ({meaning}) is missing; it has {', '.join(found)}")
