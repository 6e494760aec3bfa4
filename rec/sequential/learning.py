"""Learners of sequential recommenders: criteria, negatives and batches drawn on the device.

All places of a history are trained in one pass. The loss is the mean over the places of the global batch, whatever
share of it a device holds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from core.batches import epoch_sampler
from core.checks import Count, Fraction, checked
from core.errors import ConfigError
from core.kinds import is_traced
from core.learner import Learner, Stream, gradient_learner, mean_over_devices, stream, with_sampler
from rec.sampling import nth_absent
from rec.sequential.histories import PAD, Rows, SequenceData
from rec.sequential.models import Bert4Rec, Sequential, product

Criterion = Callable[[Float[Array, "*places"], Float[Array, "*places n"]], Float[Array, "*places"]]
"""``(score of the target, scores of negatives) -> loss`` of each place."""


class Negatives(NamedTuple):
    """Which items are compared with the targets."""

    draw: Callable[[SequenceData, Any, Rows], Int[Array, "..."]]
    """``(data, key, rows) -> items``: [n] for all places of a batch alike, or [rows, length, n]."""
    axis: int | None
    """None where they are shared, 0 where rows have their own."""


class Batch(NamedTuple):
    """Packed histories with negatives."""

    rows: Rows
    negatives: Int[Array, "..."]
    keys: Key[Array, " rows"]
    """For the noise of each row, so that it does not depend on which device holds the row."""
    hidden: Bool[Array, "rows length"] | None = None
    """Which items are to be predicted from both sides; None where all are from the past."""


@checked
def bpr_max(positive: Float[Array, "*p"], negatives: Float[Array, "*p n"]) -> Float[Array, "*p"]:
    """-log sum_j softmax_j(s-) sigmoid(s+ - s-_j); with one negative, BPR.

    Hidasi and Karatzoglou, Recurrent Neural Networks with Top-k Gains, CIKM 2018; the loss of ReChorus.
    """
    return -jax.nn.logsumexp(
        jax.nn.log_softmax(negatives, axis=-1) + jax.nn.log_sigmoid(positive[..., None] - negatives), axis=-1
    )


@checked
def binary(positive: Float[Array, "*p"], negatives: Float[Array, "*p n"]) -> Float[Array, "*p"]:
    """-log sigmoid(s+) - sum_j log sigmoid(-s-_j), the loss of SASRec."""
    return jax.nn.softplus(-positive) + jnp.sum(jax.nn.softplus(negatives), axis=-1)


@checked
def softmax(positive: Float[Array, "*p"], negatives: Float[Array, "*p n"]) -> Float[Array, "*p"]:
    """-log of the target's share in the softmax over it and the negatives; with all items as negatives, exact."""
    return jnp.logaddexp(positive, jax.nn.logsumexp(negatives, axis=-1)) - positive


@checked
def shared_negatives(count: Count) -> Negatives:
    """Uniform items, the same for all places of a batch."""
    return Negatives(lambda data, key, rows: jax.random.randint(key, (count,), 0, data.clicked.shape[1]), None)


EVERY_ITEM = Negatives(lambda data, key, rows: jnp.arange(data.clicked.shape[1]), None)
"""The whole catalogue."""
SAMPLED = shared_negatives(512)


@checked
def own_negatives(count: Count) -> Negatives:
    """For each place its own items, uniform among those that the user does not have in training.

    Raises (when a learner starts):
      ConfigError: where a user has every item, so that there is none to draw.
    """

    def draw(data: SequenceData, key: Any, rows: Rows) -> Int[Array, "rows length n"]:
        indptr, users = data.clicked.indptr, rows.users.reshape(-1)
        _require_absent(data)
        absent = data.clicked.shape[1] - (indptr[users + 1] - indptr[users])
        rank = jax.random.randint(key, (count, users.shape[0]), 0, absent)
        found = jax.vmap(lambda r: nth_absent(data.clicked, users, r))(rank)
        return found.T.reshape(*rows.users.shape, count)

    return Negatives(draw, 0)


def _require_absent(data: SequenceData) -> None:
    """Once, where the data are known: when a learner starts, not when its steps are compiled."""
    if not is_traced(data.clicked.indptr):
        full = np.flatnonzero(np.diff(np.asarray(data.clicked.indptr)) >= data.clicked.shape[1])
        if len(full):
            raise ConfigError(
                f"own_negatives: user {full[0]} has every item, so that there is nothing to compare them with; leave "
                "such users out or compare with EVERY_ITEM"
            )


