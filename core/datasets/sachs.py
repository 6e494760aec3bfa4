"""Protein signalling of single cells under nine experimental conditions (Sachs et al., Science 2005)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from core.datasets.raw import needed, one, read_arrays, require_numbers
from core.errors import DataError

FOLDER, FILE = "sachs_interventions", "sachs.npz"
CELLS, PROTEINS, CONDITIONS = 7466, 11, 9
SHAPES = {
    "x": (CELLS, PROTEINS),
    "env": (CELLS,),
    "env_names": (CONDITIONS,),
    "variables": (PROTEINS,),
    "consensus_parents": (PROTEINS, PROTEINS),
}


class Cells(NamedTuple):
    """Measured cells and what biology has agreed on."""

    intensities: Float[np.ndarray, "cells proteins"]
    """Raw and positive; take logarithms for linear models."""
    condition: Int[np.ndarray, " cells"]
    conditions: list[str]
    proteins: list[str]
    consensus: Bool[np.ndarray, "proteins proteins"]
    """``consensus[i, j]`` where j is a parent of i, 20 edges."""


def locate(explicit: Path | None = None) -> Path | None:
    """The file in the data directory, if it is there."""
    return one(FOLDER, FILE, explicit)


def load(explicit: Path | None = None) -> Cells:
    """Reads and checks the cells.

    Raises:
      DataError: where the file is missing or damaged, or a field is missing, misshapen or out of range.
    """
    path = needed(FOLDER, FILE, "make it from real/sachs of the repository cmu-phil/example-causal-datasets", explicit)
    fields = read_arrays(path, list(SHAPES))
    for name, shape in SHAPES.items():
        if fields[name].shape != shape:
            raise DataError(f"{path}: field {name!r} has shape {fields[name].shape}, not {shape}; get the file again")
    for name in ("x", "env", "consensus_parents"):
        require_numbers(fields[name], f"{path}: field {name!r}")
    _require(path, "x", "positive and finite", np.isfinite(fields["x"]) & (fields["x"] > 0))
    _require(path, "env", f"0 to {CONDITIONS - 1}", np.isin(fields["env"], np.arange(CONDITIONS)))
    _require(path, "consensus_parents", "0 or 1", np.isin(fields["consensus_parents"], (0, 1)))
    return Cells(
        fields["x"].astype(np.float64),
        fields["env"].astype(np.int64),
        [str(name) for name in fields["env_names"]],
        [str(name) for name in fields["variables"]],
        fields["consensus_parents"] == 1,
    )


def _require(path: Path, field: str, what: str, good: np.ndarray) -> None:
    if not good.all():
        where = ", ".join(map(str, np.argwhere(~good)[0]))
        raise DataError(f"{path}: field {field!r}, element [{where}] is not {what}; get the file again")
