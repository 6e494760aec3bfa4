"""TFDS builders of the data sets that are read whole: a record per row, written as ArrayRecord."""

import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from core.datasets import ihdp, sachs, uganda
from core.datasets.prepared import prepared, source
from core.datasets.raw import needed
from core.errors import DataError

Columns = Mapping[str, np.ndarray]
"""Arrays with a row per record."""
REMEDY = "get it from the source that `relic data list` names"


class Origin(NamedTuple):
    """Where a data set comes from."""

    title: str
    licence: str
    homepage: str


class Table(NamedTuple):
    """Records of one kind, in one file."""

    name: str
    origin: Origin
    folder: str
    """In the data directory."""
    file: str
    splits: Callable[[Path], dict[str, Columns]]
    """From the data directory, after all checks."""

    def raw(self, explicit: Path | None = None) -> Path:
        """Its file.

        Raises:
          DataError: where that is not in the data directory.
        """
        return needed(self.folder, self.file, REMEDY, explicit)


class TableBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A table's records, whose features have the types and shapes of its columns."""

    VERSION = tfds.core.Version("1.0.0")
    """To be raised whenever the records change: prepared sets of another version are not read."""
    name = "table"

    def __init__(self, *, table: Table, raw: list[Path], **options: Any):
        self._origin, self._splits = table.origin, table.splits(raw[0].parent.parent)
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        columns = next(iter(self._splits.values()))
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._origin.title,
            homepage=self._origin.homepage,
            license=self._origin.licence,
            features=tfds.features.FeaturesDict({name: _feature(column) for name, column in columns.items()}),
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        return {split: _records(columns) for split, columns in self._splits.items()}

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError("records come with the split")


def _feature(column: np.ndarray) -> Any:
    """As bytes: the other encoding keeps floats in single precision."""
    encoding = tfds.features.Encoding.BYTES
    return tfds.features.Tensor(shape=column.shape[1:], dtype=column.dtype.type, encoding=encoding)


def _records(columns: Columns) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    names = list(columns)
    for i, row in enumerate(zip(*columns.values(), strict=True)):
        yield i, dict(zip(names, row, strict=True))


def builder(table: Table, explicit: Path | None = None) -> Any:
    """The builder of a table, prepared.

    Raises:
      DataError: where the file is missing, damaged, or not as it should be.
    """
    kind = types.new_class(
        table.name, (TableBuilder,), {"skip_registration": True}, lambda own: own.update(name=table.name)
    )
    return prepared(partial(kind, table=table), [table.raw(explicit)])


def data_source(name: str, split: str, explicit: Path | None = None) -> Any:
    """The records of a split, for :class:`core.batches.GrainBatches`.

    Args:
      name: of one of :data:`TABLES`.
      split: its name there.
      explicit: the data directory; see :func:`core.datasets.data_dir`.

    Raises:
      DataError: as :func:`builder`, and where there is no such table or split.
    """
    if name not in TABLES:
        raise DataError(f"there is no table {name!r}; possible: {', '.join(TABLES)}")
    made = builder(TABLES[name], explicit)
    if split not in made.info.splits:
        raise DataError(f"{name} has no split {split!r}; possible: {', '.join(made.info.splits)}")
    return source(made, split)


UGANDA = Origin(
    "Youth Opportunities Program, northern Uganda: 2,082 people of a trial and 1,420 satellite images",
    "GPL-3 (cjerzak/causalimages-software)",
    "https://github.com/cjerzak/causalimages-software",
)
IHDP = Origin(
    "IHDP: 747 children's covariates with ten simulations of treatment effects",
    "no licence stated (AMLab-Amsterdam/CEVAE)",
    "https://github.com/AMLab-Amsterdam/CEVAE",
)
SACHS = Origin(
    "Sachs et al. 2005: 11 proteins in 7,466 cells under nine conditions",
    "CC0 1.0 (cmu-phil/example-causal-datasets)",
    "https://github.com/cmu-phil/example-causal-datasets",
)


def _trial(base: Path) -> dict[str, Columns]:
    return {"units": uganda.units(base)._asdict()}


def _tiles(tiles: uganda.Tiles, base: Path) -> dict[str, Columns]:
    return {"tiles": uganda.images(tiles, base)._asdict()}


def _replications(base: Path) -> dict[str, Columns]:
    return {f"replication_{i}": replication._asdict() for i, replication in enumerate(ihdp.load(base))}


def _cells(base: Path) -> dict[str, Columns]:
    found = sachs.load(base)
    return {"cells": {"intensities": found.intensities, "condition": found.condition}}


TABLES = {
    table.name: table
    for table in (
        Table("uganda_yop_units", UGANDA, uganda.FOLDER, uganda.UNITS, _trial),
        Table("uganda_yop_tiles35", UGANDA, uganda.FOLDER, "images35.npz", partial(_tiles, "images35")),
        Table("uganda_yop_tiles39", UGANDA, uganda.FOLDER, "wide39.npz", partial(_tiles, "wide39")),
        Table("ihdp10", IHDP, ihdp.FOLDER, ihdp.FILE, _replications),
        Table("sachs_interventions", SACHS, sachs.FOLDER, sachs.FILE, _cells),
    )
}
"""By name."""
