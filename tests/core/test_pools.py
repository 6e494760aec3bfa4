"""Runs of a pool see their own data set and their own settings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.fit import fit
from core.learner import gradient_learner
from core.pools import Pool, pool_learner


def squared(params, key, batch):
    x, weight = batch
    return weight * jnp.mean((params - x) ** 2), {}


def test_every_run_is_trained_on_its_own_data_set_with_its_own_weight():
    single = gradient_learner(lambda key, batch: jnp.zeros(2), squared, optax.sgd(0.1), batch_axes=(0, None))
    rows = jnp.stack([jnp.ones((8, 2)), -2 * jnp.ones((8, 2))])
    pool = Pool(rows, jnp.array([0, 1, 1]), jnp.array([1.0, 1.0, 0.0]))
    learner = pool_learner(single, lambda x, weight: (x, weight), runs=3, batch_size=4, batch_axes=(0, None))
    params = np.asarray(fit(learner, pool, key=jax.random.key(0), steps=300).state.params)
    np.testing.assert_allclose(params, [[1, 1], [-2, -2], [0, 0]], atol=1e-3)
