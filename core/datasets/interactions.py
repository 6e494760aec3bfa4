"""Implicit feedback: which user interacted with which item, split into training and test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Shaped

from core.checks import Fraction, Natural, OpenFraction, checked
from core.datasets.ratings import Repeats, Role, read_ratings
from core.errors import DataError

Ordered = Literal["amazon_beauty", "amazon_sports"]
"""Data sets whose users' items are in the order of time."""
Name = Literal["lastfm_cf", "gowalla", Ordered]


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
    user_ids: Shaped[np.ndarray, " users"] | None = None
    item_ids: Shaped[np.ndarray, " items"] | None = None
    """What the user or item of each number is called where the data come from; None where numbers are all there is."""

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


class Sequences(NamedTuple):
    """What each user chose, oldest first: user u's items are ``items[indptr[u]:indptr[u + 1]]``.

    The first ``train_lengths[u]`` of them are her training items in :class:`Interactions`, the others her test items.
    """

    indptr: Int[np.ndarray, " users_and_1"]
    items: Int[np.ndarray, " interactions"]
    train_lengths: Int[np.ndarray, " users"]
    shape: tuple[int, int]
    """(users, items)."""


def load(name: str, data_dir: Path | None = None) -> Interactions:
    """A data set by name, validated; prepared on first use.

    Raises:
      DataError: for an unknown name, and for files that are missing, damaged or not what they should be.
    """
    from core.datasets.implicit import read

    train, test, items, source = read(name, data_dir)
    return from_rows(train, test, items, source)


def load_sequences(name: str, data_dir: Path | None = None) -> Sequences:
    """A data set by name, each user's items in the order of time.

    Raises:
      DataError: as :func:`load`, and where the data set has no order.
    """
    from core.datasets.implicit import read

    train, test, items, _ = read(name, data_dir, ordered=True)
    rows = [np.concatenate(pair) for pair in zip(train, test, strict=True)]
    indptr, flat = _compressed(rows)
    lengths = np.array([len(row) for row in train])
    return Sequences(*(a.astype(np.int32) for a in (indptr, flat, lengths)), shape=(len(rows), items))


@checked
def from_rows(train: Sequence[np.ndarray], test: Sequence[np.ndarray], num_items: Natural, source: str) -> Interactions:
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
    return indptr, np.concatenate(rows) if rows else np.zeros(0, np.int64)


@checked
def group_pairs(pairs: np.ndarray, users: Natural) -> list[np.ndarray]:
    """The items of each user in an array of (user, item) rows."""
    order = np.argsort(pairs[:, 0], kind="stable")
    return np.split(pairs[order, 1], np.searchsorted(pairs[order, 0], np.arange(1, users)))


def validate(interactions: Interactions, source: str) -> Interactions:
    """The same interactions as int32, items ascending within a user.

    Raises:
      DataError: naming file, field and row of the first thing that cannot be.
    """
    users, items = interactions.shape
    if min(users, items) < 1 or not len(interactions.train_items):
        raise DataError(f"{source}: {users} users, {items} items and no training interaction; nothing can be learned")
    if max(users, items) > np.iinfo(np.int32).max:
        raise DataError(f"{source}: field 'shape' is {interactions.shape}; ids must fit into 32 bits")
    train = _pair_keys(interactions.train_indptr, interactions.train_items, interactions.shape, source, "train")
    test = _pair_keys(interactions.test_indptr, interactions.test_items, interactions.shape, source, "test")
    shared = np.intersect1d(train, test, assume_unique=True)
    if shared.size:
        u, i = divmod(int(shared[0]), items)
        raise DataError(f"{source}: user {u} has item {i} (from 0) in both train and test; split the data again")
    _require_ids(interactions, source)
    return Interactions(
        interactions.train_indptr.astype(np.int32),
        (train % items).astype(np.int32),
        interactions.test_indptr.astype(np.int32),
        (test % items).astype(np.int32),
        (int(users), int(items)),
        interactions.user_ids,
        interactions.item_ids,
    )


def _require_ids(interactions: Interactions, source: str) -> None:
    for name, count in zip(("user", "item"), interactions.shape, strict=True):
        ids = getattr(interactions, f"{name}_ids")
        if ids is not None and (np.shape(ids) != (count,) or len(set(ids)) < count):
            raise DataError(f"{source}: field '{name}_ids' must name {count} different {name}s; it has {np.shape(ids)}")


def _pair_keys(indptr: np.ndarray, ids: np.ndarray, shape: tuple[int, int], source: str, part: str) -> np.ndarray:
    """User * items + item of every pair, ascending."""
    users, items = shape
    if indptr.shape != (users + 1,):
        raise DataError(
            f"{source}: field '{part}_indptr' has shape {indptr.shape}, not ({users + 1},) for {users} users"
        )
    require_pointers(indptr, len(ids), f"{source}: field '{part}_indptr'")
    require_range(ids, 0, items - 1, f"{source}: field '{part}_items'")
    keys = np.sort(np.repeat(np.arange(users), np.diff(indptr)) * np.int64(items) + ids)
    repeated = np.flatnonzero(np.diff(keys) == 0)
    if repeated.size:
        u, i = divmod(int(keys[repeated[0]]), items)
        raise DataError(f"{source}: user {u} has item {i} (from 0) more than once in {part}; remove repeated rows")
    return keys


