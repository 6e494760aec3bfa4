"""Replications for ``moe_trajectories``: data sets of the example's design, and fits of all of them in one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import latent.moe_trajectories as moe
from core.learner import seed_keys
from experiments.moe_trajectories.config import Network


def simulated(number: int, persons: int) -> tuple[moe.GrowthData, np.ndarray]:
    """The first data sets of the example's design, stacked, and their labels."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _draw(seed_keys(range(1000, 1000 + number)), persons))


@functools.partial(jax.jit, static_argnums=1)
def _draw(keys: jax.Array, persons: int):
    return jax.vmap(lambda key: moe.simulate(key, moe.example_truth(), persons))(keys)


def replications(number: int, persons: int, lanes: int, networks: tuple[Network, ...] = (), errors: bool = True):
    """Fits of the first simulated data sets from starts at the truth, in one program; data, labels and truth."""
    data, labels = simulated(number, persons)
    with jax.enable_x64(True):
        truth = moe.true_params(moe.example_truth())
        first = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), start_of(truth, networks))
        arranged = jax.jit(jax.vmap(moe.arrange))(data.without(*networks))
        found = moe.replicate(moe.Mixture(2), first, arranged, lanes=lanes, errors=errors)
        return jax.tree.map(np.asarray, (found, data, labels, truth))


def start_of(params: moe.Params, networks: tuple[Network, ...]) -> moe.Params:
    """The parameters of a reduced mixture."""
    e = params.experts
    if "expert" in networks:
        e = e._replace(B=e.B[..., :0], mux=e.mux[..., :0], phi=e.phi[..., :0])
    return moe.Params(params.gating[:, :1] if "gating" in networks else params.gating, e)
