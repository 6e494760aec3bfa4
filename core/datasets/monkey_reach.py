"""Motor-cortex spike counts with hand velocity of two monkeys that reach for targets, binned.

Dyer et al., A cryptography-based approach for movement decoding, Nature Biomedical Engineering 2017; the files hold
both parts, ``tr`` and ``te``, of the demonstration data that accompany the paper, and the authors ask to cite it.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from core.checks import checked
from core.datasets.raw import needed, one, read_arrays
from core.errors import DataError

Monkey = Literal["chewie", "mihi"]
Part = Literal["tr", "te"]
FOLDER = "monkey_reach_dad"
BINS = 31
"""Of each of chewie's trials; mihi's vary."""
FIRST_TRIAL: dict[Part, int] = {"tr": 0, "te": 20}
"""Where chewie's first whole trial begins; what follows the last one is a rest."""
FIELDS = {"counts": 2, "velocity": 2, "target": 1}


class Recording(NamedTuple):
    """Consecutive bins."""

    counts: Int[np.ndarray, "bins neurons"]
    velocity: Float[np.ndarray, "bins 2"]
    target: Int[np.ndarray, " bins"]


class Reaches(NamedTuple):
    """Trials of equal length."""

    counts: Float[np.ndarray, "trials T neurons"]
    velocity: Float[np.ndarray, "trials T 2"]
    target: Int[np.ndarray, " trials"]


@checked
def locate(monkey: Monkey, explicit: Path | None = None) -> Path | None:
    """The raw file in the data directory, if it is there."""
    return one(FOLDER, f"{monkey}.npz", explicit)


@checked
def load(monkey: Monkey, part: Part, explicit: Path | None = None) -> Recording:
    """Reads and checks one part of a monkey's recording.

    Raises:
      DataError: where the file is missing or damaged, or a field is missing, of another shape or not what it should be.
    """
    path = needed(FOLDER, f"{monkey}.npz", "make it from the demonstration data of Dyer et al. 2017", explicit)
    arrays = read_arrays(path, [f"{field}_{part}" for field in FIELDS])
    return _checked(path, part, {field: arrays[f"{field}_{part}"] for field in FIELDS})


def _checked(path: Path, part: Part, found: dict[str, np.ndarray]) -> Recording:
    for field, dimensions in FIELDS.items():
        array, where = found[field], f"{path}: field '{field}_{part}'"
        if array.ndim != dimensions or len(array) != len(found["counts"]) or not array.size:
            raise DataError(f"{where} has shape {array.shape}, which does not fit counts of {found['counts'].shape}")
        if array.dtype.kind not in "uif" or not np.isfinite(array).all():
            raise DataError(f"{where} holds other than finite numbers; make the file again")
    if found["velocity"].shape[1] != 2:
        raise DataError(f"{path}: field 'velocity_{part}' has {found['velocity'].shape[1]} columns, not 2")
    if found["counts"].dtype.kind == "f" or found["counts"].min() < 0:
        raise DataError(f"{path}: field 'counts_{part}' must hold whole numbers from 0; make the file again")
    return Recording(
        found["counts"].astype(np.int64), found["velocity"].astype(np.float32), found["target"].astype(np.int64)
    )


@checked
def reaches(part: Part, explicit: Path | None = None) -> Reaches:
    """Chewie's whole trials of 31 bins.

    Raises:
      DataError: as :func:`load`, and where a trial has more than one target or there is no whole trial.
    """
    recording = load("chewie", part, explicit)
    first = FIRST_TRIAL[part]
    count = (len(recording.target) - first) // BINS
    if count < 1:
        raise DataError(
            f"chewie, part {part}: {len(recording.target)} bins hold no trial of {BINS}; get the file again"
        )
    cut = [array[first : first + count * BINS].reshape(count, BINS, *array.shape[1:]) for array in recording]
    mixed = np.flatnonzero(np.ptp(cut[2], axis=1))
    if mixed.size:
        raise DataError(f"chewie, part {part}: trial {mixed[0]} has more than one target; the file is not as expected")
    return Reaches(cut[0].astype(np.float32), cut[1], cut[2][:, 0])
