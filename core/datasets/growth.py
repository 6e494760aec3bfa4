"""Growth curves: the synthetic examples of Liu & Perera, and a demonstration sample of ECLS-K:2011."""

import gzip
import io
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from core.checks import checked
from core.datasets.raw import needed, one, reading, require_columns
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


@checked
def locate(name: Name = "moe_bls_example", explicit: Path | None = None) -> Path | None:
    """The raw file in the data directory, if it is there."""
    return one(FOLDER, f"{name}.csv.gz", explicit)


@checked
def load(name: Name, explicit: Path | None = None) -> pd.DataFrame:
    """Reads and checks a table: a row per person, complete.

    Raises:
      DataError: where the file is missing, damaged, short, or a column is missing or holds other than numbers.
    """
    path = needed(
        FOLDER,
        f"{name}.csv.gz",
        "export it from the R package nlpsem or the repository Veronica0206/Extension_projects",
        explicit,
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
