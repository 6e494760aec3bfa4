"""Full ranking: every item but the user's training items is ranked, on the device, a block of users at a time.

Ties are broken by the lower item index. Users without held-out items do not count. Memory is one block of scores,
[block, items], whatever the number of users.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, Natural, checked, require_finite
from core.datasets.interactions import Interactions, validate
from core.errors import ConfigError
from rec.graph import Nodes
from rec.metrics import all_metrics

Score = Callable[[Any, Int[Array, " b"]], Float[Array, "b items"]]
"""``(model, users) -> scores`` of all items; the model is any pytree."""


class HeldOut(NamedTuple):
    """The users to be tested, what each has seen and what each should be shown, rows in the CSR form."""

    users: Int[Array, " tested"]
    train_indptr: Int[Array, " users_and_1"]
    train_items: Int[Array, " train"]
    test_indptr: Int[Array, " users_and_1"]
    test_items: Int[Array, " test"]

    @property
    def relevant(self) -> Int[Array, " tested"]:
        """The number of held-out items of each tested user."""
        return self.test_indptr[self.users + 1] - self.test_indptr[self.users]

    @classmethod
    @checked
    def build(cls, interactions: Interactions) -> "HeldOut":
        """The users with at least one test item.

        Raises:
          DataError: where the interactions are not what they should be.
        """
        interactions = validate(interactions, "interactions")
        users = np.flatnonzero(np.diff(interactions.test_indptr) > 0)
        columns = (users, *interactions[:4])
        return cls(*(jnp.asarray(column, jnp.int32) for column in columns))


@checked
def dot_product(nodes: Nodes, users: Int[Array, " b"]) -> Float[Array, "b items"]:
    """<x_u, x_i> for the given users and all items."""
    return nodes[0][users] @ nodes[1].T


class Ranking:
    """Tests a model on all users with held-out items; compiled once per shape of the model.

    Raises:
      ConfigError: for cut-offs that are none, and, when a model is tested, where it scores other items than the data
        have, has other users, or holds NaN.
      DataError: where the interactions are not what they should be.
    """

    @checked
    def __init__(
        self, interactions: Interactions, *, ks: Sequence[Count] = (20, 40), block: Count = 256,
        score: Score = dot_product,
    ):  # fmt: skip
        require_cutoffs("Ranking", ks)
        self.held_out, self._shape = HeldOut.build(interactions), interactions.shape
        most_seen = int(np.diff(interactions.train_indptr).max(initial=0))
        self._options = {
            "score": score,
            "ks": tuple(ks),
            "block": block,
            "items": interactions.shape[1],
            "most_seen": 1 << most_seen.bit_length(),  # a power of two: data sets of one shape share one program
        }

    def per_user(self, model: Any) -> dict[str, Float[np.ndarray, " tested"]]:
        """Every metric of every tested user, for paired tests and the bootstrap over users."""
        require_finite("the model", model, "train it with a lower learning rate, or leave out what is not finite")
        return jax.device_get(self.on_device(model, self.held_out))

    def on_device(self, model: Any, held_out: HeldOut) -> dict[str, Float[Array, " tested"]]:
        """The same as a pure function, to be called within jitted code.

        Args:
          model: what the score takes.
          held_out: of the data that this object was made for, or of others with as many training items per user.
        """
        if self._options["score"] is dot_product and model[0].shape[0] != self._shape[0]:
            raise ConfigError(f"Ranking: the model has {model[0].shape[0]} users, the data have {self._shape[0]}")
        return _per_user(model, held_out, **self._options)

    def means(self, model: Any) -> dict[str, float]:
        """Every metric, averaged over the tested users."""
        return {name: float(np.mean(value, dtype=np.float64)) for name, value in self.per_user(model).items()}


def require_cutoffs(of: str, ks: Sequence[int]) -> None:
    """Refuses an empty list of cut-offs.

    Raises:
      ConfigError: where there are none.
    """
    if not len(ks):
        raise ConfigError(f"{of}: ks is empty; name a cut-off, such as 20")


@partial(jax.jit, static_argnames=("score", "ks", "block", "items", "most_seen"))
def _per_user(
    model: Any, held_out: HeldOut, *, score: Score, ks: tuple[int, ...], block: int, items: int, most_seen: int
):
    scores = jax.eval_shape(score, model, jax.ShapeDtypeStruct((1,), jnp.int32))
    if scores.shape[-1] != items:
        raise ConfigError(f"Ranking: the model scores {scores.shape[-1]} items, the data have {items}")
    hits = top_hits(model, held_out, score=score, k=max(ks), block=block, most_seen=most_seen)
    return all_metrics(hits, held_out.relevant, ks)


@checked
def top_hits(
    model: Any, held_out: HeldOut, *, score: Score, k: Count, block: Count, most_seen: Natural
) -> Bool[Array, "tested K"]:
    """Which of the first ``k`` ranks of each tested user are held-out items; K = min(k, items).

    Args:
      model: what ``score`` takes.
      held_out: whom to test on what.
      score: scores of all items for a block of users.
      k: length of the lists.
      block: users per block; the last is padded.
      most_seen: an upper bound of the training items of a user.
    """
    tested = held_out.users.shape[0]
    padding = -tested % block
    users = jnp.pad(held_out.users, (0, padding), mode="edge")

    def rank(users: Int[Array, " b"]) -> Bool[Array, "b K"]:
        scores = mask_seen(score(model, users), held_out, users, most_seen)
        best, items = jax.lax.top_k(scores, min(k, scores.shape[1]))
        return contains(held_out.test_indptr, held_out.test_items, users, items) & (best > -jnp.inf)

    hits = jax.lax.map(rank, users.reshape(-1, block))
    return hits.reshape(tested + padding, -1)[:tested]


@checked
def mask_seen(
    scores: Float[Array, "b items"], held_out: HeldOut, users: Int[Array, " b"], most_seen: Natural
) -> Float[Array, "b items"]:
    """The scores with -inf at each user's training items."""
    if not most_seen:
        return scores
    start, stop = held_out.train_indptr[users, None], held_out.train_indptr[users + 1, None]
    position = start + jnp.arange(most_seen)
    items = held_out.train_items[jnp.minimum(position, held_out.train_items.shape[0] - 1)]
    items = jnp.where(position < stop, items, scores.shape[1])
    return scores.at[jnp.arange(users.shape[0])[:, None], items].set(-jnp.inf, mode="drop")


@checked
def contains(
    indptr: Int[Array, " rows_and_1"], values: Int[Array, " n"], rows: Int[Array, " b"], queries: Int[Array, "b K"]
) -> Bool[Array, "b K"]:
    """Whether each query is among the sorted values of its row, by bisection."""
    low = jnp.broadcast_to(indptr[rows, None], queries.shape)
    high = stop = jnp.broadcast_to(indptr[rows + 1, None], queries.shape)
    last = values.shape[0] - 1

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        below = (values[jnp.minimum(middle, last)] < queries) & (low < high)
        return jnp.where(below, middle + 1, low), jnp.where(below, high, jnp.maximum(low, middle))

    low, _ = jax.lax.fori_loop(0, values.shape[0].bit_length(), halve, (low, high))
    return (low < stop) & (values[jnp.minimum(low, last)] == queries)
