"""Full ranking of the next item: every item but those that the user had otherwise, a block of users at a time.

The rank of a target is the number of ranked items that score at least as high, itself included: ties count against
the model. Memory is one block of scores, whatever the number of users.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from core.checks import Count, Natural, checked, require_finite
from core.errors import ConfigError
from rec.metrics import all_metrics
from rec.ranking import HeldOut, mask_seen, require_cutoffs
from rec.sequential.histories import NextItems

Score = Callable[[Any, Int[Array, "b length"]], Float[Array, "b items"]]
"""``(model, histories) -> scores`` of all items; the model is any pytree."""
CUTOFFS = (5, 10, 20, 50)
METRICS = ("hr", "ndcg", "mrr")


class NextItemRanking:
    """Tests models on histories and the items that followed; compiled once per shape of the model.

    Raises:
      ConfigError: for cut-offs that are none, and, when a model is tested, where it scores fewer items than occur or
        holds NaN.
    """

    @checked
    def __init__(self, examples: NextItems, *, score: Score, ks: Sequence[Count] = CUTOFFS, block: Count = 256):
        require_cutoffs("NextItemRanking", ks)
        self.examples, self.ks = examples, tuple(ks)
        self._occurring = 1 + max(_largest(part) for part in (examples.targets, examples.held_out.train_items))
        self._items: dict[Any, int] = {}
        self._options = {"score": score, "block": block, "most_seen": most_seen(examples.held_out)}

    def ranks(self, model: Any) -> Int[np.ndarray, " n"]:
        """The rank of each target, from 1."""
        self._require_fit(model, 1)
        return jax.device_get(ranks(model, self.examples, **self._options))

    @checked
    def top(self, model: Any, k: Count = 10) -> Int[np.ndarray, "n k"]:
        """The recommended items of each user, best first."""
        self._require_fit(model, k)
        return jax.device_get(recommended(model, self.examples, k=k, **self._options))

    def _require_fit(self, model: Any, k: int) -> None:
        """Refuses models that are not of these data; asked once for each shape of a model."""
        require_finite("the model", model, "train it with a lower learning rate, or leave out what is not finite")
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(model))
        if shapes not in self._items:
            histories = jax.ShapeDtypeStruct((1, *self.examples.histories.shape[1:]), jnp.int32)
            self._items[shapes] = jax.eval_shape(self._options["score"], model, histories).shape[-1]
        items = self._items[shapes]
        if items < max(self._occurring, k):
            what = f"{k} are asked for" if k > items else f"items up to number {self._occurring - 1} occur"
            raise ConfigError(f"NextItemRanking: the model scores {items} items, but {what}")

    def per_user(self, model: Any) -> dict[str, Float[np.ndarray, " n"]]:
        """Every metric for every target."""
        return jax.device_get(metrics_of(jnp.asarray(self.ranks(model)), self.ks))

    def means(self, model: Any) -> dict[str, float]:
        """Every metric, averaged over the targets."""
        return {name: float(np.mean(value, dtype=np.float64)) for name, value in self.per_user(model).items()}


def _largest(items: Int[Array, " n"]) -> int:
    return int(np.asarray(items).max(initial=0))


@checked
def most_seen(held_out: HeldOut) -> int:
    """An upper bound of the items left out of a ranking, a power of two so that data sets share programs."""
    return 1 << int(np.diff(np.asarray(held_out.train_indptr)).max(initial=0)).bit_length()


@checked
def metrics_of(
    ranks: Int[Array, " n"], ks: Sequence[Count] = CUTOFFS, names: Sequence[str] = METRICS
) -> dict[str, Float[Array, " n"]]:
    """Metrics of single targets by their ranks: HR = [rank <= k], NDCG = 1/log2(rank + 1), MRR = 1/rank, 0 beyond k."""
    hits = jnp.arange(1, max(ks) + 1) == ranks[:, None]
    return all_metrics(hits, jnp.ones_like(ranks), ks, names)


@checked
@partial(jax.jit, static_argnames=("score", "block", "most_seen"))
def ranks(model: Any, examples: NextItems, *, score: Score, block: Count, most_seen: Natural) -> Int[Array, " n"]:
    """The rank of each target among the items that are not left out."""

    def rank(rows, scores):
        target = jnp.take_along_axis(scores, examples.targets[rows, None], axis=1)
        return jnp.sum(scores >= target, axis=1, dtype=jnp.int32)

    return _by_blocks(rank, model, examples, score, block, most_seen)


@checked
@partial(jax.jit, static_argnames=("k", "score", "block", "most_seen"))
def recommended(
    model: Any, examples: NextItems, *, k: Count, score: Score, block: Count, most_seen: Natural
) -> Int[Array, "n k"]:
    """The k items of each row that score highest, without those left out."""

    def best(rows, scores):
        del rows
        return jax.lax.top_k(scores, k)[1]

    return _by_blocks(best, model, examples, score, block, most_seen)


def _by_blocks(measure, model, examples: NextItems, score: Score, block: int, most_seen: int) -> Array:
    """A measurement of the masked scores of all rows, a block at a time, the last one padded."""
    count = examples.targets.shape[0]
    padding = -count % block
    rows = jnp.pad(jnp.arange(count), (0, padding), mode="edge").reshape(-1, block)

    def one(rows):
        return measure(rows, mask_seen(score(model, examples.histories[rows]), examples.held_out, rows, most_seen))

    found = jax.lax.map(one, rows)
    return found.reshape(count + padding, *found.shape[2:])[:count]


@checked
def ranks_by_item_blocks(
    queries: Float[Array, "n d"],
    table: Float[Array, "items d"],
    examples: NextItems,
    *,
    item_block: Count,
    most_seen: Natural,
) -> Int[Array, " n"]:
    """The same ranks for scores <query, E_i> with a block of items at a time: for catalogues larger than memory."""
    items = table.shape[0]
    padding = -items % item_block
    blocks = jnp.pad(table, ((0, padding), (0, 0))).reshape(-1, item_block, table.shape[1])
    target = jnp.sum(queries * table[examples.targets], axis=1, keepdims=True)
    rows = jnp.arange(queries.shape[0])
    held_out = examples.held_out

    def count(total, inputs):
        first, part = inputs
        own = first + jnp.arange(item_block)
        scores = queries @ part.T
        shifted = held_out._replace(train_items=_inside(held_out.train_items - first, item_block))
        scores = mask_seen(scores, shifted, rows, most_seen)
        better = (scores >= target) & (own < items) & (own != examples.targets[:, None])
        return total + jnp.sum(better, axis=1, dtype=jnp.int32), None

    first = jnp.arange(blocks.shape[0]) * item_block
    return jax.lax.scan(count, jnp.ones(queries.shape[0], jnp.int32), (first, blocks))[0]


def _inside(items: Int[Array, " n"], size: int) -> Int[Array, " n"]:
    """Positions in a block; those outside are past its end, where a write is dropped."""
    return jnp.where((items >= 0) & (items < size), items, size)


def _dot(model: tuple[Array, Array], rows: Int[Array, "b 1"]) -> Float[Array, "b items"]:
    """<query, E_i>: a ``score`` for queries that are there already, whose numbers stand for the histories."""
    queries, table = model
    return queries[rows[:, 0]] @ table.T


@checked
def query_ranking(examples: NextItems) -> NextItemRanking:
    """The ranking of models ``(queries [n, d], item embeddings [items, d])``, whose scores are <query, E_i>.

    One program for all edits of the queries.
    """
    numbered = examples._replace(histories=jnp.arange(examples.targets.shape[0])[:, None])
    return NextItemRanking(numbered, score=_dot)


@checked
def top_items(
    queries: Float[np.ndarray, "r d"] | Float[Array, "r d"],
    table: Float[Array, "items d"],
    held_out: HeldOut,
    users: Int[np.ndarray, " r"],
    k: Count = 10,
    block: Count = 256,
) -> Int[np.ndarray, "r k"]:
    """The recommended items of some users, given their queries, a block of users at a time."""
    padding = -len(users) % block
    padded = np.pad(np.asarray(queries), ((0, padding), (0, 0)))
    found = _tops(padded, table, held_out, np.pad(users, (0, padding), mode="edge"), k, block, most_seen(held_out))
    return np.asarray(found)[: len(users)]


@partial(jax.jit, static_argnums=(4, 5, 6))
def _tops(queries, table, held_out, users, k: int, block: int, seen: int):
    def one(part):
        query, rows = part
        return jax.lax.top_k(mask_seen(query @ table.T, held_out, rows, seen), k)[1]

    parts = queries.reshape(-1, block, queries.shape[1]), users.reshape(-1, block)
    return jax.lax.map(one, parts).reshape(-1, k)
