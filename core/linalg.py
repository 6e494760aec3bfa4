"""Decompositions of many small matrices inside one program."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree


def of_each_matrix(fn: Callable[[Any], PyTree], matrices: Array) -> PyTree:
    """``fn`` of every matrix of [..., rows, columns], one by one on the CPU and as a batch elsewhere.

    On the CPU a batched LAPACK call of jaxlib shares its matrices out to the thread pool that it runs on and waits for
    them there. Where as many such calls run at once as the pool has threads, none is left to work, and all wait for
    ever (seen with jaxlib 0.10.2). A call with a single matrix waits for nobody.
    """
    lead = matrices.shape[:-2]
    flat = matrices.reshape(math.prod(lead), *matrices.shape[-2:])
    found = jax.lax.platform_dependent(flat, cpu=lambda x: jax.lax.map(fn, x), default=jax.vmap(fn))
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), found)
