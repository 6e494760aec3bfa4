"""Raw files: where they are found, how they are fetched, and how they are read without trusting them."""

import contextlib
import csv
import dataclasses
import hashlib
import http.client
import itertools
import json
import lzma
import math
import os
import re
import struct
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.checks import Count, checked
from core.datasets import cache_dir, data_dir, observed
from core.errors import DataError, RelicError
from core.kinds import shown
from core.workdir import write_atomically

TIMEOUT_S = 5.0
_WHOLE_NUMBER = re.compile(r"-?\d{1,18}")
_LARGEST = 2**53
"""Whole numbers up to here are exact as floats of 64 bits."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that others publish."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rsplit("/", 1)[-1]


def here(names: Sequence[str], layouts: Sequence[Sequence[str]], explicit: Path | None = None) -> list[Path] | None:
    """The raw files of a data set in the data directory: of the first folder and layout that is whole, if one is."""
    base = data_dir(explicit)
    for name, files in itertools.product(names, layouts):
        found = [_is_there(base, f"{name}/{file}") for file in files]  # all of them: each is noted
        if base and found and all(found):
            return [base / name / file for file in files]
    return None


def _is_there(base: Path | None, name: str) -> bool:
    found = observed.there(base, name)
    if base is not None and not found and os.path.lexists(base / name):
        raise DataError(f"{base / name} is no file, but a folder or a link to nothing; put the file there or remove it")
    return found


def one(folder: str, file: str, explicit: Path | None = None) -> Path | None:
    """The only raw file of a data set in the data directory, if it is there."""
    paths = here([folder], [[file]], explicit)
    return paths[0] if paths else None


def needed(folder: str, file: str, remedy: str, explicit: Path | None = None) -> Path:
    """The same file where there is no way on without it.

    Args:
      folder: the data set's in the data directory.
      file: its name there.
      remedy: where it is to be had, "get it from ...".
      explicit: the data directory; see :func:`core.datasets.data_dir`.

    Raises:
      DataError: where it is not there.
    """
    path = one(folder, file, explicit)
    if path is None:
        raise DataError(
            f"{folder}/{file} is not in the data directory ({data_dir(explicit) or 'none is set'}): {remedy}, and name "
            "its place with --data-dir or RELIC_DATA"
        )
    return path


def find(
    name: str,
    local: Sequence[str],
    sources: Sequence[Source],
    explicit: Path | None = None,
    *,
    folders: Sequence[str] = (),
) -> list[Path]:
    """The raw files of a data set.

    Looks for ``<data dir>/<name>/`` with the files ``local``, or else with those that ``sources`` names; downloads the
    latter into the cache if neither is there.

    Args:
      name: of the data set.
      local: its files in the layout of the data directory.
      sources: its files as published.
      explicit: the data directory; see :func:`core.datasets.data_dir`.
      folders: further folders of the data directory which may hold them.

    Raises:
      DataError: where they are nowhere to be had; names the places and the remedy.
    """
    layouts = (local, [source.name for source in sources])
    found = here((name, *folders), layouts, explicit)
    if found:
        return found
    cache = cache_dir() / "raw" / name
    try:
        return [download(source, cache / source.name) for source in sources]
    except DataError as error:
        for source in sources:
            observed.note(cache / source.name)
        base, wanted = data_dir(explicit), " or ".join(" and ".join(files) for files in layouts if files)
        looked = f"{base / name} has no {wanted}" if base else "no data directory is set"
        raise DataError(
            f"data set {name!r}: {looked}, and {error}; put the files there, name their folder with --data-dir or "
            "RELIC_DATA, or connect to the network"
        ) from error


def download(source: Source, path: Path) -> Path:
    """The file at ``path``, fetched if it is not there yet; it appears whole and verified or not at all."""
    if path.is_file() and digest(path) == source.sha256:
        return path
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT_S) as response:
            body = response.read()
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        raise DataError(f"{source.url} cannot be fetched ({getattr(error, 'reason', error)})") from error
    found = hashlib.sha256(body).hexdigest()
    if found != source.sha256:
        raise DataError(f"{source.url} has SHA-256 {found}, not {source.sha256}: it changed or arrived damaged")
    with writing(path.parent):
        write_atomically(path, body)
    return path


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes a folder of the cache for what is written inside the block; a full or closed disk is a DataError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error}); name another folder with RELIC_CACHE") from error


def verify(paths: Sequence[Path], sources: Sequence[Source]) -> None:
    """Raises a DataError for the first file which is not the published one, byte for byte."""
    for path, source in zip(paths, sources, strict=True):
        found = digest(path)
        if found != source.sha256:
            raise DataError(
                f"{path}: cut or changed, for its SHA-256 is {found}, not {source.sha256}; get it from {source.url}"
            )


def digest(*paths: Path) -> str:
    """SHA-256 of the files' contents, one after the other."""
    total = hashlib.sha256()
    for path in paths:
        with reading(path, "a readable file"):
            total.update(path.read_bytes())
    return total.hexdigest()


