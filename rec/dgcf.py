"""DGCF: one interaction graph per intent, found by routing, and propagation within each.

Wang et al., Disentangled Graph Collaborative Filtering, SIGIR 2020. The embedding is cut into F factors. Every directed
edge carries scores S [F]; softmax over the factors spreads the edge over F weighted graphs, in which the factors
propagate and from which the scores are corrected, T times per layer:

    A^f = softmax_f(S),  h^f = D_f^-1/2 A^f D_f^-1/2 x^f,  S^f_(h<-t) += <norm(h^f_h), tanh(norm(x^f_t))>
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from core.checks import Count, NonNegative, Positive, checked
from core.errors import ConfigError
from core.learner import Learner
from core.sparse import Graph, row_sums, sddmm, spmm
from rec.bpr import bpr, bpr_learner, embedding_table, embeddings, readout, squared_rows
from rec.graph import Nodes, RecGraph
from rec.sampling import Batch

Factors = tuple[Float[Array, "F users d_F"], Float[Array, "F items d_F"]]
"""A node table cut into factors."""


class Scores(NamedTuple):
    """Routing scores of both directions of every edge."""

    to_users: Float[Array, "F edges"]
    """In the order of ``user_item``."""
    to_items: Float[Array, "F edges"]
    """In the order of ``user_item.T``."""


@checked
class DGCF(nn.Module):
    """Readout embeddings of all nodes: the mean over layers."""

    dim: Count = 64
    layers: Count = 1
    factors: Count = 4
    iterations: Count = 2

    @nn.compact
    def __call__(self, graph: RecGraph) -> Nodes:
        """Layers of routing; the scores are carried from layer to layer."""
        if self.dim % self.factors:
            raise ConfigError(f"DGCF: {self.dim} dimensions do not divide into {self.factors} factors")
        table = embedding_table(self, graph, self.dim, nn.initializers.xavier_uniform())
        nodes: Factors = (_cut(table[0], self.factors), _cut(table[1], self.factors))
        total, pattern = nodes, graph.user_item
        ones = jnp.ones((self.factors, pattern.num_edges))
        scores = Scores(ones, ones)
        for _ in range(self.layers):
            nodes, scores = route(pattern, nodes, scores, self.iterations)
            total = jax.tree.map(jnp.add, total, nodes)
        users, items = (_join(part) / (self.layers + 1) for part in total)
        return users, items


@checked
def route(pattern: Graph, nodes: Factors, scores: Scores, iterations: Count) -> tuple[Factors, Scores]:
    """One layer: T rounds of propagation and correction of the scores (eqs. 8 to 11)."""
    old_users, old_items = jax.tree.map(_unit, nodes)
    new = nodes
    for _ in range(iterations):
        new = propagate_factors(pattern, nodes, scores)
        new_users, new_items = jax.tree.map(_unit, new)
        scores = Scores(
            scores.to_users + jax.vmap(lambda a, b: sddmm(pattern, a, b))(new_users, jnp.tanh(old_items)),
            scores.to_items + jax.vmap(lambda a, b: sddmm(pattern.T, a, b))(new_items, jnp.tanh(old_users)),
        )
    return new, scores


@checked
def propagate_factors(pattern: Graph, nodes: Factors, scores: Scores) -> Factors:
    """D^-1/2 A^f D^-1/2 x^f for every factor, A^f = softmax over factors of the scores, D its row sums."""
    to_users, to_items = (jax.nn.softmax(part, axis=0) for part in scores)

    def one(users, items, to_users, to_items) -> Nodes:
        user_scale = jax.lax.rsqrt(jnp.maximum(row_sums(pattern, to_users), 1e-12))
        item_scale = jax.lax.rsqrt(jnp.maximum(row_sums(pattern.T, to_items), 1e-12))
        return (
            user_scale[:, None] * spmm(pattern, item_scale[:, None] * items, to_users),
            item_scale[:, None] * spmm(pattern.T, user_scale[:, None] * users, to_items),
        )

    return jax.vmap(one)(*nodes, to_users, to_items)


@checked
def distance_correlation(x: Float[Array, "n a"], y: Float[Array, "n b"]) -> Float[Array, ""]:
    """dCor(x, y) = dCov(x, y) / sqrt(dVar(x) dVar(y)) of two paired samples; 0 in the limit of independence."""

    def centred(z):
        squares = jnp.sum(jnp.square(z), axis=1)
        distance = jnp.sqrt(jnp.maximum(squares[:, None] - 2 * z @ z.T + squares, 0.0) + 1e-8)
        return distance - distance.mean(0) - distance.mean(1, keepdims=True) + distance.mean()

    def covariance(a, b):
        return jnp.sqrt(jnp.maximum(jnp.mean(a * b), 0.0) + 1e-8)

    a, b = centred(x), centred(y)
    return covariance(a, b) / (jnp.sqrt(covariance(a, a) * covariance(b, b)) + 1e-10)


@checked
def independence_penalty(factors: Float[Array, "F n d_F"]) -> Float[Array, ""]:
    """The distance correlations of consecutive factors, over F (F + 1) / 2 (eq. 14 as its authors compute it)."""
    count = factors.shape[0]
    return jax.vmap(distance_correlation)(factors[:-1], factors[1:]).sum() / ((count + 1) * count / 2)


@checked
def dgcf_loss(model: DGCF, reg: NonNegative, independence: NonNegative, sample: Count):
    """BPR, the squared rows of E0 and the factors' dependence on a sample of nodes."""

    def loss(params, key, batch: Batch):
        nodes = readout(model, params, batch.graph)
        ranking = bpr(nodes, batch.triples)
        penalty = squared_rows(embeddings(params), batch.triples) / (2 * batch.triples.users.shape[0])
        drawn = [
            part[jax.random.choice(k, part.shape[0], (min(sample, part.shape[0]),), replace=False)]
            for k, part in zip(jax.random.split(key), nodes, strict=True)
        ]
        dependence = independence_penalty(_cut(jnp.concatenate(drawn), model.factors))
        metrics = {"bpr": ranking, "dependence": dependence}
        return ranking + reg * penalty + independence * dependence, metrics

    return loss


@checked
def dgcf_learner(
    *,
    dim: Count = 64,
    layers: Count = 1,
    factors: Count = 4,
    iterations: Count = 2,
    batch_size: Count = 2048,
    learning_rate: Positive = 1e-3,
    reg: NonNegative = 1e-3,
    independence: NonNegative = 0.01,
    sample: Count = 256,
) -> Learner:
    """DGCF with the settings published for Gowalla; ``sample`` users and items enter the independence penalty."""
    model = DGCF(dim, layers, factors, iterations)
    loss = dgcf_loss(model, reg, independence, sample)
    return bpr_learner(model, loss, batch_size=batch_size, tx=optax.adam(learning_rate))


def _cut(nodes: Float[Array, "n d"], factors: int) -> Float[Array, "F n d_F"]:
    return jnp.moveaxis(nodes.reshape(nodes.shape[0], factors, -1), 1, 0)


def _join(factors: Float[Array, "F n d_F"]) -> Float[Array, "n d"]:
    return jnp.moveaxis(factors, 0, 1).reshape(factors.shape[1], -1)


def _unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))
