"""Contrastive LightGCN: two views of the graph encoder, which should agree on every node and tell nodes apart.

SGL (Wu et al., Self-supervised Graph Learning for Recommendation, SIGIR 2021), here with edge dropout: the views
propagate over two random subgraphs, drawn anew each epoch. SimGCL (Yu et al., Are Graph Augmentations Necessary?,
SIGIR 2022): the views add uniform noise to every propagated embedding instead.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from core.checks import Count, NonNegative, Positive, checked
from core.kinds import Range
from core.learner import Learner, Stream, gradient_learner, stream, with_sampler
from rec.bpr import bpr, bpr_learner, embedding_table, embeddings, readout, squared_rows
from rec.contrastive import first_occurrence, nce
from rec.graph import Nodes, RecData, RecGraph, normalised, propagate
from rec.lightgcn import LightGCN
from rec.sampling import Batch, Triples, steps_per_epoch, triple_sampler

Drop = Annotated[float, Range(0, below=1)]
"""A share of edges left out; some must stay."""


class TwoViews(NamedTuple):
    """A batch with two subgraphs beside the whole graph."""

    graph: RecGraph
    triples: Triples
    views: tuple[RecGraph, RecGraph]


TWO_VIEWS_AXES: Any = TwoViews(None, 0, None)  # type: ignore[arg-type]


@checked
def drop_edges(graph: RecGraph, key: Key[Array, ""], rate: Drop) -> RecGraph:
    """The graph in which every edge is kept with probability 1 - rate, normalised by the degrees that remain."""
    kept = jax.random.bernoulli(key, 1.0 - rate, (graph.user_item.num_edges,))
    return normalised(graph.user_item, kept.astype(jnp.float32))


@checked
def two_view_sampler(batch_size: Count, rate: Drop) -> Callable[[RecData, Key[Array, ""], Int[Array, ""]], TwoViews]:
    """Triples of this step and subgraphs of this epoch, an epoch drawing as many triples as there are interactions."""
    draw = triple_sampler(batch_size)

    def sample(data: RecData, key: Key[Array, ""], step: Int[Array, ""]) -> TwoViews:
        epoch = step // steps_per_epoch(data.graph.user_item.num_edges, batch_size)
        keys = jax.random.split(stream(key, Stream.VIEWS, epoch))
        views = drop_edges(data.graph, keys[0], rate), drop_edges(data.graph, keys[1], rate)
        return TwoViews(data.graph, draw(data, key, step).triples, views)

    return sample


@checked
def joint_nce(a: Nodes, b: Nodes, triples: Triples, temperature: Positive) -> Float[Array, ""]:
    """The NCE between two views of the batch's users and positive items, all nodes negatives of each other."""

    def rows(view: Nodes) -> Float[Array, "2B d"]:
        return jnp.concatenate([view[0][triples.users], view[1][triples.positives]])

    distinct = jnp.concatenate([first_occurrence(triples.users), first_occurrence(triples.positives)])
    return nce(rows(a), rows(b), distinct, temperature)


@checked
def separate_nce(a: Nodes, b: Nodes, triples: Triples, temperature: Positive) -> Float[Array, ""]:
    """The NCE between two views of the batch's users plus that of its positive items."""
    sides = zip(a, b, (triples.users, triples.positives), strict=True)
    return sum((nce(x[i], y[i], first_occurrence(i), temperature) for x, y, i in sides), jnp.zeros(()))


@checked
class SimGCL(nn.Module):
    """LightGCN whose readout leaves out layer 0, with optional noise of norm ``noise`` on every layer."""

    dim: Count = 64
    layers: Count = 3
    noise: NonNegative = 0.1

    @nn.compact
    def __call__(self, graph: RecGraph, key: Key[Array, ""] | None = None) -> Nodes:
        """1/L sum_{l=1..L} X_l; with a key, X_l = Abar X_{l-1} + sign(Abar X_{l-1}) * noise * u/|u|, u ~ U[0,1]^d."""
        nodes = embedding_table(self, graph, self.dim, nn.initializers.xavier_uniform())
        total = jax.tree.map(jnp.zeros_like, nodes)
        for layer in range(self.layers):
            nodes = propagate(graph, *nodes)
            if key is not None:
                keys = jax.random.split(jax.random.fold_in(key, layer))
                nodes = tuple(perturb(part, k, self.noise) for part, k in zip(nodes, keys, strict=True))
            total = jax.tree.map(jnp.add, total, nodes)
        users, items = (part / self.layers for part in total)
        return users, items


@checked
def perturb(x: Float[Array, "n d"], key: Key[Array, ""], norm: NonNegative) -> Float[Array, "n d"]:
    """X plus a random vector of the given norm in the orthant of x."""
    u = jax.random.uniform(key, x.shape)
    return x + jnp.sign(x) * norm * u / jnp.linalg.norm(u, axis=-1, keepdims=True)


@checked
def simgcl_learner(
    *,
    dim: Count = 64,
    layers: Count = 3,
    batch_size: Count = 2048,
    learning_rate: Positive = 1e-3,
    reg: NonNegative = 1e-4,
    ssl: NonNegative = 0.5,
    temperature: Positive = 0.2,
    noise: NonNegative = 0.1,
) -> Learner:
    """SimGCL as in SELFRec, with LightGCN's penalty on E0."""
    model = SimGCL(dim, layers, noise)

    def loss(params, key, batch: Batch):
        ranking = bpr(readout(model, params, batch.graph), batch.triples)
        first, second = (readout(model, params, batch.graph, k) for k in jax.random.split(key))
        contrast = separate_nce(first, second, batch.triples, temperature)
        return _total(params, batch.triples, ranking, contrast, reg, ssl)

    return bpr_learner(model, loss, batch_size=batch_size, tx=optax.adam(learning_rate))


@checked
def sgl_learner(
    *,
    dim: Count = 64,
    layers: Count = 3,
    batch_size: Count = 2048,
    learning_rate: Positive = 1e-3,
    reg: NonNegative = 1e-4,
    ssl: NonNegative = 0.1,
    temperature: Positive = 0.2,
    drop: Drop = 0.1,
) -> Learner:
    """SGL with edge dropout as in SELFRec, with LightGCN's penalty on E0."""
    model = LightGCN(dim, layers, nn.initializers.xavier_uniform())

    def loss(params, key, batch: TwoViews):
        ranking = bpr(readout(model, params, batch.graph), batch.triples)
        first, second = (readout(model, params, view) for view in batch.views)
        contrast = joint_nce(first, second, batch.triples, temperature)
        return _total(params, batch.triples, ranking, contrast, reg, ssl)

    def init_params(key, batch: TwoViews):
        return model.init(key, batch.graph)

    learner = gradient_learner(init_params, loss, optax.adam(learning_rate))
    return with_sampler(learner, two_view_sampler(batch_size, drop), TWO_VIEWS_AXES)


def _total(params, triples: Triples, ranking, contrast, reg: float, ssl: float):
    penalty = squared_rows(embeddings(params), triples) / (2 * triples.users.shape[0])
    return ranking + reg * penalty + ssl * contrast, {"bpr": ranking, "ssl": contrast}
