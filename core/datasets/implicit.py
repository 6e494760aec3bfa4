"""TFDS builders of the implicit-feedback data sets, one record per user, written as ArrayRecord."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from core.datasets.interactions import (
    Interactions,
    from_rows,
    group_pairs,
    require_pointers,
    require_range,
    split_last,
    validate,
)
from core.datasets.prepared import prepared, records
from core.datasets.raw import Source, find, read_npz, read_rows, require_lines, verify
from core.errors import DataError

LIGHTGCN = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/947ca2b3b1d2d3545b114145710cb06c4e57b3d2/data"
SEQUENCES = "https://raw.githubusercontent.com/Wenyueh/LLM-RecSys-ID/2200ad9fef647ef755c01d6d7e5c5de3082606c5/data"


class Rows(NamedTuple):
    """Training and test items of each user: oldest first where the data set is ordered in time."""

    train: list[np.ndarray]
    test: list[np.ndarray]
    num_items: int


class ImplicitBuilder(tfds.core.GeneratorBasedBuilder):
    """What the four data sets share: a record per user with her training and test items."""

    VERSION = tfds.core.Version("1.1.0")
    """To be raised whenever the records change: prepared sets of another version are not read."""
    LOCAL: ClassVar[str]
    """Name of the npz file in the data directory."""
    SOURCES: ClassVar[tuple[Source, ...]]
    TITLE: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    LICENCE: ClassVar[str]
    CITATION: ClassVar[str]
    ORDERED: ClassVar[bool] = False
    """Whether a user's items are in the order of time."""

    @classmethod
    def parse_local(cls, path: Path) -> Rows:
        """Reads the npz file."""
        raise NotImplementedError

    @classmethod
    def parse_sources(cls, paths: list[Path]) -> Rows:
        """Reads the files as published."""
        raise NotImplementedError

    @classmethod
    def locate(cls, explicit: Path | None = None) -> list[Path]:
        """The raw files; see :func:`core.datasets.raw.find`."""
        return find(cls.name, [cls.LOCAL], cls.SOURCES, explicit)

    @classmethod
    def parse(cls, paths: list[Path]) -> Rows:
        """The validated rows of raw files of either kind."""
        local = paths[0].name == cls.LOCAL
        rows = cls.parse_local(paths[0]) if local else cls.parse_sources(paths)
        from_rows(*rows, " and ".join(map(str, paths)))
        if not local:
            verify(paths, cls.SOURCES)
        return rows

    def _info(self) -> tfds.core.DatasetInfo:
        items = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.TITLE,
            homepage=self.HOMEPAGE,
            license=self.LICENCE,
            citation=self.CITATION,
            features=tfds.features.FeaturesDict({"user": np.int32, "train": items, "test": items}),
            metadata=tfds.core.MetadataDict(),
        )

    def __init__(self, *, raw: list[Path] | None = None, **options: Any):
        self._raw = raw
        super().__init__(**options)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        rows = self.parse(self._raw or self.locate())
        assert self.info.metadata is not None
        self.info.metadata["items"] = rows.num_items
        return {"users": _records(rows)}

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError("records come with the split")


