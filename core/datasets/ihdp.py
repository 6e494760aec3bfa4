"""IHDP: ten semi-synthetic replications of a trial's covariates with simulated outcomes (Hill 2011; Louizos et al.)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from core.checks import Natural, checked
from core.datasets.raw import needed, one, read_arrays, require_finite_numbers
from core.errors import DataError

FOLDER, FILE = "ihdp10", "ihdp10.npz"
TRAIN = 672


class Replication(NamedTuple):
    """One simulation; the treated differ from the controls."""

    x: Float[np.ndarray, "n 25"]
    t: Int[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    effect: Float[np.ndarray, " n"]
    """mu1 - mu0."""


def locate(explicit: Path | None = None) -> Path | None:
    """The raw file in the data directory, if it is there."""
    return one(FOLDER, FILE, explicit)


def load(explicit: Path | None = None) -> list[Replication]:
    """Reads and checks all replications.

    Raises:
      DataError: where the file is missing, damaged, or a field is missing or not as it should be.
    """
    path = needed(FOLDER, FILE, "get it from the source that `relic data list` names", explicit)
    fields = read_arrays(path, ("x", "t", "y", "mu0", "mu1"))
    for name, array in fields.items():
        if array.ndim != 2:
            raise DataError(f"{path}: field {name!r} is not a table: its shape is {array.shape}; get the file again")
        require_finite_numbers(array, f"{path}: field {name!r}")
    people = len(fields["x"])
    for name in ("t", "y", "mu0", "mu1"):
        expected = (len(fields["t"]), people)
        if fields[name].shape != expected:
            raise DataError(f"{path}: field {name!r} has shape {fields[name].shape}; {expected} is needed")
    if not np.isin(fields["t"], (0, 1)).all():
        raise DataError(f"{path}: field 't' holds other values than 0 and 1; get the file again")
    x = fields["x"].astype(np.float32)
    return [
        Replication(x, t.astype(np.int64), y, mu1 - mu0)
        for t, y, mu0, mu1 in zip(fields["t"], fields["y"], fields["mu0"], fields["mu1"], strict=True)
    ]


@checked
def split(replication: Natural, people: Natural) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Our split, as there is no official one: a permutation by ``default_rng(replication)``, 672 first to train."""
    order = np.random.default_rng(replication).permutation(people)
    return order[:TRAIN], order[TRAIN:]
