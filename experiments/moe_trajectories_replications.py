"""Replications for ``moe_trajectories``: data sets of the example's design, and fits of all of them in one program."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

import latent.moe_trajectories as moe
from core.learner import seed_keys

Network = Literal["expert", "gating"]


@functools.partial(jax.jit, static_argnums=1)
def draw(keys: jax.Array, persons: int):
    """Data sets of the example's design, stacked, and their labels."""
    return jax.vmap(lambda key: moe.simulate(key, moe.example_truth(), persons))(keys)


def replications(number: int, persons: int, lanes: int, networks: tuple[Network, ...] = (), errors: bool = True):
    """Fits of the first simulated data sets from starts at the truth, in one program; data, labels and truth."""
    with jax.enable_x64(True):
        data, labels = draw(seed_keys(range(1000, 1000 + number)), persons)
        reduced = data.without(*networks)
        first = start_of(moe.true_params(moe.example_truth()), networks)
        first = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), first)
        arranged = jax.vmap(moe.arrange)(reduced)
        found = moe.replicate(moe.Mixture(2), first, arranged, lanes=lanes, errors=errors)
        return jax.tree.map(np.asarray, (found, data, labels, moe.true_params(moe.example_truth())))


def start_of(params: moe.Params, networks: tuple[Network, ...]) -> moe.Params:
    """The parameters of a reduced mixture."""
    e = params.experts
    if "expert" in networks:
        e = e._replace(B=e.B[..., :0], mux=e.mux[..., :0], phi=e.phi[..., :0])
    return moe.Params(params.gating[:, :1] if "gating" in networks else params.gating, e)
