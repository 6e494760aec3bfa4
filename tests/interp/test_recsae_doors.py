"""What the interpretation of a recommender is given is checked where it enters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.sparse

from core.errors import ConfigError
from interp import recsae, sae

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
TOPK = sae.topk(2)
PARAMS = sae.sae_learner(TOPK, 8, optax.sgd(0.1)).init(jax.random.key(0), jnp.asarray(X)).params
ACTIVITY = scipy.sparse.csc_matrix(np.maximum(X, 0))
REFUSED = {
    "directions: kind must be one of": lambda: recsae.directions("Neurons", X, 0.1),
    "directions: density": lambda: recsae.directions("neurons", X, 1.5),
    "directions: x has nan at [2, 1]": lambda: recsae.directions("neurons", np.where(X[2, 1] == X, np.nan, X), 0.1),
    "clusters: count": lambda: recsae.clusters(X, 0),
    "activity: block": lambda: recsae.activity(lambda params, x: x, PARAMS, X, block=0),
    "strongest: count": lambda: recsae.strongest(ACTIVITY, 0),
    "steer: latents is 8, but there are 8 latents": lambda: recsae.steer(TOPK, PARAMS, 8, recsae.ablated),
    "steer: latents is -1": lambda: recsae.steer(TOPK, PARAMS, -1, recsae.ablated),
    "rescale: 7 factors for 8 latents": lambda: recsae.rescale(TOPK, PARAMS, jnp.ones(7)),
    "overlap: p": lambda: recsae.overlap(jnp.arange(3), jnp.arange(3), 1.0),
    "lift: prior": lambda: recsae.lift(np.ones(2), 3, np.ones(2), 9, prior=0.0),
    "by_attributes: items[1] is 3": lambda: recsae.by_attributes(
        scipy.sparse.csr_matrix(np.eye(3, dtype=bool)), ("a", "b", "c"), np.array([0, 3])
    ),
    "capture: site must be a Site": lambda: recsae.capture(lambda x: x, ("query",)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_named(message):
    with pytest.raises(ConfigError) as caught:
        REFUSED[message]()
    assert message in str(caught.value)
