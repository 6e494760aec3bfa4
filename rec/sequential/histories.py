"""Histories of choices as arrays: left-padded for ranking, packed for training, and the leave-one-out protocol.

Items are numbered from 0 and ``PAD`` fills what is empty. A *history* ends in the last column. In a *packed* row
several histories lie one after the other, each with a segment number of its own (0 where there is nothing), so that
short histories cost no padding.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from core.checks import Count, Natural, checked, require_indices
from core.datasets.interactions import Sequences, require_pointers, require_range
from core.errors import DataError
from core.sparse import Graph
from rec.ranking import HeldOut

PAD = -1
"""The item of an empty place."""

Items = Int[Array, "*batch length"]
Segments = Int[Array, "*batch length"]
Part = Literal["dev", "test"]


class Rows(NamedTuple):
    """Packed histories and what is to be predicted at each place."""

    items: Int[Array, "rows length"]
    targets: Int[Array, "rows length"]
    """``PAD`` where nothing is to be predicted."""
    segments: Int[Array, "rows length"]
    users: Int[Array, "rows length"]


class SequenceData(NamedTuple):
    """What a learner of sequences is fed: packed rows, and who had what in training."""

    rows: Rows
    clicked: Graph
    """Users by items."""


class NextItems(NamedTuple):
    """Histories with the item that followed each, and what is not to be ranked."""

    histories: Int[Array, "n length"]
    targets: Int[Array, " n"]
    users: Int[Array, " n"]
    held_out: HeldOut
    """Row i: the user's other items as "training", the target as "test"."""


class Example(NamedTuple):
    """A history with what follows each of its places."""

    user: int
    items: np.ndarray
    targets: np.ndarray


@checked
def user_rows(sequences: Sequences) -> list[np.ndarray]:
    """Each user's items, oldest first.

    Raises:
      DataError: where rows do not begin in ascending order, or items are none of the catalogue.
    """
    items = np.asarray(sequences.items)
    require_pointers(np.asarray(sequences.indptr), len(items), "sequences: field 'indptr'")
    require_range(items, 0, sequences.shape[1] - 1, "sequences: field 'items'")
    return np.split(np.asarray(sequences.items), np.asarray(sequences.indptr)[1:-1])


@checked
def training_rows(sequences: Sequences, held: Natural = 2) -> list[np.ndarray]:
    """Each user's items but the last ``held``: leave-one-out keeps one for development and one for the test."""
    return [row[: max(0, len(row) - held)] for row in user_rows(sequences)]


@checked
def next_item_examples(rows: Sequence[np.ndarray], length: Count) -> list[Example]:
    """Histories of at most ``length`` items that together predict every item but each user's first, once.

    A longer history is cut from its end, so that only its oldest part may be short.
    """
    examples = []
    for user, row in enumerate(rows):
        for stop in range(len(row) - 1, 0, -length):
            start = max(0, stop - length)
            examples.append(Example(user, row[start:stop], row[start + 1 : stop + 1]))
    return examples


@checked
def cloze_examples(rows: Sequence[np.ndarray], length: Count) -> list[Example]:
    """Histories of at most ``length`` items that together hold every item once: each is its own target."""
    examples = []
    for user, row in enumerate(rows):
        for stop in range(len(row), 0, -length):
            part = row[max(0, stop - length) : stop]
            examples.append(Example(user, part, part))
    return examples


@checked
def pack(examples: Iterable[Example], length: Count) -> Rows:
    """Examples side by side in rows of a length, the longest first, each in the first row where it fits.

    Raises:
      DataError: where there are none, or one is longer than a row.
    """
    ordered = sorted(examples, key=lambda example: -len(example.items))
    if not ordered:
        raise DataError("there is no history with a following item; sequences need at least two training items")
    if len(ordered[0].items) > length:
        raise DataError(f"a history of {len(ordered[0].items)} items does not fit into rows of {length}; cut it first")
    groups: list[list[Example]] = []
    open_rows: dict[int, list[int]] = {room: [] for room in range(length + 1)}
    for example in ordered:
        size = len(example.items)
        room = next((room for room in range(size, length + 1) if open_rows[room]), None)
        if room is None:
            groups.append([])
            index, room = len(groups) - 1, length
        else:
            index = open_rows[room].pop()
        groups[index].append(example)
        open_rows[room - size].append(index)
    return _filled(groups, length)


