"""Interactions with known latent intents: who wanted what and which clicks were noise.

Every user mixes G intents, pi_u ~ Dirichlet(alpha 1_G); every item serves one, g_i uniform, and has a popularity
w_i ~ LogNormal(0, 1). User u draws base + Poisson(extra) distinct items, each in two stages: an intent g ~ pi_u, then
an item of that intent with probability proportional to w_i. With probability ``noise`` a draw is replaced by an item
drawn by popularity alone. Intents that no item serves are nobody's.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from core.checks import Count, Fraction, Natural, NonNegative, Positive, checked
from core.datasets.interactions import Interactions
from core.errors import ConfigError

ROUNDS = 100
"""Draws that are repeated until items are distinct; who then still lacks some gets the rest by one exact draw. Most
users need two or three."""


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


@checked
def simulate(
    seed: Natural,
    *,
    users: Count = 2000,
    items: Count = 1500,
    intents: Count = 4,
    alpha: Positive = 0.3,
    base: Natural = 8,
    extra: NonNegative = 12.0,
    noise: Fraction = 0.1,
    test_share: Fraction = 0.2,
    activity_seed: Natural = 0,
) -> tuple[Interactions, Intents]:
    """Draws a data set and its truth; a fifth of every user's items is held out.

    How many items a user draws depends on ``activity_seed`` alone, all else on ``seed``: data sets of several seeds
    have arrays of equal shapes and can be trained on in one program.

    Raises:
      ConfigError: where a user draws more items than there are.
    """
    rng = np.random.default_rng(seed)
    counts = base + np.random.default_rng(activity_seed).poisson(extra, size=users)
    if counts.max() > items:
        raise ConfigError(
            f"simulate: users draw up to {counts.max()} distinct items (base {base} and Poisson({extra:g}) more), but "
            f"there are {items}; raise items, or lower base and extra"
        )
    user_intents = rng.dirichlet(np.full(intents, alpha), size=users)
    item_intents = rng.integers(intents, size=items)
    user_intents = _served(user_intents, np.bincount(item_intents, minlength=intents) > 0)
    popularity = rng.lognormal(size=items)
    within = _choices_within(item_intents, popularity, intents)
    lists = [_draw(rng, user_intents[u], within, counts[u], noise) for u in range(users)]
    parts = [_split(rng, *drawn, test_share) for drawn in lists]
    train, test, flags = (tuple(part[j] for part in parts) for j in range(3))
    interactions = Interactions(*_csr(train), *_csr(test), shape=(users, items))
    return interactions, Intents(user_intents, item_intents, popularity, np.concatenate(flags))


def _served(mixtures: Float[np.ndarray, "users G"], has_items: Bool[np.ndarray, " G"]) -> np.ndarray:
    """Mixtures of the intents that have items."""
    if has_items.all():
        return mixtures
    left = np.maximum(mixtures, np.finfo(float).tiny) * has_items
    return left / left.sum(axis=1, keepdims=True)


def _choices_within(
    item_intents: Int[np.ndarray, " items"], popularity: Float[np.ndarray, " items"], intents: int
) -> Float[np.ndarray, "G_and_1 items"]:
    """Cumulative item probabilities given each intent, and regardless of intent in the last row."""
    member = np.arange(intents)[:, None] == item_intents
    weights = np.vstack([member * popularity, popularity[None]])
    totals = weights.sum(axis=1, keepdims=True)
    return np.cumsum(weights / np.where(totals > 0, totals, 1.0), axis=1)


def _draw(rng, mixture, within, count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """``count`` distinct items in the order drawn and whether each was noise; repetitions are drawn anew."""
    chosen: dict[int, bool] = {}
    intents, items = len(mixture), within.shape[1]
    for _ in range(ROUNDS):
        if len(chosen) == count:
            break
        missing = count - len(chosen)
        noisy = rng.random(missing) < noise
        rows = np.where(noisy, intents, rng.choice(intents, size=missing, p=mixture))
        for row, uniform, flag in zip(rows, rng.random(missing), noisy, strict=True):
            chosen.setdefault(min(int(np.searchsorted(within[row], uniform, side="right")), items - 1), bool(flag))
    if len(chosen) < count:
        _complete(rng, mixture, within, count, noise, chosen)
    return np.fromiter(chosen.keys(), np.int32), np.fromiter(chosen.values(), bool)


def _complete(rng, mixture, within, count: int, noise: float, chosen: dict[int, bool]) -> None:
    """Adds the items that are missing, by one draw with the distribution of drawing until an item is a new one.

    Successive draws without replacement are the order of the (log) arrivals of independent clocks, an item's with the
    rate of its probability; an item was noise with the share of noise in its probability. What can be drawn only with
    a probability that is rounded to 0 comes last, in any order.
    """
    shares = np.diff(within, axis=1, prepend=0.0)
    by_noise = noise * shares[-1]
    rates = (1.0 - noise) * (mixture @ shares[:-1]) + by_noise
    arrivals = np.log(rng.exponential(size=len(rates))) - np.log(np.maximum(rates, np.finfo(float).tiny))
    noisy = rng.random(len(rates)) * rates < by_noise
    arrivals[list(chosen)] = np.inf
    for item in np.argsort(arrivals)[: count - len(chosen)]:
        chosen[int(item)] = bool(noisy[item])


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


@checked
def add_false_edges(
    interactions: Interactions, share: NonNegative, seed: Natural
) -> tuple[Interactions, Bool[np.ndarray, " train"]]:
    """Adds uniformly drawn user-item pairs to training, ``share`` of its size, none of them in training or test.

    Returns:
      The data set and, in the order of its ``train_items``, which of its training items are false.

    Raises:
      ConfigError: where there are not so many pairs left.
    """
    rng = np.random.default_rng(seed)
    users, items = interactions.shape
    train = _codes(interactions.train_indptr, interactions.train_items, items)
    taken = np.concatenate([train, _codes(interactions.test_indptr, interactions.test_items, items)])
    wanted = round(share * len(train))
    if wanted > users * items - len(taken):
        raise ConfigError(
            f"add_false_edges: share {share:g} are {wanted} pairs, but only {users * items - len(taken)} of "
            f"{users} users and {items} items are free"
        )
    false = _free_codes(rng, taken, wanted, users * items)
    codes = np.sort(np.concatenate([train, false]))
    indptr = np.searchsorted(codes, np.arange(users + 1) * items).astype(np.int32)
    noisy = interactions._replace(train_indptr=indptr, train_items=(codes % items).astype(np.int32))
    return noisy, np.isin(codes, false)


def _free_codes(rng, taken: np.ndarray, wanted: int, pairs: int) -> np.ndarray:
    """``wanted`` uniform codes of pairs that are not taken; where most are, from a list of those that are free."""
    if 2 * (len(taken) + wanted) > pairs:
        return rng.permutation(np.setdiff1d(np.arange(pairs), taken))[:wanted]
    false = np.zeros(0, np.int64)
    while len(false) < wanted:  # at least every second candidate is new, and twice as many are drawn as are wanted
        candidates = rng.integers(pairs, size=2 * wanted)
        false = np.setdiff1d(np.union1d(false, candidates), taken)
    return rng.permutation(false)[:wanted]


def _codes(indptr: Int[np.ndarray, " users_and_1"], values: Int[np.ndarray, " n"], items: int) -> np.ndarray:
    """One integer per user-item pair, ascending."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) * items + values.astype(np.int64)
