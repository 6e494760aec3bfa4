"""Morpho-MNIST whose stroke thickness causes intensity: 10,000 digits with the attributes they were made with."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from core.checks import checked
from core.datasets.interactions import require_range
from core.datasets.mnist import CLASSES, SIDE, read_idx
from core.datasets.raw import Source, find, here, read_arrays, reading, require_columns
from core.errors import DataError

Split = Literal["train", "test"]

FOLDER = "morphomnist_ti"
ORIGIN = (
    "https://raw.githubusercontent.com/biomedia-mira/deepscm/2dbfcde0d1fed63553c993d4abe4a74a59dc05d0/"
    "assets/data/morphomnist"
)
SOURCES = (
    Source(f"{ORIGIN}/t10k-images-idx3-ubyte.gz", "13163afd89dc4073b274b037485cf583d3ef58c3dd7ff65563fd6d8c21098068"),
    Source(f"{ORIGIN}/t10k-labels-idx1-ubyte.gz", "c3a7e01fcb887415fb67b58c21d195e212206472670865e798b7fb03d3504e2d"),
    Source(f"{ORIGIN}/t10k-morpho.csv", "426911a6baba7f1009de28f2d76bf86c8a91815ecc9ac0f454ef52dab2f19f43"),
)
LOCAL = (*(source.name for source in SOURCES[:2]), "attributes.npz")
"""The other layout: attributes of several splits in one file, each under the split's name."""
ATTRIBUTES = {"thickness": "stroke width in pixels", "intensity": "grey level of the stroke, 64 to 255"}
LARGEST = {"thickness": SIDE, "intensity": 255}
EVERY = 5
"""One row of so many is for test."""


class Strokes(NamedTuple):
    """Images of digits and what they were made with."""

    images: Float[np.ndarray, "n 28 28 1"]
    """In [0, 1]."""
    thickness: Float[np.ndarray, " n"]
    """In pixels, as it was aimed at."""
    intensity: Float[np.ndarray, " n"]
    """In grey levels of 0 to 255, as it was aimed at."""
    digit: Int[np.ndarray, " n"]


def locate(explicit: Path | None = None) -> list[Path] | None:
    """The files of images, digits and attributes in the data directory, if they are there; fetches nothing."""
    return here((FOLDER,), (LOCAL, [source.name for source in SOURCES]), explicit)


@checked
def load(split: Split | None = None, data_dir: Path | None = None) -> Strokes:
    """The 10,000 digits (None), or of each five rows the first four ("train": 8,000) or the last ("test": 2,000).

    The rows are those of MNIST's test part, whose second half comes from other writers than the first: hence rows of
    both halves on either side of the split.

    Raises:
      DataError: for files that are nowhere to be had, damaged or not what they should be.
    """
    strokes = parse(find(FOLDER, LOCAL, SOURCES, data_dir))
    if split is None:
        return strokes
    test = np.arange(len(strokes.digit)) % EVERY == EVERY - 1
    return Strokes(*(column[test if split == "test" else ~test] for column in strokes))


def parse(paths: list[Path]) -> Strokes:
    """The validated contents of a file of images, one of digits and one of attributes (npz or CSV)."""
    images, digit = read_idx(paths[0], dimensions=3), read_idx(paths[1], dimensions=1)
    if not len(images) or images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{paths[0]}: field 'images' has shape {images.shape}, not (n, {SIDE}, {SIDE}) with n > 0; get it again"
        )
    attributes = _npz(paths[2]) if paths[2].suffix == ".npz" else _csv(paths[2])
    for path, field, column in ((paths[1], "labels", digit), *((paths[2], *item) for item in attributes.items())):
        if len(column) != len(images):
            raise DataError(
                f"{path}: field {field!r} has {len(column)} rows for the {len(images)} images of {paths[0]}; get both "
                "again"
            )
    require_range(digit, 0, CLASSES - 1, f"{paths[1]}: field 'labels'")
    scaled = images[..., None].astype(np.float32) / 255
    return Strokes(scaled, attributes["thickness"], attributes["intensity"], digit.astype(np.int32))


def _npz(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, [f"test_{name}" for name in ATTRIBUTES])
    return {name: _checked(name, arrays[f"test_{name}"], f"{path}: field 'test_{name}'") for name in ATTRIBUTES}


def _csv(path: Path) -> dict[str, np.ndarray]:
    with reading(path, "a text file of numbers"):
        header, *lines = path.read_text(encoding="ascii").split()
        names = header.split(",")
        require_columns(names, ATTRIBUTES, str(path))
        table = np.array([[float(cell) for cell in line.split(",")] for line in lines]).reshape(len(lines), len(names))
    return {name: _checked(name, table[:, names.index(name)], f"{path}: field {name!r}") for name in ATTRIBUTES}


def _checked(name: str, column: np.ndarray, where: str) -> Float[np.ndarray, " n"]:
    if column.ndim != 1 or column.dtype.kind != "f":
        raise DataError(f"{where} has type {column.dtype} and shape {column.shape}, not a list of floats; get it again")
    bad = np.flatnonzero(~((column > 0) & (column <= LARGEST[name])))
    if bad.size:
        raise DataError(
            f"{where}, element {bad[0]} is {column[bad[0]]}; positive numbers up to {LARGEST[name]} are needed; get it "
            "again"
        )
    return column.astype(np.float32)