def _filled(groups: list[list[Example]], length: int) -> Rows:
    shape = len(groups), length
    items, targets, segments, users = (np.full(shape, fill, np.int32) for fill in (PAD, PAD, 0, 0))
    for index, group in enumerate(groups):
        start = 0
        for number, example in enumerate(group, 1):
            place = index, slice(start, start + len(example.items))
            items[place], targets[place], segments[place], users[place] = (
                example.items,
                example.targets,
                number,
                example.user,
            )
            start += len(example.items)
    return Rows(*map(jnp.asarray, (items, targets, segments, users)))


@checked
def sequence_data(
    sequences: Sequences, *, length: Count = 20, row_length: Count = 32, held: Natural = 2, cloze: bool = False
) -> SequenceData:
    """The training part of a data set, packed.

    Args:
      sequences: the data set.
      length: longest history that a model sees.
      row_length: of the packed rows.
      held: items at the end of each sequence that are kept for development and test.
      cloze: whether items are predicted from both sides rather than from the past.
    """
    rows = training_rows(sequences, held)
    examples = (cloze_examples if cloze else next_item_examples)(rows, length)
    return SequenceData(pack(examples, row_length), clicks(rows, sequences.shape))


@checked
def clicks(rows: Sequence[np.ndarray], shape: tuple[int, int]) -> Graph:
    """Which user has which item."""
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    pairs = np.unique(np.stack([users, np.concatenate(rows)], 1), axis=0)
    return Graph.from_edges(pairs[:, 0], pairs[:, 1], shape)


@checked
def left_padded(rows: Sequence[np.ndarray], length: Count) -> Int[np.ndarray, "n length"]:
    """The last ``length`` items of each row, ending in the last column."""
    padded = np.full((len(rows), length), PAD, np.int32)
    for i, row in enumerate(rows):
        kept = row[max(0, len(row) - length) :]
        padded[i, length - len(kept) :] = kept
    return padded


@checked
def leave_one_out(sequences: Sequences, part: Part = "test", *, length: Count = 20) -> NextItems:
    """The last item of each user ("test") or the last but one ("dev"), after the items before it.

    All other items of the user are left out of the ranking; users without an item before the target do not count.
    """
    back = 1 if part == "test" else 2
    rows = user_rows(sequences)
    users = np.array([user for user, row in enumerate(rows) if len(row) > back], np.int32)
    histories = left_padded([rows[user][: len(rows[user]) - back] for user in users], length)
    targets = np.array([rows[user][len(rows[user]) - back] for user in users], np.int32)
    return NextItems(
        jnp.asarray(histories),
        jnp.asarray(targets),
        jnp.asarray(users),
        exclusions([np.setdiff1d(rows[user], [target]) for user, target in zip(users, targets, strict=True)], targets),
    )


def exclusions(seen: Sequence[np.ndarray], targets: np.ndarray) -> HeldOut:
    """What :func:`rec.ranking.mask_seen` reads: sorted items to leave out and the target of each row."""
    count = len(seen)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in seen])])
    flat = np.concatenate(seen) if count else np.zeros(0)
    columns = (np.arange(count), indptr, flat, np.arange(count + 1), targets)
    return HeldOut(*(jnp.asarray(column, jnp.int32) for column in columns))


@checked
def of_users(sequences: Sequences, users: np.ndarray) -> Sequences:
    """The same catalogue with some of the users.

    Raises:
      ConfigError: for numbers that are no users'.
    """
    require_indices("of_users: users", users, sequences.shape[0], "users")
    rows = user_rows(sequences)
    chosen = [rows[user] for user in users]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in chosen])]).astype(np.int32)
    lengths = np.asarray(sequences.train_lengths)[users]
    return Sequences(indptr, np.concatenate(chosen).astype(np.int32), lengths, (len(users), sequences.shape[1]))


def default_segments(items: Items) -> Segments:
    """One history per row."""
    return (items != PAD).astype(jnp.int32)


def visible(segments: Segments, *, causal: bool) -> Bool[Array, "*batch length length"]:
    """Which places (last axis) each place may look at: those of its own history, if causal up to itself."""
    same = (segments[..., :, None] == segments[..., None, :]) & (segments[..., :, None] > 0)
    if not causal:
        return same
    return same & jnp.tril(jnp.ones((segments.shape[-1],) * 2, bool))


def places(segments: Segments) -> Int[Array, "*batch length"]:
    """The position of each place within its own history, from 0."""
    index = jnp.broadcast_to(jnp.arange(segments.shape[-1]), segments.shape)
    starts = jnp.where(segments != previous(segments), index, 0)
    return index - jax.lax.cummax(starts, axis=segments.ndim - 1)


def previous(segments: Segments) -> Segments:
    """The segment one place before, 0 before the first."""
    return jnp.concatenate([jnp.zeros_like(segments[..., :1]), segments[..., :-1]], axis=-1)