@checked
def require_pointers(indptr: np.ndarray, count: Natural, where: str) -> None:
    """Raises a DataError unless the pointers cut ``count`` items into rows."""
    falls = np.flatnonzero(np.diff(indptr) < 0)
    if falls.size:
        raise DataError(f"{where} falls from {indptr[falls[0]]} to {indptr[falls[0] + 1]} at user {falls[0]}")
    if not indptr.size or indptr[0] != 0 or indptr[-1] != count:
        ends = f"runs from {indptr[0]} to {indptr[-1]}" if indptr.size else "is empty"
        raise DataError(f"{where} {ends}; it must run from 0 to {count}, the number of items: a cut file?")


@checked
def require_range(ids: np.ndarray, first: int, last: int, where: str) -> None:
    """Raises a DataError that names the first element outside of first to last."""
    bad = np.flatnonzero((ids < first) | (ids > last))
    if bad.size:
        raise DataError(f"{where}, element {bad[0]} is {ids[bad[0]]}, outside of {first} to {last}")


@checked
def split_last(sequences: Sequence[np.ndarray], share: Fraction = 0.2) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each sequence without its last part, and that part: a ``share`` of it, at least one element."""
    held = [max(1, round(share * len(sequence))) for sequence in sequences]
    return (
        [sequence[: len(sequence) - h] for sequence, h in zip(sequences, held, strict=True)],
        [sequence[len(sequence) - h :] for sequence, h in zip(sequences, held, strict=True)],
    )


@checked
def hold_out(
    interactions: Interactions, share: Fraction, seed: Natural = 0
) -> tuple[Interactions, Bool[np.ndarray, " train"]]:
    """Training interactions split once more, to choose by what the test part must not decide.

    Args:
      interactions: any; their test part is not looked at.
      share: of each user's training items, drawn at random and rounded; one at least is kept for training.
      seed: of the draw.

    Returns:
      The training items that are kept with those held out as test part, and which of the training items are kept.
    """
    lengths = np.diff(interactions.train_indptr)
    users = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((np.random.default_rng(seed).random(len(users)), users))
    held = np.minimum(np.round(share * lengths).astype(int), np.maximum(lengths - 1, 0))
    kept = np.empty(len(users), bool)
    kept[order] = np.arange(len(users)) - interactions.train_indptr[users] >= held[users]
    pairs = np.stack([users, interactions.train_items], 1)
    train, test = (group_pairs(pairs[mask], len(lengths)) for mask in (kept, ~kept))
    found = from_rows(train, test, interactions.shape[1], "the split of the training part")
    return found._replace(user_ids=interactions.user_ids, item_ids=interactions.item_ids), kept


@checked
def from_table(
    path: Path | str,
    *,
    share: OpenFraction = 0.2,
    seed: Natural = 0,
    columns: Mapping[Role, str] | None = None,
    header: Sequence[str] | None = None,
    separator: str | None = None,
    at_least: float | None = None,
    repeats: Repeats = "first",
) -> Interactions:
    """Interactions from a user's own table of users, items and, if known, ratings and times.

    Users and items that remain are numbered in order of first occurrence. The last ``share`` of each user's items, by
    time (a number, or a date in ISO form) or else at random, is the test part; users with a single item keep it for
    training.

    Args:
      path: CSV, TSV or the like; see :func:`core.datasets.ratings.read_ratings`, as for the other arguments.
      share: of each user's items.
      seed: of the draw, where there are no times.
      columns: names of columns by what they hold, where those are not the usual ones.
      header: names of all columns of a file whose first line holds data.
      separator: between columns.
      at_least: the lowest rating that counts as an interaction; all count if None.
      repeats: which of several rows with the same user and item counts.

    Returns:
      Interactions with ``user_ids`` and ``item_ids`` of the table.

    Raises:
      DataError: naming file, column, row (line 1 holds the names of the columns) and remedy.
    """
    table = read_ratings(path, columns=columns, header=header, separator=separator, at_least=at_least, repeats=repeats)
    when = table.get("timestamp", np.random.default_rng(seed).random(len(table)))
    (users, known), (items, catalogue) = (pd.factorize(table[column]) for column in ("user", "item"))
    pairs = np.stack([users, items], 1)[np.argsort(np.asarray(when), kind="stable")]
    train, test = split_last(group_pairs(pairs, len(known)), share)
    parts = [(a, b) if len(a) else (b, a) for a, b in zip(train, test, strict=True)]
    found = from_rows([a for a, _ in parts], [b for _, b in parts], len(catalogue), str(path))
    return found._replace(user_ids=np.asarray(known, object), item_ids=np.asarray(catalogue, object))
