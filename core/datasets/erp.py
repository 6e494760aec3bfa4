"""Averaged and single-trial ERPs of three public studies, as npz files.

erp_uci_subject_means: one average per person of the UCI EEG database, alcoholic or not; erp_smni_train: single trials
of 20 people of the same database; erp_impulsivity: stop-signal averages of people of high and low impulsivity.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from core.checks import checked
from core.datasets.raw import needed, one, read_arrays, require_finite_numbers, whole_numbers
from core.errors import DataError

Name = Literal["erp_uci_subject_means", "erp_smni_train", "erp_impulsivity"]
FILES: dict[Name, str] = {
    "erp_uci_subject_means": "uci_s1_erp_61x64x64.npz",
    "erp_smni_train": "smni_train_8ch.npz",
    "erp_impulsivity": "impulsivity_erp.npz",
}
UCI_CHANNELS = tuple(
    """
    FP1 FP2 F7 F8 AF1 AF2 FZ F4 F3 FC6 FC5 FC2 FC1 T8 T7 CZ C3 C4 CP5 CP6 CP1 CP2 P3 P4 PZ P8 P7 PO2 PO1 O2 O1 X
    AF7 AF8 F5 F6 FT7 FT8 FPZ FC4 FC3 C6 C5 F2 F1 TP8 TP7 AFZ CP3 CP4 P5 P6 C1 C2 PO7 PO8 FCZ POZ OZ P2 P1 CPZ nd Y
    """.split()  # noqa: SIM905
)
"""The order of the database's files."""
SMNI_CHANNELS = ("FZ", "CZ", "PZ", "FCZ", "CPZ", "OZ", "P3", "P4")


class SubjectMeans(NamedTuple):
    """One ERP per person, 1 s in 64 bins after a single stimulus."""

    erp: Float[np.ndarray, "people 64 64"]
    alcoholic: Int[np.ndarray, " people"]


class SingleTrials(NamedTuple):
    """Trials of 1 s at 256 Hz in the order of the file."""

    x: Float[np.ndarray, "trials 8 256"]
    subject: Int[np.ndarray, " trials"]
    alcoholic: Int[np.ndarray, " trials"]
    condition: Int[np.ndarray, " trials"]
    """0 first object, 1 second object matching, 2 second object not matching."""


class StopSignal(NamedTuple):
    """Averages of failed and successful stops at FCZ, CZ, CPZ over 1 s in steps of 2 ms."""

    erp: Float[np.ndarray, "people 2 3 501"]
    high_impulsivity: Int[np.ndarray, " people"]


@checked
def locate(name: Name, explicit: Path | None = None) -> Path | None:
    """The raw file in the data directory, if it is there."""
    return one(name, FILES[name], explicit)


def subject_means(explicit: Path | None = None) -> SubjectMeans:
    """The averages of the UCI EEG database."""
    name: Name = "erp_uci_subject_means"
    arrays = _load(name, {"erp": (None, 64, 64), "alcoholic": (None,)}, explicit)
    return SubjectMeans(arrays["erp"], _classes(arrays["alcoholic"], 2, f"{name}: alcoholic"))


def single_trials(explicit: Path | None = None) -> SingleTrials:
    """The single trials of the UCI EEG database."""
    name: Name = "erp_smni_train"
    wanted = {"x": (None, 8, 256), "subject": (None,), "alcoholic": (None,), "condition": (None,)}
    arrays = _load(name, wanted, explicit)
    return SingleTrials(
        arrays["x"],
        whole_numbers(arrays["subject"], f"{name}: subject"),
        _classes(arrays["alcoholic"], 2, f"{name}: alcoholic"),
        _classes(arrays["condition"], 3, f"{name}: condition"),
    )


def stop_signal(explicit: Path | None = None) -> StopSignal:
    """The averages of the stop-signal study."""
    name: Name = "erp_impulsivity"
    arrays = _load(name, {"erp": (None, 2, 3, 501), "high_impulsivity": (None,)}, explicit)
    return StopSignal(arrays["erp"], _classes(arrays["high_impulsivity"], 2, f"{name}: high_impulsivity"))


def _load(name: Name, wanted: dict[str, tuple[int | None, ...]], explicit: Path | None) -> dict[str, np.ndarray]:
    path = needed(name, FILES[name], "get it from the source that `relic data list` names", explicit)
    arrays = read_arrays(path, list(wanted))
    rows = None
    for field, shape in wanted.items():
        found = arrays[field]
        rows = found.shape[0] if rows is None and found.ndim else rows
        expected = (rows, *shape[1:])
        if found.shape != expected or not rows:
            raise DataError(f"{path}: field {field!r} has shape {found.shape} where {expected} is needed")
        require_finite_numbers(found, f"{path}: field {field!r}")
    return {field: array.astype(np.float32) if array.ndim > 1 else array for field, array in arrays.items()}


def _classes(values: np.ndarray, count: int, where: str) -> Int[np.ndarray, " n"]:
    strange = np.setdiff1d(values, np.arange(count))
    if strange.size:
        raise DataError(f"{where} is {strange[0]}; one of 0 to {count - 1} is needed")
    return values.astype(np.int64)
