"""Satellite images and experimental units of the Youth Opportunities Program in northern Uganda.

Blattman, Fiala, Martinez, QJE 2014; public version of the repository cjerzak/causalimages-software.
"""

import gzip
import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8

from core.checks import checked
from core.datasets.raw import needed, one, read_arrays, reading, require_columns, whole_numbers
from core.errors import DataError

FOLDER = "uganda_yop_images"
UNITS = "units.csv.gz"
NEEDED = {"image_key": "the unit's image", "treat": "assignment", "outcome": "the outcome"}
COVARIATES = {"c1": "a covariate", "c2": "a covariate", "c3": "a covariate"}
"""Cells of these may be empty."""
Tiles = Literal["images35", "wide39"]
"""The central 35 x 35 pixels of each tile, or all of it in 39 x 39 blocks."""
SIDES: dict[Tiles, int] = {"images35": 35, "wide39": 39}
REMEDY = "get it from the source that `relic data list` names"


class Images(NamedTuple):
    """Landsat tiles of three bands, about the year 2000."""

    key: Int[np.ndarray, " images"]
    pixels: UInt8[np.ndarray, "images h w 3"]


class Places(NamedTuple):
    """Where tiles lie, rounded to a tenth of a degree; NaN where unknown."""

    longitude: Float[np.ndarray, " images"]
    latitude: Float[np.ndarray, " images"]


class Trial(NamedTuple):
    """People, each tied to an image."""

    image_key: Int[np.ndarray, " n"]
    treated: Int[np.ndarray, " n"]
    outcome: Float[np.ndarray, " n"]
    covariates: Float[np.ndarray, "n 3"]
    """NaN where missing."""


def locate(explicit: Path | None = None) -> Path | None:
    """The file of the units in the data directory, if it is there."""
    return one(FOLDER, UNITS, explicit)


@checked
def images(tiles: Tiles, explicit: Path | None = None) -> Images:
    """Reads and checks the images, one per key.

    Raises:
      DataError: where the file is missing, damaged, or not as it should be; names the field.
    """
    path = needed(FOLDER, f"{tiles}.npz", REMEDY, explicit)
    keys, pixels = _fields(path, "keys", "images")
    expected = (len(keys) if keys.ndim == 1 else 0, SIDES[tiles], SIDES[tiles], 3)
    if keys.ndim != 1 or not len(keys) or pixels.shape != expected or pixels.dtype != np.uint8:
        raise DataError(
            f"{path}: field 'images' is {pixels.dtype} of shape {pixels.shape} for keys of shape {keys.shape}; uint8 "
            f"of shape (keys, {SIDES[tiles]}, {SIDES[tiles]}, 3) is needed"
        )
    if len(np.unique(keys)) < len(keys):
        raise DataError(f"{path}: field 'keys' names an image twice; get the file again")
    return Images(whole_numbers(keys, f"{path}: field 'keys'"), pixels)


def places(explicit: Path | None = None) -> Places:
    """Where the whole tiles lie, in their order.

    Raises:
      DataError: where the file is missing, damaged, or lacks them.
    """
    path = needed(FOLDER, "wide39.npz", REMEDY, explicit)
    keys, longitude, latitude = _fields(path, "keys", "lon_rounded", "lat_rounded")
    whole_numbers(keys, f"{path}: field 'keys'")
    for name, values in (("lon_rounded", longitude), ("lat_rounded", latitude)):
        if keys.ndim != 1 or not len(keys) or values.shape != keys.shape or values.dtype.kind != "f":
            raise DataError(f"{path}: field {name!r} is not a number for each key; get the file again")
    return Places(longitude, latitude)


def _fields(path: Path, *names: str) -> list[np.ndarray]:
    return list(read_arrays(path, names).values())


def units(explicit: Path | None = None) -> Trial:
    """Reads and checks the units.

    Raises:
      DataError: where the file is missing, damaged, or a value is not as it should be; names line and column.
    """
    path = needed(FOLDER, UNITS, REMEDY, explicit)
    with reading(path, "a gzip file of comma-separated values"):
        table = pd.read_csv(io.BytesIO(gzip.decompress(path.read_bytes())))
    require_columns(list(map(str, table.columns)), NEEDED | COVARIATES, str(path))
    if table.empty:
        raise DataError(f"{path}: no rows; get the file again")
    numbers = {name: _numbers(table, name, path) for name in NEEDED}
    _require(path, "treat", "0 or 1", np.isin(numbers["treat"], (0, 1)))
    _require(path, "image_key", "a whole number", numbers["image_key"] == np.floor(numbers["image_key"]))
    return Trial(
        numbers["image_key"].astype(np.int64),
        numbers["treat"].astype(np.int64),
        numbers["outcome"],
        np.column_stack([_numbers(table, name, path, may_be_empty=True) for name in COVARIATES]),
    )


def rows_of(trial: Trial, found: Images) -> Int[np.ndarray, " n"]:
    """The row of every unit's image.

    Raises:
      DataError: where a unit's image is not among them.
    """
    order = np.argsort(found.key)
    place = np.minimum(np.searchsorted(found.key[order], trial.image_key), len(order) - 1)
    row = order[place]
    absent = np.flatnonzero(found.key[row] != trial.image_key)
    if absent.size:
        raise DataError(f"{UNITS}, line {absent[0] + 2}: there is no image of key {trial.image_key[absent[0]]}")
    return row


def _numbers(table: pd.DataFrame, name: str, path: Path, may_be_empty: bool = False) -> Float[np.ndarray, " n"]:
    cells = np.asarray(pd.to_numeric(table[name], errors="coerce"), np.float64)
    _require(path, name, "a number", np.isfinite(cells) | (np.asarray(table[name].isna()) & may_be_empty))
    return cells


def _require(path: Path, column: str, what: str, good: np.ndarray) -> None:
    if not good.all():
        raise DataError(f"{path}, line {int(np.argmin(good)) + 2}: column {column!r} is not {what}; get the file again")
