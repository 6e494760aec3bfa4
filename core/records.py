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
from typing import Any

import jax
import numpy as np
import pandas as pd

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


def append(path: Path, records: Iterable[Record]) -> None:
    """Appends records, one JSON line each, in a single write that is on disk when this returns.

    A line that a crash tore is ended first, so that it costs that line and no other.
    """
    text = "".join(json.dumps(dataclasses.asdict(record), allow_nan=True) + "\n" for record in records)
    if not text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        if file.tell() and not _ends_in_newline(file):
            text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_in_newline(file) -> bool:
    file.seek(-1, os.SEEK_END)
    last = file.read(1)
    file.seek(0, os.SEEK_END)
    return last == b"\n"


def read(path: Path) -> list[Record]:
    """All whole records of a file, oldest first; torn lines are passed over, a missing file has none."""
    if not path.exists():
        return []
    return [record for line in path.read_text().splitlines() if (record := _parse(line)) is not None]


def _parse(line: str) -> Record | None:
    try:
        return Record(**json.loads(line))
    except (json.JSONDecodeError, TypeError):
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


def provenance(config: Any) -> dict[str, Any]:
    """What a number depends on: configuration, library versions, device, commit and time (UTC)."""
    return {
        "config": to_plain(config),
        "versions": dict(_versions()),
        "device": _device(),
        "commit": commit(),
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
def commit() -> str:
    """The commit of the source tree, with ``+`` where it has changes, or "unknown" outside of a checkout."""
    root = Path(__file__).resolve().parents[1]

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
