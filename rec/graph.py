"""The user-item graph of implicit feedback, and the symmetric propagation every graph recommender starts from.

With R in {0,1}^{U x I}, A = [[0, R], [R^T, 0]] and D = diag(A 1), the operator is Abar = D^-1/2 A D^-1/2. It is never
formed: a node table is kept as the pair (users [U, d], items [I, d]) and Abar acts through R and R^T.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from core.checks import checked
from core.datasets.interactions import Interactions, validate
from core.learner import mean_over_devices
from core.sparse import Graph, row_sums, sddmm, spmm, transpose_weights

Nodes = tuple[Float[Array, "users d"], Float[Array, "items d"]]
"""One table over all nodes, users and items apart."""


class RecGraph(NamedTuple):
    """Training interactions as a weighted bipartite graph."""

    user_item: Graph
    """The pattern of R, items ascending within a user."""
    weights: Float[Array, " edges"]
    """1 / sqrt(deg_u deg_i) per edge, in the order of ``user_item``."""
    transposed_weights: Float[Array, " edges"]
    """The same weights in the order of ``user_item.T``."""
    user_degrees: Float[Array, " users"]
    item_degrees: Float[Array, " items"]

    @property
    def num_users(self) -> int:
        """U, isolated users included."""
        return self.user_item.shape[0]

    @property
    def num_items(self) -> int:
        """I, isolated items included."""
        return self.user_item.shape[1]

    @classmethod
    @checked
    def build(cls, interactions: Interactions) -> "RecGraph":
        """The graph of the training part of a data set.

        Raises:
          DataError: where :func:`core.datasets.interactions.validate` finds something that cannot be.
        """
        interactions = validate(interactions, "interactions")
        indptr, items = interactions.train_indptr, interactions.train_items
        users = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
        pattern = Graph.from_edges(users, items, interactions.shape, shared=True)
        return jax.jit(normalised)(pattern, jnp.ones(pattern.num_edges, jnp.float32))


@checked
def normalised(pattern: Graph, weights: Float[Array, " edges"]) -> RecGraph:
    """The symmetrically normalised graph of edge weights w: w_ui / sqrt(deg_u deg_i), deg = sums of w.

    Edges of weight 0 are absent for every purpose, and nodes without edges get 0.
    """
    users = row_sums(pattern, weights)
    items = row_sums(pattern.T, transpose_weights(pattern, weights))
    scaled = weights * _inverse_sqrt(users)[pattern.rows] * _inverse_sqrt(items)[pattern.cols]
    return RecGraph(pattern, scaled, transpose_weights(pattern, scaled), users, items)


def _inverse_sqrt(degrees: Float[Array, " nodes"]) -> Float[Array, " nodes"]:
    return jnp.where(degrees > 0, 1.0 / jnp.sqrt(jnp.where(degrees > 0, degrees, 1.0)), 0.0)


@checked
def propagate(graph: RecGraph, users: Float[Array, "users d"], items: Float[Array, "items d"]) -> Nodes:
    """One application of Abar to the node table X: (R~ X_items, R~^T X_users) with R~ = D_u^-1/2 R D_i^-1/2."""
    return _symmetric_product(graph.user_item, graph.weights, graph.transposed_weights, users, items)


@jax.custom_vjp
def _symmetric_product(pattern: Graph, weights, transposed_weights, users, items) -> Nodes:
    return spmm(pattern, items, weights), spmm(pattern.T, users, transposed_weights)


def _pull_back(residuals, cotangents: Nodes):
    """Abar is its own transpose, so its weights are at hand in both orders; replicas share the work, as of products."""
    pattern, weights, transposed_weights, users, items = residuals
    to_users, to_items = mean_over_devices(cotangents) if pattern.shared else cotangents
    to_weights = sddmm(pattern, to_users, items), sddmm(pattern.T, to_items, users)
    return None, *to_weights, *_symmetric_product(pattern, weights, transposed_weights, to_users, to_items)


_symmetric_product.defvjp(lambda *args: (_symmetric_product(*args), args), _pull_back)


class RecData(NamedTuple):
    """What a learner with its own sampler is fed: the graph, and who can be drawn."""

    graph: RecGraph
    active_users: Int[Array, " active"]
    """Users with at least one training item and at least one item that is not."""

    @classmethod
    @checked
    def build(cls, interactions: Interactions) -> "RecData":
        """The graph and the users to draw triples of.

        Raises:
          DataError: where the interactions are not what they should be.
        """
        interactions = validate(interactions, "interactions")
        degrees = np.diff(interactions.train_indptr)
        active = np.flatnonzero((degrees > 0) & (degrees < interactions.shape[1]))
        return cls(RecGraph.build(interactions), jnp.asarray(active, jnp.int32))
