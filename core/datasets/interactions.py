"""Implicit feedback: which user interacted with which item, split into training and test."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from core.datasets.raw import require_columns
from core.errors import DataError


class Interactions(NamedTuple):
    """Binary user-item interactions in compressed rows: user u's training items are
    ``train_items[train_indptr[u]:train_indptr[u + 1]]``, ascending.

    Users without training items or without test items may occur: the former cannot be drawn for training and the
    latter do not count in evaluation.
    """

    train_indptr: Int[np.ndarray, " users_and_1"]
    train_items: Int[np.ndarray, " train"]
    test_indptr: Int[np.ndarray, " users_and_1"]
    test_items: Int[np.ndarray, " test"]
    shape: tuple[int, int]
    """(users, items)."""

    def statistics(self) -> dict[str, float]:
        """Counts that describe the data set."""
        (users, items), train, test = self.shape, len(self.train_items), len(self.test_items)
        return {
            "users": users,
            "items": items,
            "train": train,
            "test": test,
            "density": (train + test) / (users * items),
            "users_without_training_items": int(np.sum(np.diff(self.train_indptr) == 0)),
            "users_with_test_items": int(np.sum(np.diff(self.test_indptr) > 0)),
        }


def load(name: str, data_dir: Path | None = None) -> Interactions:
    """A data set by name, validated; prepared on first use.

    Raises:
      DataError: for an unknown name, and for files that are missing, damaged or not what they should be.
    """
    from core.datasets.implicit import read

    return read(name, data_dir)


def from_rows(train: Sequence[np.ndarray], test: Sequence[np.ndarray], num_items: int, source: str) -> Interactions:
    """Validated interactions from one array of items per user.

    Args:
      train: training items of each user, in any order.
      test: test items of each user.
      num_items: items are numbered from 0 to below this.
      source: the file, for error messages.
    """
    return validate(Interactions(*_compressed(train), *_compressed(test), shape=(len(train), num_items)), source)


def _compressed(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    return indptr, np.concatenate([np.sort(row) for row in rows]) if rows else np.zeros(0, np.int64)


def from_pairs(train: np.ndarray, test: np.ndarray, shape: tuple[int, int], source: str) -> Interactions:
    """Validated interactions from arrays of (user, item) rows."""

    def rows(pairs: np.ndarray, part: str) -> list[np.ndarray]:
        _require_range(pairs[:, 0], shape[0], f"{source}: user of the {part} rows")
        order = np.argsort(pairs[:, 0], kind="stable")
        return np.split(pairs[order, 1], np.searchsorted(pairs[order, 0], np.arange(1, shape[0])))

    return from_rows(rows(train, "train"), rows(test, "test"), shape[1], source)


def validate(interactions: Interactions, source: str) -> Interactions:
    """The same interactions as int32, items ascending within a user.

    Raises:
      DataError: naming file, field and row of the first thing that cannot be.
    """
    users, items = interactions.shape
    if min(users, items) < 1 or not len(interactions.train_items):
        raise DataError(f"{source}: {users} users, {items} items and no training interaction; nothing can be learned")
    train = _pair_keys(interactions.train_indptr, interactions.train_items, interactions.shape, source, "train")
    test = _pair_keys(interactions.test_indptr, interactions.test_items, interactions.shape, source, "test")
    shared = np.intersect1d(train, test, assume_unique=True)
    if shared.size:
        u, i = divmod(int(shared[0]), items)
        raise DataError(f"{source}: user {u} has item {i} in both train and test; split the data again")
    return Interactions(
        interactions.train_indptr.astype(np.int32),
        (train % items).astype(np.int32),
        interactions.test_indptr.astype(np.int32),
        (test % items).astype(np.int32),
        (int(users), int(items)),
    )


def _pair_keys(indptr: np.ndarray, ids: np.ndarray, shape: tuple[int, int], source: str, part: str) -> np.ndarray:
    """User * items + item of every pair, ascending."""
    users, items = shape
    _require_pointers(indptr, users, len(ids), f"{source}: field '{part}_indptr'")
    _require_range(ids, items, f"{source}: field '{part}_items'")
    keys = np.sort(np.repeat(np.arange(users), np.diff(indptr)) * np.int64(items) + ids)
    repeated = np.flatnonzero(np.diff(keys) == 0)
    if repeated.size:
        u, i = divmod(int(keys[repeated[0]]), items)
        raise DataError(f"{source}: user {u} has item {i} more than once in {part}; remove repeated rows")
    return keys


def _require_pointers(indptr: np.ndarray, users: int, count: int, where: str) -> None:
    if indptr.shape != (users + 1,):
        raise DataError(f"{where} has shape {indptr.shape}, not ({users + 1},) for {users} users")
    falls = np.flatnonzero(np.diff(indptr) < 0)
    if falls.size:
        raise DataError(f"{where} falls from {indptr[falls[0]]} to {indptr[falls[0] + 1]} at user {falls[0]}")
    if indptr[0] != 0 or indptr[-1] != count:
        raise DataError(f"{where} runs from {indptr[0]} to {indptr[-1]}, not from 0 to {count} items: a cut file?")


def _require_range(ids: np.ndarray, size: int, where: str) -> None:
    bad = np.flatnonzero((ids < 0) | (ids >= size))
    if bad.size:
        raise DataError(f"{where}, element {bad[0]} is {ids[bad[0]]}, outside of 0 to {size - 1}")


def split_last(sequences: Sequence[np.ndarray], share: float = 0.2) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each sequence without its last part, and that part: a ``share`` of it, at least one element."""
    held = [max(1, round(share * len(sequence))) for sequence in sequences]
    return (
        [sequence[: len(sequence) - h] for sequence, h in zip(sequences, held, strict=True)],
        [sequence[len(sequence) - h :] for sequence, h in zip(sequences, held, strict=True)],
    )


def from_table(path: Path | str, *, share: float = 0.2, seed: int = 0) -> Interactions:
    """Interactions from a user's own table: CSV or TSV with columns ``user``, ``item`` and, if known, ``timestamp``.

    Ids may be anything; they are numbered in order of first occurrence. The last ``share`` of each user's items, by
    time or else at random, is the test part; users with a single item keep it for training.

    Raises:
      DataError: naming file, column, row and remedy.
    """
    import pandas as pd

    path = Path(path)
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix in (".tsv", ".tab") else ",")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a table of comma- or tab-separated columns ({error})") from error
    require_columns(list(table.columns), {"user": "who", "item": "what"}, str(path))
    timed = "timestamp" in table.columns
    for column in ["user", "item"] + ["timestamp"] * timed:
        empty = np.flatnonzero(table[column].isna())
        if empty.size:
            raise DataError(
                f"{path}: column {column!r} is empty (NaN) in row {empty[0] + 2}; fill it or remove the row"
            )
    users, items = pd.factorize(table["user"])[0], pd.factorize(table["item"])[0]
    when = table["timestamp"].to_numpy() if timed else np.random.default_rng(seed).random(len(table))
    order = np.lexsort((when, users))
    rows = np.split(items[order], np.flatnonzero(np.diff(users[order])) + 1)
    train, test = split_last(rows, share)
    pairs = [(a, b) if len(a) else (b, a) for a, b in zip(train, test, strict=True)]
    return from_rows([a for a, _ in pairs], [b for _, b in pairs], int(items.max(initial=-1)) + 1, str(path))