def _records(rows: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
    for user, (train, test) in enumerate(zip(rows.train, rows.test, strict=True)):
        yield user, {"user": user, "train": train.astype(np.int32), "test": test.astype(np.int32)}


class _SplitBuilder(ImplicitBuilder):
    """Sets of items, divided into training and test by those who published them."""

    @classmethod
    def parse_local(cls, path: Path) -> Rows:
        arrays = read_npz(path, ("train_indptr", "train_items", "test_indptr", "test_items", "shape"))
        if arrays["shape"].shape != (2,):
            raise DataError(f"{path}: field 'shape' has shape {arrays['shape'].shape}, not (2,)")
        users, items = arrays.pop("shape").tolist()
        data = validate(Interactions(**arrays, shape=(users, items)), str(path))
        train = np.split(data.train_items, data.train_indptr[1:-1])
        return Rows(train, np.split(data.test_items, data.test_indptr[1:-1]), items)


class LastfmCf(_SplitBuilder):
    """Last.FM artists."""

    name = "lastfm_cf"
    LOCAL = "lastfm_cf.npz"
    SOURCES = (
        Source(f"{LIGHTGCN}/lastfm/data1.txt", "c82af3228cbbda2f55a39244de09ed93292894f1d0d9f1908ebb57e27598fded"),
        Source(f"{LIGHTGCN}/lastfm/test1.txt", "de4417c0e6123284ce59a0934bcf5288ec1ec8774a18a1eef453c9952dfa48f9"),
    )
    TITLE = "Last.FM: which of 1,892 listeners played which of 4,489 artists (HetRec 2011)"
    HOMEPAGE = "https://grouplens.org/datasets/hetrec-2011/"
    LICENCE = "non-commercial use (HetRec 2011, GroupLens and Last.fm)"
    CITATION = "Cantador, Brusilovsky, Kuflik: HetRec 2011, RecSys 2011"
    USERS, ITEMS = 1892, 4489

    @classmethod
    def parse_sources(cls, paths: list[Path]) -> Rows:
        """Lines of user, artist and play count, numbered from 1."""
        return Rows(cls._grouped(paths[0]), cls._grouped(paths[1]), cls.ITEMS)

    @classmethod
    def _grouped(cls, path: Path) -> list[np.ndarray]:
        pairs = read_rows(path, columns=3, keep=2)
        require_lines([pair[:1] for pair in pairs], 1, cls.USERS, path, "user")
        require_lines([pair[1:] for pair in pairs], 1, cls.ITEMS, path, "item")
        return group_pairs(np.stack(pairs) - 1, cls.USERS)


class Gowalla(_SplitBuilder):
    """Gowalla check-ins."""

    name = "gowalla"
    LOCAL = "gowalla.npz"
    SOURCES = (
        Source(f"{LIGHTGCN}/gowalla/s_adj_mat.npz", "6ab3ab7aa1278da3717054c60258d88d2d2d78914fa62db2b13da9321e397cab"),
        Source(f"{LIGHTGCN}/gowalla/test.txt", "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3"),
    )
    TITLE = "Gowalla: which of 29,858 users checked in at which of 40,981 places (split of NGCF and LightGCN)"
    HOMEPAGE = "https://snap.stanford.edu/data/loc-gowalla.html"
    LICENCE = "none stated (SNAP loc-gowalla; the NGCF repository is MIT)"
    CITATION = "Cho, Myers, Leskovec: Friendship and Mobility, KDD 2011; Wang et al.: NGCF, SIGIR 2019"
    USERS, ITEMS = 29858, 40981

    @classmethod
    def parse_sources(cls, paths: list[Path]) -> Rows:
        """A symmetric adjacency matrix in CSR form for training; lines of a user and her items for the test."""
        return Rows(cls.neighbours(paths[0]), cls.listed(paths[1]), cls.ITEMS)

    @classmethod
    def neighbours(cls, path: Path) -> list[np.ndarray]:
        """The items of each user in the matrix of users and items by users and items."""
        indptr, indices = read_npz(path, ("indptr", "indices")).values()
        if len(indptr) != cls.USERS + cls.ITEMS + 1:
            raise DataError(f"{path}: field 'indptr' has {len(indptr)} elements, not {cls.USERS + cls.ITEMS + 1}")
        require_pointers(indptr, len(indices), f"{path}: field 'indptr'")
        indptr = indptr[: cls.USERS + 1]
        require_range(indices[: indptr[-1]], cls.USERS, cls.USERS + cls.ITEMS - 1, f"{path}: field 'indices'")
        return np.split(indices[: indptr[-1]] - cls.USERS, indptr[1:-1])

    @classmethod
    def listed(cls, path: Path) -> list[np.ndarray]:
        """The items of each user in lines of a user and her items."""
        lines = read_rows(path)
        require_lines([line[:1] for line in lines], 0, cls.USERS - 1, path, "user")
        require_lines([line[1:] for line in lines], 0, cls.ITEMS - 1, path, "item")
        rows: dict[int, np.ndarray] = {}
        for number, line in enumerate(lines, 1):
            if line[0] in rows:
                raise DataError(f"{path}, line {number}: user {line[0]} is there twice; remove one of the lines")
            rows[int(line[0])] = line[1:]
        return [rows.get(user, np.zeros(0, np.int64)) for user in range(cls.USERS)]


class _AmazonSequences(ImplicitBuilder):
    """Purchases in order of time; the last fifth of each sequence is the test part."""

    HOMEPAGE = "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html"
    LICENCE = "research use (Amazon product data, J. McAuley; no licence stated)"
    CITATION = "McAuley, Targett, Shi, van den Hengel: Image-based Recommendations, SIGIR 2015"
    ORDERED = True
    ITEMS: ClassVar[int]

    @classmethod
    def parse_local(cls, path: Path) -> Rows:
        """Items numbered from 1."""
        indptr, items = read_npz(path, ("seq_indptr", "seq_items")).values()
        require_pointers(indptr, len(items), f"{path}: field 'seq_indptr'")
        require_range(items, 1, cls.ITEMS, f"{path}: field 'seq_items'")
        return cls._split(np.split(items, indptr[1:-1]), f"{path}: sequence")

    @classmethod
    def parse_sources(cls, paths: list[Path]) -> Rows:
        """A line per user: her number and her items, numbered from 1."""
        rows = [row[1:] for row in read_rows(paths[0])]
        require_lines(rows, 1, cls.ITEMS, paths[0], "item")
        return cls._split(rows, f"{paths[0]}, line")

    @classmethod
    def _split(cls, sequences: list[np.ndarray], where: str) -> Rows:
        for number, sequence in enumerate(sequences, 1):
            if not 0 < len(set(sequence.tolist())) == len(sequence):
                what = "names an item twice" if len(sequence) else "has no item"
                raise DataError(f"{where} {number} {what}; correct or remove it")
        return Rows(*split_last([sequence - 1 for sequence in sequences]), cls.ITEMS)


class AmazonBeauty(_AmazonSequences):
    """Amazon Beauty."""

    name = "amazon_beauty"
    LOCAL = "beauty.npz"
    ITEMS = 12101
    SOURCES = (
        Source(
            f"{SEQUENCES}/beauty/sequential_data.txt",
            "f85a84ab47d70e82bf0e7301804270af10fb51e127ab8f0885697d593f6f6d43",
        ),
    )
    TITLE = "Amazon Beauty: what 22,363 customers bought of 12,101 products, in order (2014, 5-core)"


class AmazonSports(_AmazonSequences):
    """Amazon Sports and Outdoors."""

    name = "amazon_sports"
    LOCAL = "sports.npz"
    ITEMS = 18357
    SOURCES = (
        Source(
            f"{SEQUENCES}/sports/sequential_data.txt",
            "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
        ),
    )
    TITLE = "Amazon Sports: what 35,598 customers bought of 18,357 products, in order (2014, 5-core)"


BUILDERS: dict[str, type[ImplicitBuilder]] = {b.name: b for b in (LastfmCf, Gowalla, AmazonBeauty, AmazonSports)}


def read(
    name: str, data_dir: Path | None = None, *, ordered: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray], int, str]:
    """Training and test items of each user, the number of items, and their folder; prepared first if need be.

    Args:
      name: of the data set.
      data_dir: where raw files lie.
      ordered: whether the items must be in the order of time.
    """
    if name not in BUILDERS:
        raise DataError(f"there is no data set {name!r}; known are {', '.join(BUILDERS)}")
    if ordered and not BUILDERS[name].ORDERED:
        known = ", ".join(name for name, builder in BUILDERS.items() if builder.ORDERED)
        raise DataError(f"the items of data set {name!r} have no order of time; those of {known} have")
    builder = prepared(BUILDERS[name], BUILDERS[name].locate(data_dir))
    rows = sorted(records(builder, "users"), key=lambda row: row["user"])
    train, test = ([row[part] for row in rows] for part in ("train", "test"))
    return train, test, builder.info.metadata["items"], str(builder.data_path)
