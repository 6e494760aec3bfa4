"""d-separation of all sets at once, by Boolean matrix products.

Lauritzen's criterion: X and Y are d-separated by Z iff Z separates them in the moral graph of the ancestors of
X, Y and Z. Every function takes sets as Boolean masks and is vmapped over them.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool


def closure(adjacency: Bool[Array, "d d"]) -> Bool[Array, "d d"]:
    """Which nodes are reached from which along any number of edges, none included; by repeated squaring."""
    reached = adjacency | jnp.eye(adjacency.shape[-1], dtype=bool)
    for _ in range(max(adjacency.shape[-1] - 1, 1).bit_length()):
        reached = _product(reached, reached)
    return reached


def _product(a, b):
    return (a.astype(jnp.float32) @ b.astype(jnp.float32)) > 0


def d_separated(
    parents: Bool[Array, "d d"], x: Bool[Array, " d"], y: Bool[Array, " d"], given: Bool[Array, " d"]
) -> Bool[Array, ""]:
    """Whether no node of x is d-connected to one of y; ``parents[i, j]`` marks j as a parent of i."""
    relevant = jnp.any(closure(parents) & (x | y | given)[:, None], axis=0)
    family = (parents | jnp.eye(parents.shape[-1], dtype=bool)) & relevant[:, None]
    moral = _product(family.T, family)
    free = relevant & ~given
    reached = closure(moral & free[:, None] & free[None, :])
    return ~jnp.any(reached & (x & free)[:, None] & (y & free)[None, :])


def separated_from_interventions(
    parents: Bool[Array, "d d"], sites: Bool[Array, " d"], target: Bool[Array, " d"], given: Bool[Array, " d"]
) -> Bool[Array, ""]:
    """Whether the target is d-separated from the interventions: one more node per site, its parent.

    It implies that the conditional law of the target given the set is the same under all interventions at the sites.
    A soft intervention that multiplies weights does nothing at a node without parents: such sites are to be left out.
    """
    d = parents.shape[-1]
    augmented = jnp.zeros((2 * d, 2 * d), bool).at[:d, :d].set(parents).at[:d, d:].set(jnp.diag(sites))
    none = jnp.zeros(d, bool)
    wide = [jnp.concatenate(pair) for pair in ((none, sites), (target, none), (given, none))]
    return d_separated(augmented, *wide)
