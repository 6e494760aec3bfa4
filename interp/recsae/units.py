"""Units to be interpreted: latents of a dictionary, and what they are compared with, all equally sparse.

A unit is a function of the activation x that is positive where the unit is active. Directions are active where the
projection of x exceeds a threshold, chosen so that every direction is active in the same share of instances as latents
are on average: otherwise dense units would be judged on weak activations.
"""

import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float

from core.checks import FINITE, Count, Natural, OpenFraction, checked
from interp.recsae.validation import Activity
from interp.sae import Sparse

Direction = Literal["neurons", "random directions", "principal components", "independent components"]

Sample = Annotated[Float[np.ndarray, "n d"], FINITE]
"""Activations of a model."""


class Directions(NamedTuple):
    """relu(D (x - centre) - threshold)."""

    D: Float[Array, "units d"]
    centre: Float[Array, " d"]
    threshold: Float[Array, " units"]


@checked
def directions(kind: Direction, x: Sample, density: OpenFraction, seed: Natural = 0) -> Directions:
    """Directions, each with its opposite, at equal density.

    Args:
      kind: the axes of x, a random rotation of them, or the components of PCA or ICA.
      x: a sample of activations.
      density: the share of instances in which each unit is active.
      seed: of the rotation and of ICA's start.
    """
    basis = BASES[kind](x, seed)
    D = np.concatenate([basis, -basis])
    centre = x.mean(axis=0)
    threshold = np.quantile((x - centre) @ D.T, 1 - density, axis=0)
    return Directions(*(jnp.asarray(part, jnp.float32) for part in (D, centre, threshold)))


def _rotation(x: np.ndarray, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(x.shape[1], x.shape[1])))[0]


def _principal(x: np.ndarray, seed: int) -> np.ndarray:
    return np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2]


def _independent(x: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a rotation near the optimum serves as a baseline, too
        return FastICA(random_state=seed, whiten="unit-variance", max_iter=100, tol=1e-3).fit(x[:8192]).components_


BASES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "neurons": lambda x, seed: np.eye(x.shape[1]),
    "random directions": _rotation,
    "principal components": _principal,
    "independent components": _independent,
}


class Clusters(NamedTuple):
    """Active at the nearest of some centres, the more the nearer."""

    centres: Float[Array, "units d"]


@checked
def clusters(x: Sample, count: Count, seed: Natural = 0) -> Clusters:
    """k-means."""
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(
        count,
        random_state=seed,
        n_init=1,  # type: ignore[arg-type]
        batch_size=4096,
        max_iter=20,
    ).fit(x)
    return Clusters(jnp.asarray(found.cluster_centers_, jnp.float32))


@checked
def of_directions(units: Directions, x: Float[Array, "b d"]) -> Float[Array, "b units"]:
    """How far the projections exceed their thresholds."""
    return jax.nn.relu((x - units.centre) @ units.D.T - units.threshold)


@checked
def of_clusters(units: Clusters, x: Float[Array, "b d"]) -> Float[Array, "b units"]:
    """1 / (1 + distance) at the nearest centre."""
    squares = jnp.sum(x**2, 1, keepdims=True) - 2 * x @ units.centres.T + jnp.sum(units.centres**2, 1)
    nearest = jax.nn.one_hot(jnp.argmin(squares, axis=1), squares.shape[1])
    return nearest / (1 + jnp.sqrt(jnp.maximum(squares, 0)))


@checked
def activity(units: Callable[[Any, Array], Any], params: Any, x: Any, block: Count = 4096) -> Activity:
    """Where units are active and how strongly, computed a block at a time: the last one is padded.

    Args:
      units: ``(params, x) -> activations``, dense or :class:`interp.sae.Sparse`: ``partial(sae.encode, variant)``.
      params: of the units.
      x: activations of the model [n, d], on the host or the device.
      block: instances at a time.
    """
    apply, parts = jax.jit(units), []
    for start in range(0, len(x), block):
        rows = np.asarray(x[start : start + block], np.float32)
        padded = np.pad(rows, ((0, block - len(rows)), (0, 0)))
        parts.append(_sparse(jax.device_get(apply(params, padded)), _count(params))[: len(rows)])
    return scipy.sparse.vstack(parts).tocsc()


def _count(params: Any) -> int:
    leaf = params["b_e"] if isinstance(params, dict) else jax.tree.leaves(params)[0]
    return leaf.shape[0]


def _sparse(found: Any, units: int) -> Any:
    if not isinstance(found, Sparse):
        return scipy.sparse.csr_matrix(found)
    rows = np.repeat(np.arange(len(found.values)), found.values.shape[1])
    matrix: Any = scipy.sparse.csr_matrix(
        (found.values.ravel(), (rows, found.indices.ravel())), (len(found.values), units)
    )
    matrix.eliminate_zeros()
    return matrix


@checked
def shuffled(matrix: Activity, rng: np.random.Generator) -> Activity:
    """The same activations at instances in random order: what remains is chance."""
    return matrix.tocsr()[rng.permutation(matrix.shape[0])].tocsc()
