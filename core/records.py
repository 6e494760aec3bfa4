"""Records: one measured number each, with what is needed to get it again, in an append-only file."""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from core import documents
from core.errors import DataError

Scalar = str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class Record:
    """One measured number.

    ``coords`` places the number on further axes of an experiment (``{"epoch": 20}``, ``{"L": 3, "eps": 1e-3}``);
    ``provenance`` tells how to get it again, see :func:`provenance`.
    """

    system: str
    preset: str
    dataset: str
    method: str
    metric: str
    seed: int
    value: float
    coords: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Scan(NamedTuple):
    """What a file of records holds."""

    records: list[Record]
    """The undamaged ones, oldest first."""
    faults: list[str]
    """Of each damaged line its number and what is wrong with it, in words."""


_KINDS: documents.Kinds = {
    **dict.fromkeys(("system", "preset", "dataset", "method", "metric"), str),
    "seed": int,
    "value": float,
    "coords": dict,
    "provenance": dict,
}
ROOT = Path(__file__).resolve().parents[1]
LARGEST_SEED = 2**32 - 1
"""No seed of a record is above it: JAX and NumPy take one word."""


def append(path: Path, records: Iterable[Record]) -> None:
    """Appends records, one JSON line each with a digest, in a single write that is on disk when this returns.

    A line that a crash tore is ended first, so that it costs that line and no other. Nothing is written through a link.

    Raises:
      OSError: where the file cannot be written or is a link.
    """
    text = "".join(line_of(record) + "\n" for record in records)
    if not text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with open(number, "a+b") as file:
        if file.tell() and not _ends_in_newline(file):
            text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def line_of(record: Record) -> str:
    """A record as a line of JSON that ends with its digest."""
    return documents.sealed(json.dumps(dataclasses.asdict(record), allow_nan=True))


def _ends_in_newline(file) -> bool:
    file.seek(-1, os.SEEK_END)
    last = file.read(1)
    file.seek(0, os.SEEK_END)
    return last == b"\n"


def read(path: Path) -> list[Record]:
    """The undamaged records of a file, oldest first, see :func:`scan`."""
    return scan(path).records


def scan(path: Path) -> Scan:
    """Reads a file of records; lines that a crash tore or that were damaged are passed over. A missing file has none.

    Raises:
      DataError: where the file cannot be read.
    """
    found = Scan([], [])
    if not os.path.lexists(path):
        return found
    for number, line in enumerate(documents.contents(path).split(b"\n"), 1):
        if not line:
            continue
        try:
            found.records.append(_parsed(line))
        except DataError as error:
            found.faults.append(f"line {number} {error}")
    return found


def _parsed(line: bytes) -> Record:
    document = documents.parsed(line)
    problem = documents.fault(document, _KINDS) or _problem(document)
    if problem:
        raise DataError(problem)
    return Record(**{**document, "value": float(document["value"])})


def _problem(document: Mapping[str, Any]) -> str | None:
    more = document.keys() - _KINDS.keys()
    if more:
        return f"has an entry that records have not: {sorted(more)[0]}"
    if not -1 <= document["seed"] <= LARGEST_SEED:
        return "has a seed out of range"
    for name, value in document["coords"].items():
        if name in _KINDS or not isinstance(value, str | int | float | bool | None):
            return f"has a coordinate that is none: {name}"
    return None


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """A tidy table: a row per number, coordinates as columns, the newest of equal identity kept."""
    rows = [
        {**{f.name: getattr(r, f.name) for f in dataclasses.fields(r) if f.name not in ("coords", "provenance")}}
        | dict(r.coords)
        for r in records
    ]
    columns = [f.name for f in dataclasses.fields(Record) if f.name not in ("coords", "provenance")]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    identity = [c for c in frame.columns if c != "value"]
    return frame.drop_duplicates(identity, keep="last").reset_index(drop=True)


def provenance(config: Any, root: Path = ROOT) -> dict[str, Any]:
    """What a number depends on: configuration, library versions, device, commit and time (UTC)."""
    return {
        "config": to_plain(config),
        "versions": dict(_versions()),
        "device": _device(),
        "commit": commit(root),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def to_plain(value: Any) -> Any:
    """A dataclass, array or container as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    names = ("relic", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
    return (("python", platform.python_version()), *((n, importlib.metadata.version(n)) for n in names))


@functools.cache
def _device() -> str:
    device = jax.devices()[0]
    return f"{jax.device_count()} x {device.device_kind} ({device.platform}), {os.cpu_count()} host cores"


@functools.cache
def commit(root: Path = ROOT) -> str:
    """The commit of a source tree, with ``+`` where it has changes, or "unknown" outside of a checkout."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
