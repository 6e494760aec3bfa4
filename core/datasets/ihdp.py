"""IHDP: ten semi-synthetic replications of a trial's covariates with simulated outcomes (Hill 2011; Louizos et al.)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from core.datasets.raw import needed, one, reading
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
    with reading(path, "an npz file"), np.load(path, allow_pickle=False) as file:
        fields = {name: file[name] for name in file.files}
    for name in ("x", "t", "y", "mu0", "mu1"):
        if name not in fields:
            raise DataError(f"{path}: field {name!r} is missing; it has {', '.join(fields)}")
        if fields[name].ndim != 2 or not fields[name].size or not np.isfinite(fields[name]).all():
            raise DataError(f"{path}: field {name!r} is not a table of finite numbers; get the file again")
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


def split(replication: int, people: int) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Our split, as there is no official one: a permutation by ``default_rng(replication)``, 672 first to train."""
    order = np.random.default_rng(replication).permutation(people)
    return order[:TRAIN], order[TRAIN:]
