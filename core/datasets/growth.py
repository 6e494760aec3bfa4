"""Growth curves: the synthetic examples of Liu & Perera, and a demonstration sample of ECLS-K:2011."""

import gzip
import io
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from core.datasets import data_dir
from core.datasets.raw import reading, require_columns
from core.errors import DataError

Name = Literal["moe_bls_example", "bls2", "quad2", "exp2", "jb2", "tvc_bls2", "eclsk2011_demo500"]
NAMES: tuple[Name, ...] = ("moe_bls_example", "bls2", "quad2", "exp2", "jb2", "tvc_bls2", "eclsk2011_demo500")
FOLDER = "growth_mixture"
SYNTHETIC = {
    **{f"Y{j}": "an outcome" for j in range(1, 11)},
    **{f"T{j}": "a time" for j in range(1, 11)},
    **dict.fromkeys(("gx1", "gx2", "ex1", "ex2"), "a covariate"),
    "class": "the true class",
}
DEMO = {**{f"M{j}": "a mathematics score" for j in range(1, 10)}, **{f"T{j}": "an age" for j in range(1, 10)}}
PERSONS = 500


def locate(name: Name = "moe_bls_example", explicit: Path | None = None) -> Path | None:
    """The raw file in the data directory, if it is there."""
    base = data_dir(explicit)
    path = base / FOLDER / f"{name}.csv.gz" if base else None
    return path if path and path.is_file() else None


def load(name: Name, explicit: Path | None = None) -> pd.DataFrame:
    """Reads and checks a table: a row per person, complete.

    Raises:
      DataError: where the file is missing, damaged, short, or a column is missing or holds other than numbers.
    """
    path = locate(name, explicit)
    if path is None:
        raise DataError(
            f"{FOLDER}/{name}.csv.gz is not in the data directory ({data_dir(explicit) or 'none is set'}): see its "
            "README for the origin, and name its place with --data-dir or RELIC_DATA"
        )
    with reading(path, "a gzip file of comma-separated values"):
        table = pd.read_csv(io.BytesIO(gzip.decompress(path.read_bytes())))
    require_columns(list(map(str, table.columns)), DEMO if name == "eclsk2011_demo500" else SYNTHETIC, str(path))
    if len(table) != PERSONS:
        raise DataError(f"{path}: {len(table)} rows where {PERSONS} are published; get it again")
    for column in table.columns:
        cells = np.asarray(pd.to_numeric(table[column], errors="coerce"), np.float64)
        if not np.isfinite(cells).all():
            row = int(np.argmin(np.isfinite(cells)))
            raise DataError(f"{path}, line {row + 2}: column {column!r} is {table[column].iloc[row]!r}, not a number")
    return table