@checked
def row_sampler(
    batch_size: Count, negatives: Negatives, hide: Fraction | None = None
) -> Callable[[SequenceData, Any, Int[Array, ""]], Batch]:
    """A ``sample(data, key, step)`` for :func:`core.learner.with_sampler`: shuffled epochs of packed rows.

    Args:
      batch_size: rows per batch.
      negatives: which items are compared with the targets.
      hide: probability of hiding an item; None predicts from the past.
    """
    epochs = epoch_sampler(batch_size)

    def sample(data: SequenceData, key: Any, step: Int[Array, ""]) -> Batch:
        rows = epochs(data.rows, key, step)
        draw, noise, cloze = jax.random.split(stream(key, Stream.ROWS, step), 3)
        hidden = None if hide is None else hidden_places(cloze, rows, hide)
        return Batch(rows, negatives.draw(data, draw, rows), jax.random.split(noise, batch_size), hidden)

    return sample


@checked
def hidden_places(key: Any, rows: Rows, rate: Fraction) -> Bool[Array, "rows length"]:
    """Each place with probability ``rate``, and half of the last places, for there recommendations are read."""
    chosen, ends = jax.random.uniform(key, (2, *rows.items.shape))
    after = jnp.concatenate([rows.segments[..., 1:], jnp.zeros_like(rows.segments[..., :1])], axis=-1)
    is_last = rows.segments != after
    return ((chosen < rate) | (is_last & (ends < 0.5))) & (rows.items != PAD)


@checked
def sequence_loss(module: Sequential, criterion: Criterion):
    """The loss of a module on a :class:`Batch`: the mean of a criterion over all places with a target."""

    def states_of(params, row: Rows, key, hidden):
        extra = () if hidden is None else (hidden,)
        return module.apply(params, row.items, row.segments, *extra, train=True, rngs={"dropout": key})

    def loss(params, key, batch: Batch):
        del key
        states = jax.vmap(states_of, in_axes=(None, 0, 0, 0))(params, batch.rows, batch.keys, batch.hidden)
        table, targets = module.apply(params, method=module.table), batch.rows.targets
        there = targets != PAD if batch.hidden is None else batch.hidden
        positive, negative = compared(states, table, jnp.maximum(targets, 0), batch.negatives)
        values = jnp.where(there, criterion(positive, negative), 0.0)
        count = mean_over_devices(jnp.sum(there, dtype=jnp.float32))
        return jnp.sum(values) / jnp.maximum(count, 1.0), {}

    return loss


def compared(states, table, targets, negatives):
    """Scores of targets [rows, length] and negatives [rows, length, n], a negative that is the target at -1e9."""
    positive = product("bld,bld->bl", states, table[targets])
    pattern = "bld,nd->bln" if negatives.ndim == 1 else "bld,blnd->bln"
    negative = product(pattern, states, table[negatives])
    return positive, jnp.where(negatives == targets[..., None], -1e9, negative)


@checked
def sequential_learner(
    module: Sequential,
    *,
    tx: optax.GradientTransformation,
    batch_size: Count = 64,
    criterion: Criterion = softmax,
    negatives: Negatives = SAMPLED,
    hide: Fraction | None = None,
) -> Learner:
    """A learner of a sequential recommender, fed with :class:`rec.sequential.SequenceData`.

    Args:
      module: the model.
      tx: the optimiser.
      batch_size: packed rows per batch.
      criterion: :func:`softmax`, :func:`bpr_max` or :func:`binary`.
      negatives: what is compared with the targets.
      hide: the share of items hidden from a :class:`rec.sequential.Bert4Rec`.
    """
    hidden = hide if isinstance(module, Bert4Rec) else None

    def init_params(key, batch: Batch):
        return module.init(key, batch.rows.items, batch.rows.segments, *(() if hidden is None else (batch.hidden,)))

    axes: Any = Batch(0, negatives.axis, 0, None if hidden is None else 0)  # type: ignore[arg-type]
    learner = gradient_learner(init_params, sequence_loss(module, criterion), tx)
    return with_sampler(learner, row_sampler(batch_size, negatives, hidden), axes)
