"""The metrics of a run: a row per chunk of steps, appended to a file as they come."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from core.errors import CheckpointError
from core.workdir import METRICS

Row = dict[str, Any]


class History:
    """Rows of metrics by step, kept in memory and, with a folder, in ``metrics.jsonl`` and for TensorBoard.

    The file is append-only: a run that goes back to a checkpoint appends its steps anew, and readers keep the newest
    row of a step. Of several processes the first writes.
    """

    def __init__(self, folder: Path | None, *, tensorboard: bool = False):
        self._rows: dict[int, Row] = {}
        self._path = folder / METRICS if folder else None
        self._writes = jax.process_index() == 0
        self._writer = _summary_writer(folder) if folder and tensorboard and self._writes else None

    def resume(self, step: int) -> None:
        """Takes up the rows of an earlier part of the run, up to a step."""
        assert self._path is not None
        if self._path.exists():
            for row in read(self._path):
                if row["step"] <= step:
                    self._merge(row)

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Notes metrics of a step: numbers, or arrays (one number per seed, say)."""
        row = {"step": step, **{name: np.asarray(value).tolist() for name, value in metrics.items()}}
        self._merge(row)
        if self._path and self._writes:
            _append_line(self._path, json.dumps(row))
        if self._writer:
            for name, value in metrics.items():
                self._writer.add_scalar(name, float(np.mean(value)), step)

    def sync(self) -> None:
        """Returns when the rows are on disk, so that a checkpoint which outlives a power cut finds them."""
        if self._path and self._writes and self._path.exists():
            with _writing(self._path), open(self._path, "rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Flushes what TensorBoard has not yet been given."""
        if self._writer:
            self._writer.close()

    @property
    def rows(self) -> list[Row]:
        """All rows in order of steps."""
        return [self._rows[step] for step in sorted(self._rows)]

    def _merge(self, row: Row) -> None:
        self._rows.setdefault(row["step"], {}).update(row)


def read(path: Path) -> list[Row]:
    """The whole rows of a metrics file in the order written; lines that are torn, or no rows of ours, are passed over.

    Raises:
      CheckpointError: where the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; use another workdir") from error
    return [row for line in lines if (row := _row(line)) is not None]


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if isinstance(step, int) and not isinstance(step, bool) else None


def _append_line(path: Path, line: str) -> None:
    """Ends a line that a crash tore before it adds one."""
    with _writing(path), open(path, "a+b") as file:
        torn = file.tell() > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
        file.write(("\n" * torn + line + "\n").encode())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}; free space and run again") from error


def _summary_writer(folder: Path):
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), flush_secs=10)
