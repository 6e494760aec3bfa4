"""Interactions with known latent intents: who wanted what and which clicks were noise.

Every user mixes G intents, pi_u ~ Dirichlet(alpha 1_G); every item serves one, g_i uniform, and has a popularity
w_i ~ LogNormal(0, 1). User u draws base + Poisson(extra) distinct items, each in two stages: an intent g ~ pi_u, then
an item of that intent with probability proportional to w_i. With probability ``noise`` a draw is replaced by an item
drawn by popularity alone.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from core.datasets.interactions import Interactions


class Intents(NamedTuple):
    """The truth behind simulated interactions."""

    user_intents: Float[np.ndarray, "users G"]
    """pi_u."""
    item_intents: Int[np.ndarray, " items"]
    """g_i."""
    popularity: Float[np.ndarray, " items"]
    """w_i."""
    train_noise: Bool[np.ndarray, " train"]
    """Which training interactions were noise, in the order of ``train_items``."""


def simulate(
    seed: int,
    *,
    users: int = 2000,
    items: int = 1500,
    intents: int = 4,
    alpha: float = 0.3,
    base: int = 8,
    extra: float = 12.0,
    noise: float = 0.1,
    test_share: float = 0.2,
    activity_seed: int = 0,
) -> tuple[Interactions, Intents]:
    """Draws a data set and its truth; a fifth of every user's items is held out.

    How many items a user draws depends on ``activity_seed`` alone, all else on ``seed``: data sets of several seeds
    have arrays of equal shapes and can be trained on in one program.
    """
    rng = np.random.default_rng(seed)
    counts = base + np.random.default_rng(activity_seed).poisson(extra, size=users)
    user_intents = rng.dirichlet(np.full(intents, alpha), size=users)
    item_intents = rng.integers(intents, size=items)
    popularity = rng.lognormal(size=items)
    within = _choices_within(item_intents, popularity, intents)
    lists = [_draw(rng, user_intents[u], within, counts[u], noise) for u in range(users)]
    parts = [_split(rng, *drawn, test_share) for drawn in lists]
    train, test, flags = (tuple(part[j] for part in parts) for j in range(3))
    interactions = Interactions(*_csr(train), *_csr(test), shape=(users, items))
    return interactions, Intents(user_intents, item_intents, popularity, np.concatenate(flags))


def _choices_within(
    item_intents: Int[np.ndarray, " items"], popularity: Float[np.ndarray, " items"], intents: int
) -> Float[np.ndarray, "G_and_1 items"]:
    """Cumulative item probabilities given each intent, and regardless of intent in the last row."""
    member = np.arange(intents)[:, None] == item_intents
    weights = np.vstack([member * popularity, popularity[None]])
    return np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)


def _draw(rng, mixture, within, count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """``count`` distinct items in the order drawn and whether each was noise; repetitions are drawn anew."""
    chosen: dict[int, bool] = {}
    intents, items = len(mixture), within.shape[1]
    while len(chosen) < count:
        missing = count - len(chosen)
        noisy = rng.random(missing) < noise
        rows = np.where(noisy, intents, rng.choice(intents, size=missing, p=mixture))
        for row, uniform, flag in zip(rows, rng.random(missing), noisy, strict=True):
            chosen.setdefault(min(int(np.searchsorted(within[row], uniform, side="right")), items - 1), bool(flag))
    return np.fromiter(chosen.keys(), np.int32), np.fromiter(chosen.values(), bool)


def _split(rng, items, noisy, test_share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training items, test items (both ascending) and the noise flags of the training items."""
    order = rng.permutation(len(items))
    held = round(test_share * len(items))
    test, train = np.sort(items[order[:held]]), order[held:]
    train = train[np.argsort(items[train])]
    return items[train], test, noisy[train]


def _csr(rows: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return indptr.astype(np.int32), np.concatenate(rows).astype(np.int32)


def add_false_edges(
    interactions: Interactions, share: float, seed: int
) -> tuple[Interactions, Bool[np.ndarray, " train"]]:
    """Adds uniformly drawn user-item pairs to training, ``share`` of its size, none of them in training or test.

    Returns:
      The data set and, in the order of its ``train_items``, which of its training items are false.
    """
    rng = np.random.default_rng(seed)
    users, items = interactions.shape
    train = _codes(interactions.train_indptr, interactions.train_items, items)
    taken = np.concatenate([train, _codes(interactions.test_indptr, interactions.test_items, items)])
    wanted = round(share * len(train))
    false = np.zeros(0, np.int64)
    while len(false) < wanted:
        candidates = rng.integers(users * items, size=2 * wanted)
        false = np.setdiff1d(np.union1d(false, candidates), taken)
    false = rng.permutation(false)[:wanted]
    codes = np.sort(np.concatenate([train, false]))
    indptr = np.searchsorted(codes, np.arange(users + 1) * items).astype(np.int32)
    noisy = interactions._replace(train_indptr=indptr, train_items=(codes % items).astype(np.int32))
    return noisy, np.isin(codes, false)


def _codes(indptr: Int[np.ndarray, " users_and_1"], values: Int[np.ndarray, " n"], items: int) -> np.ndarray:
    """One integer per user-item pair, ascending."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) * items + values.astype(np.int64)
