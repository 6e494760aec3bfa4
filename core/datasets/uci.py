"""Small regression tables of the UCI repository: Concrete Compressive Strength and Energy Efficiency."""

import gzip
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from core.checks import checked
from core.datasets.raw import needed, one, reading
from core.errors import DataError

Name = Literal["concrete", "energy"]
FOLDER = "uci_regression"
FILES: dict[Name, str] = {"concrete": "concrete.data.gz", "energy": "energy.csv.gz"}
OUTPUTS: dict[Name, int] = {"concrete": 1, "energy": 2}
INPUTS = 8
ROWS: dict[Name, int] = {"concrete": 1030, "energy": 768}


class Table(NamedTuple):
    """Rows of a regression problem in the units of the file."""

    inputs: Float[np.ndarray, "rows 8"]
    targets: Float[np.ndarray, "rows outputs"]


@checked
def locate(name: Name, explicit: Path | None = None) -> Path | None:
    """The raw file in the data directory, if it is there."""
    return one(FOLDER, FILES[name], explicit)


@checked
def load(name: Name, explicit: Path | None = None) -> Table:
    """Reads and checks a table.

    Raises:
      DataError: where the file is missing, damaged, or a row has other than numbers or another number of columns.
    """
    path = needed(FOLDER, FILES[name], "get it from the UCI Machine Learning Repository", explicit)
    with reading(path, "a gzip file of text"):
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    first = 1 if name == "energy" else 0
    rows = [_row(line, f"{path}, line {i + 1}", name) for i, line in enumerate(lines) if i >= first and line.strip()]
    if len(rows) != ROWS[name]:
        raise DataError(f"{path}: {len(rows)} rows where {ROWS[name]} are published; get it again")
    table = np.array(rows, np.float32)
    return Table(table[:, :INPUTS], table[:, INPUTS:])


def _row(line: str, where: str, name: Name) -> list[float]:
    cells = line.replace(",", " ").split()
    expected = INPUTS + OUTPUTS[name]
    if len(cells) != expected:
        raise DataError(f"{where}: {len(cells)} columns where {name} has {expected}; get the file again")
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError as error:
        raise DataError(f"{where}: {error}; get the file again") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"{where}: column {int(np.argmin(np.isfinite(numbers))) + 1} is not finite; get the file again")
    return numbers
