"""Recommenders in closed form: popularity, item neighbours, and the linear auto-encoder EASE.

Each gives an item-to-item matrix B [I, I] (or a vector of item scores) and serves as a check on trained models. The
matrix is dense: meant for catalogues of up to some ten thousand items.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
from jaxtyping import Array, Float, Int

from core.checks import Count, NonNegative, Positive, checked
from core.datasets.interactions import Interactions, validate
from rec.graph import RecGraph


@checked
def popularity(interactions: Interactions) -> Float[np.ndarray, " items"]:
    """How many users have each item in training."""
    interactions = validate(interactions, "interactions")
    return np.bincount(interactions.train_items, minlength=interactions.shape[1]).astype(np.float32)


@checked
def ease(interactions: Interactions, reg: Positive = 250.0) -> Float[np.ndarray, "items items"]:
    """Item weights B minimising |R - R B|_F^2 + reg |B|_F^2 with zero diagonal.

    With P = (R^T R + reg I)^-1: B_ij = -P_ij / P_jj off the diagonal.
    Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, eq. 8.
    """
    gram = _gram(interactions).toarray() + reg * np.eye(interactions.shape[1])
    inverse = scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram, overwrite_a=True), np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights.astype(np.float32)


@checked
def item_knn(
    interactions: Interactions, neighbours: Count = 100, shrink: NonNegative = 0.0
) -> Float[np.ndarray, "items items"]:
    """Cosine similarities of items, for each target item (column) those to its nearest neighbours only.

    s_ij = |N_i & N_j| / (sqrt(|N_i| |N_j|) + shrink), zero on the diagonal.
    """
    common = _gram(interactions)
    i, j, values = cosines(common, shrink)
    similarity = np.zeros((interactions.shape[1],) * 2)
    similarity[i, j] = values
    if neighbours < len(similarity):
        threshold = -np.partition(-similarity, neighbours - 1, axis=0)[neighbours - 1]
        similarity[similarity < threshold] = 0.0
    return similarity.astype(np.float32)


@checked
def cosines(common: Any, shrink: NonNegative) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine similarities of the pairs of items that somebody has both of: (i, j, s_ij), without the diagonal.

    s_ij = |N_i & N_j| / (sqrt(|N_i| |N_j|) + shrink); ``common`` are the numbers of users who have both, sparse [I, I].
    Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms, WWW 2001.
    """
    counts, pairs = common.diagonal(), common.tocoo()
    apart = pairs.row != pairs.col
    i, j = pairs.row[apart], pairs.col[apart]
    return i, j, pairs.data[apart] / (np.sqrt(counts[i] * counts[j]) + shrink)


def _gram(interactions: Interactions) -> scipy.sparse.csr_matrix:
    """R^T R."""
    interactions = validate(interactions, "interactions")
    values = np.ones(len(interactions.train_items))
    matrix = scipy.sparse.csr_matrix(
        (values, interactions.train_items, interactions.train_indptr), shape=interactions.shape
    )
    return matrix.T @ matrix


@checked
def history_score(
    model: tuple[RecGraph, Float[Array, "items items"]], users: Int[Array, " b"]
) -> Float[Array, "b items"]:
    """R_u B: a ``score`` for :class:`rec.ranking.Ranking`."""
    graph, weights = model
    return history(graph, users) @ weights


@checked
def history(graph: RecGraph, users: Int[Array, " b"]) -> Float[Array, "b items"]:
    """The rows of R of a block of users, dense."""
    pattern, block = graph.user_item, users.shape[0]
    slot = jnp.full((graph.num_users,), block).at[users].set(jnp.arange(block))
    dense = jnp.zeros((block, graph.num_items)).at[slot[pattern.rows], pattern.cols].set(1.0, mode="drop")
    return dense[slot[users]]


@checked
def popularity_score(model: Float[Array, " items"], rows: Int[Array, "b ..."]) -> Float[Array, "b items"]:
    """The same scores for every user or history: a ``score`` for :class:`rec.ranking.Ranking` and for
    :class:`rec.sequential.NextItemRanking`.
    """
    return jnp.broadcast_to(model, (rows.shape[0], model.shape[0]))


@checked
def closed_form(
    name: Literal["Popularity", "Item-kNN", "EASE"], interactions: Interactions
) -> tuple[Any, Callable[[Any, Int[Array, " b"]], Float[Array, "b items"]]]:
    """A model without training and how it scores, as :class:`rec.ranking.Ranking` takes them."""
    if name == "Popularity":
        return jnp.asarray(popularity(interactions)), popularity_score
    weights = ease(interactions) if name == "EASE" else item_knn(interactions)
    return (RecGraph.build(interactions), jnp.asarray(weights)), history_score
