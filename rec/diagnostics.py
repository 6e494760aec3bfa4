"""What embeddings and learned weights reveal beside accuracy: smoothness, recovered intents, edges told apart,
and by how much users gain.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from core.checks import FINITE, Count, Natural, checked, require_indices
from core.errors import ConfigError
from core.stats import auc as auc
from core.stats import central
from rec.graph import Nodes


@checked
def mean_average_distance(nodes: Nodes, key: Key[Array, ""], pairs: Count = 2000) -> Float[Array, ""]:
    """MAD: the mean of 1 - cos(x_a, x_b) over random pairs of nodes; 0 where all embeddings point one way.

    Chen et al., Measuring and Relieving the Over-smoothing Problem for Graph Neural Networks, AAAI 2020.
    """
    x = jnp.concatenate(nodes)
    a, b = jax.random.randint(key, (2, pairs), 0, x.shape[0])
    norms = jnp.linalg.norm(x[a], axis=-1) * jnp.linalg.norm(x[b], axis=-1)
    cosine = jnp.sum(x[a] * x[b], axis=-1) / jnp.maximum(norms, 1e-12)
    return jnp.mean(1.0 - cosine)


@checked
def purity(clusters: Int[np.ndarray, " n"], classes: Int[np.ndarray, " n"]) -> float:
    """The share of examples whose class is the commonest in their cluster.

    Raises:
      ConfigError: for numbers below 0 and where there is no example.
    """
    clusters, classes = np.asarray(clusters), np.asarray(classes)
    if not len(classes):
        raise ConfigError("purity: there is no example")
    require_indices("purity: clusters", clusters, clusters.max() + 1, "clusters")
    require_indices("purity: classes", classes, classes.max() + 1, "classes")
    table = np.zeros((clusters.max() + 1, classes.max() + 1), int)
    np.add.at(table, (clusters, classes), 1)
    return float(table.max(axis=1).sum() / len(classes))


@checked
def by_degree(
    values: Float[np.ndarray, " users"], degrees: Int[np.ndarray, " users"], buckets: Count = 4
) -> dict[str, float]:
    """Means of a per-user metric over groups of about equally many users by number of training items."""
    largest = np.unique(np.quantile(degrees, np.linspace(0, 1, buckets + 1)[1:], method="lower"))
    group = np.searchsorted(largest, degrees)
    means = {}
    for index in np.unique(group):
        members = degrees[group == index]
        means[f"{members.min()}-{members.max()}"] = float(np.mean(values[group == index], dtype=np.float64))
    return means


@checked
def user_bootstrap(
    gains: Annotated[Float[np.ndarray, " users"], FINITE], seed: Natural = 0, draws: Count = 1000
) -> tuple[float, float, float]:
    """The mean gain per user of one ranking over another, and the limits of its 95 % interval over users.

    Users are drawn with replacement ``draws`` times; the limits are the percentiles of their mean gains. What is paired
    is paired by user: ``gains`` are differences of a metric of the same users.

    Raises:
      ConfigError: where there is no user.
    """
    if not len(gains):
        raise ConfigError("user_bootstrap: gains has no entry; there must be users")
    rng = np.random.default_rng(seed)
    means = np.array([gains[rng.integers(len(gains), size=len(gains))].mean() for _ in range(draws)])
    limits = central(means)
    return float(gains.mean()), float(limits.low), float(limits.high)