def read_arrays(path: Path, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an npz file. Memory is taken for what the file holds only, whatever its headers declare.

    Raises:
      DataError: where the file is missing or damaged, or a field is missing.
    """
    with reading(path, "an npz file"):
        with open(path, "rb") as opened:
            if opened.read(6) == b"\x93NUMPY":
                raise ValueError("a single array")
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            missing = [field for field in fields if field not in members]
            if missing:
                raise DataError(f"{path}: field {missing[0]!r} is missing; it has {', '.join(members)}")
            size = path.stat().st_size
            return {field: _member(archive, archive.getinfo(members[field]), size) for field in fields}


_MOST_DEFLATED = 1100
"""Deflate makes nothing smaller than by a factor of 1032."""


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> np.ndarray:
    if info.compress_size > size or info.file_size > _MOST_DEFLATED * max(info.compress_size, 1):
        raise ValueError(f"{info.filename} declares {info.file_size} bytes, which a file of {size} bytes cannot hold")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{info.filename} has version {version} of the npy format")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = header(member)
        held, declared = info.file_size - member.tell(), math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or declared != held:
            raise ValueError(f"{info.filename} declares {dtype}{list(shape)} and holds {held} bytes")
        return np.ndarray(shape, dtype, bytearray(member.read()), order="F" if by_columns else "C")


def read_npz(path: Path, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """Integer arrays of one dimension of an npz file.

    Raises:
      DataError: as :func:`read_arrays`, and where a field is not made of whole numbers or not a list.
    """
    arrays = read_arrays(path, fields)
    for field, array in arrays.items():
        if array.ndim != 1:
            raise DataError(f"{path}: field {field!r} has shape {array.shape}; one dimension is needed")
    return {field: whole_numbers(array, f"{path}: field {field!r}") for field, array in arrays.items()}


def require_numbers(array: np.ndarray, where: str) -> None:
    """Raises a DataError unless the array holds real numbers, and some; NaN may be among them."""
    if array.dtype.kind not in "fiub" or not array.size:
        raise DataError(f"{where} is {array.dtype}{list(array.shape)}, which holds no numbers; get the file again")


def require_finite_numbers(array: np.ndarray, where: str) -> None:
    """Raises a DataError unless the array holds finite numbers, and some."""
    require_numbers(array, where)
    if not np.isfinite(array).all():
        raise DataError(f"{where} holds values that are no finite numbers; get the file again")


def read_json(path: Path, remedy: str = "get it again") -> dict[str, Any]:
    """The fields of a JSON file.

    Args:
      path: the file.
      remedy: what to do where it cannot be read.

    Raises:
      DataError: where the file is missing or damaged, or holds no fields by name.
    """
    with reading(path, "a JSON file", remedy):
        return fields_of(path.read_bytes())


def fields_of(content: bytes) -> dict[str, Any]:
    """The fields of a JSON text.

    Raises:
      ValueError: where there are none.
    """
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError(f"it holds {shown(found)} where fields by name are needed")
    return found


_DAMAGE = (
    OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    RecursionError, MemoryError, OverflowError, csv.Error,
)  # fmt: skip
"""What is raised where a damaged file is opened and decoded."""


@contextlib.contextmanager
def reading(path: Path, kind: str, remedy: str = "get it again") -> Iterator[None]:
    """The door to every raw file: notes that it is read (:mod:`core.datasets.observed`), and turns whatever goes wrong
    when a damaged one is opened and decoded inside the block into one DataError.
    """
    observed.note(path)
    try:
        yield
    except RelicError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; {remedy}") from error
    except _DAMAGE as error:
        what = str(error).strip() or type(error).__name__
        raise DataError(f"{path}: truncated or not {kind} ({what[:300]}); {remedy}") from error


def whole_numbers(array: np.ndarray, where: str) -> np.ndarray:
    """The array as int64 if each element is a whole number.

    Raises:
      DataError: otherwise, naming the first element that is not.
    """
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise DataError(f"{where} has type {array.dtype}; whole numbers are needed")
    bad = np.flatnonzero(~(np.abs(array) <= _LARGEST) | (array != np.floor(array)))
    if bad.size:
        raise DataError(f"{where}, element {bad[0]} is {array[bad[0]]}; whole numbers are needed")
    return array.astype(np.int64)


@checked
def read_rows(path: Path, *, columns: Count | None = None, keep: Count | None = None) -> list[np.ndarray]:
    """Lines of whole numbers separated by white space; row i is line i + 1.

    Args:
      path: the file.
      columns: how many words each line must have; any positive number of them if None.
      keep: how many of them are read; all if None.

    Raises:
      DataError: naming the line that is not so, or the file where it cannot be read or is empty.
    """
    with reading(path, "a text file of numbers"):
        text = path.read_text(encoding="ascii").rstrip()
    if not text:
        raise DataError(f"{path}: the file is empty; get it again")
    return [_numbers(line, f"{path}, line {number}", columns, keep) for number, line in enumerate(text.split("\n"), 1)]


def _numbers(line: str, where: str, columns: int | None, keep: int | None) -> np.ndarray:
    words = line.split()
    if not words:
        raise DataError(f"{where} is empty; get the file again")
    if columns is not None and len(words) != columns:
        raise DataError(f"{where} has {len(words)} columns, not {columns}: a wrong or truncated file; get it again")
    for word in words[:keep]:
        if not _WHOLE_NUMBER.fullmatch(word):
            raise DataError(f"{where}: {word!r} is not a whole number")
    return np.array(words[:keep], np.int64)


@checked
def require_lines(rows: Sequence[np.ndarray], first: int, last: int, path: Path, what: str) -> None:
    """Raises a DataError that names the first line of a text file with a number outside of first to last."""
    numbers = np.concatenate(rows)
    bad = np.flatnonzero((numbers < first) | (numbers > last))
    if bad.size:
        line = np.searchsorted(np.cumsum([len(row) for row in rows]), bad[0], side="right") + 1
        raise DataError(f"{path}, line {line}: {what} {numbers[bad[0]]} is outside of {first} to {last}")


def require_columns(found: Sequence[str], wanted: Mapping[str, str], where: str) -> None:
    """Raises a DataError that names the first column that a table lacks, with what it is for."""
    for column, meaning in wanted.items():
        if column not in found:
            raise DataError(f"{where}: column {column!r} ({meaning}) is missing; it has {', '.join(found)}")
