"""TFDS builders of the implicit-feedback data sets, one record per user, written as ArrayRecord."""

import contextlib
import fcntl
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from core.datasets import cache_dir, interactions
from core.datasets.interactions import Interactions
from core.datasets.raw import Source, digest, find, read_npz, read_rows
from core.errors import DataError

FIELDS = ("train_indptr", "train_items", "test_indptr", "test_items", "shape")
LIGHTGCN = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/947ca2b3b1d2d3545b114145710cb06c4e57b3d2/data"
SEQUENCES = "https://raw.githubusercontent.com/Wenyueh/LLM-RecSys-ID/2200ad9fef647ef755c01d6d7e5c5de3082606c5/data"


class ImplicitBuilder(tfds.core.GeneratorBasedBuilder):
    """What the four data sets share: a record per user with her training and test items."""

    VERSION = tfds.core.Version("1.0.0")
    LOCAL: ClassVar[str]
    """Name of the npz file in the data directory."""
    SOURCES: ClassVar[tuple[Source, ...]]
    TITLE: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    LICENCE: ClassVar[str]
    CITATION: ClassVar[str]

    @staticmethod
    def parse_local(path: Path) -> Interactions:
        """Reads the npz file."""
        raise NotImplementedError

    @staticmethod
    def parse_sources(paths: list[Path]) -> Interactions:
        """Reads the files as published."""
        raise NotImplementedError

    @classmethod
    def locate(cls, explicit: Path | None = None) -> list[Path]:
        """The raw files; see :func:`core.datasets.raw.find`."""
        return find(cls.name, [cls.LOCAL], cls.SOURCES, explicit)

    @classmethod
    def parse(cls, paths: list[Path]) -> Interactions:
        """The validated interactions of raw files of either kind."""
        return cls.parse_local(paths[0]) if paths[0].name == cls.LOCAL else cls.parse_sources(paths)

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
        data = self.parse(self._raw or self.locate())
        assert self.info.metadata is not None
        self.info.metadata["items"] = data.shape[1]
        return {"users": _records(data)}

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError("records come with the split")


def _records(data: Interactions) -> Iterator[tuple[int, dict[str, Any]]]:
    for user in range(data.shape[0]):
        train = data.train_items[data.train_indptr[user] : data.train_indptr[user + 1]]
        test = data.test_items[data.test_indptr[user] : data.test_indptr[user + 1]]
        yield user, {"user": user, "train": train, "test": test}


def _parse_split(path: Path) -> Interactions:
    """An npz file with rows of training and test items."""
    arrays = read_npz(path, FIELDS)
    if arrays["shape"].shape != (2,):
        raise DataError(f"{path}: field 'shape' has shape {arrays['shape'].shape}, not (2,)")
    users, items = arrays.pop("shape").tolist()
    return interactions.validate(Interactions(**arrays, shape=(users, items)), str(path))


class LastfmCf(ImplicitBuilder):
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

    parse_local = staticmethod(_parse_split)

    @staticmethod
    def parse_sources(paths: list[Path]) -> Interactions:
        """Lines of user, artist and play count, numbered from 1."""
        train, test = (np.stack(read_rows(path, columns=3, keep=2)) - 1 for path in paths)
        return interactions.from_pairs(train, test, (1892, 4489), " and ".join(map(str, paths)))


class Gowalla(ImplicitBuilder):
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

    parse_local = staticmethod(_parse_split)

    @staticmethod
    def parse_sources(paths: list[Path]) -> Interactions:
        """A symmetric adjacency matrix in CSR form for training; lines of a user and her items for the test."""
        users, items, source = 29858, 40981, " and ".join(map(str, paths))
        adjacency = read_npz(paths[0], ("indptr", "indices"))
        indptr = adjacency["indptr"]
        if indptr.shape != (users + items + 1,):
            raise DataError(f"{paths[0]}: field 'indptr' has shape {indptr.shape}, not ({users + items + 1},)")
        train = [adjacency["indices"][indptr[u] : indptr[u + 1]] - users for u in range(users)]
        test = [np.zeros(0, np.int64)] * users
        for row in read_rows(paths[1]):
            if not 0 <= row[0] < users:
                raise DataError(f"{paths[1]}: user {row[0]} is outside of 0 to {users - 1}")
            test[row[0]] = row[1:]
        return interactions.from_rows(train, test, items, source)


class _AmazonSequences(ImplicitBuilder):
    """Purchases in order of time; the last fifth of each sequence is the test part."""

    HOMEPAGE = "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html"
    LICENCE = "research use (Amazon product data, J. McAuley; no licence stated)"
    CITATION = "McAuley, Targett, Shi, van den Hengel: Image-based Recommendations, SIGIR 2015"
    ITEMS: ClassVar[int]

    @classmethod
    def parse_local(cls, path: Path) -> Interactions:
        arrays = read_npz(path, ("seq_indptr", "seq_items"))
        if np.any(np.diff(arrays["seq_indptr"]) < 0) or arrays["seq_indptr"][-1] != len(arrays["seq_items"]):
            raise DataError(f"{path}: field 'seq_indptr' does not describe {len(arrays['seq_items'])} items in order")
        return cls._split(np.split(arrays["seq_items"], arrays["seq_indptr"][1:-1]), str(path))

    @classmethod
    def parse_sources(cls, paths: list[Path]) -> Interactions:
        return cls._split([row[1:] for row in read_rows(paths[0])], str(paths[0]))

    @classmethod
    def _split(cls, sequences: list[np.ndarray], source: str) -> Interactions:
        train, test = interactions.split_last([sequence - 1 for sequence in sequences])
        return interactions.from_rows(train, test, cls.ITEMS, source)


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


def read(name: str, data_dir: Path | None = None) -> Interactions:
    """A data set from its ArrayRecord files, which are prepared first if need be."""
    if name not in BUILDERS:
        raise DataError(f"there is no data set {name!r}; known are {', '.join(BUILDERS)}")
    builder = prepared(BUILDERS[name], BUILDERS[name].locate(data_dir))
    source = builder.as_data_source("users")
    rows = sorted(source.__getitems__(range(len(source))), key=lambda row: row["user"])
    assert builder.info.metadata is not None
    train, test = ([row[part] for row in rows] for part in ("train", "test"))
    return interactions.from_rows(train, test, builder.info.metadata["items"], str(builder.data_path))


def prepared(builder_class: Callable[..., Any], raw: list[Path]) -> Any:
    """A builder whose ArrayRecord files are on disk, in a folder named by the checksum of its raw files."""
    folder = cache_dir() / "tfds" / digest(*raw)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    builder = builder_class(raw=raw, data_dir=str(folder), file_format="array_record")
    with open(folder / ".lock", "w") as lock, contextlib.redirect_stdout(io.StringIO()):
        fcntl.flock(lock, fcntl.LOCK_EX)
        tfds.disable_progress_bar()
        builder.download_and_prepare()
    return builder
