"""Bayesian personalised ranking: the loss, its regularisers and the learner that graph recommenders share.

Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from core.checks import Count, checked
from core.learner import Learner, Loss, Params, gradient_learner, step_key, with_sampler
from rec.graph import Nodes, RecGraph
from rec.sampling import BATCH_AXES, Batch, Triples, triple_sampler


@checked
def bpr(nodes: Nodes, triples: Triples) -> Float[Array, ""]:
    """The mean over the batch of -log sigma(s(u, i+) - s(u, i-)), s(u, i) = <x_u, x_i>."""
    users, items = nodes
    difference = items[triples.negatives] - items[triples.positives]
    return jnp.mean(jax.nn.softplus(jnp.sum(users[triples.users] * difference, axis=-1)))


@checked
def squared_rows(nodes: Nodes, triples: Triples) -> Float[Array, ""]:
    """The sum over the batch, repetitions counted, of |x_u|^2 + |x_i+|^2 + |x_i-|^2.

    Rows are counted rather than gathered: the gradient is then an elementwise product and needs no scatter of rows.
    """
    users, items = nodes
    user_counts = jnp.zeros(users.shape[0]).at[triples.users].add(1.0)
    item_counts = jnp.zeros(items.shape[0]).at[triples.positives].add(1.0).at[triples.negatives].add(1.0)
    return jnp.sum(user_counts[:, None] * jnp.square(users)) + jnp.sum(item_counts[:, None] * jnp.square(items))


def embeddings(params: Params) -> Nodes:
    """The trained table E0 = (users, items) of a graph recommender."""
    return params["params"]["users"], params["params"]["items"]


def readout(model: nn.Module, params: Params, graph: RecGraph, *args: Any) -> Nodes:
    """What a model gives for a graph: embeddings of all users and items."""
    nodes: Any = model.apply(params, graph, *args)
    return nodes


@checked
def embedding_table(module: nn.Module, graph: RecGraph, dim: Count, init: Callable[..., Array]) -> Nodes:
    """The parameters ``users`` [U, d] and ``items`` [I, d] of a module, inside its ``__call__``."""
    return (
        module.param("users", init, (graph.num_users, dim), jnp.float32),
        module.param("items", init, (graph.num_items, dim), jnp.float32),
    )


@checked
def bpr_learner(model: nn.Module, loss: Loss, *, batch_size: Count, tx: optax.GradientTransformation) -> Learner:
    """A learner of a model ``graph -> (users, items)`` which draws its triples from :class:`rec.graph.RecData`."""

    def init_params(key, batch: Batch) -> Params:
        return model.init(key, batch.graph)

    return with_sampler(
        gradient_learner(init_params, loss, tx, key_of=step_key), triple_sampler(batch_size), BATCH_AXES
    )
