"""Training: the bound with a weight on the behaviour term that rises, and modalities hidden at random."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from core.learner import GradientLearner, Params, gradient_learner, step_key
from latent.diffusion import example_keys
from latent.mm_gpvae.model import MMGPVAE, Terms, Trials

Batch = tuple[Trials, Float[Array, ""]]
"""Trials and the weight of the behaviour term, which all of them share."""
BATCH_AXES = (0, None)


def learner(model: MMGPVAE, tx: optax.GradientTransformation, *, hide_behaviour: float = 0.0) -> GradientLearner:
    """Maximises the bound per trial.

    Args:
      model: the model.
      tx: the optimiser.
      hide_behaviour: probability with which recognition must do without a trial's behaviour. The bound still asks for
        the behaviour, so that counts alone learn to tell the shared latents.
    """

    def loss(params: Params, key: Any, batch: Batch):
        trials, weight = batch
        keys = example_keys(key, trials.present.shape[0])
        seen = trials._replace(present=_hide(keys, trials.present, hide_behaviour))
        terms = bound(model, params, keys, seen)
        value = -(terms.neural + weight * terms.behaviour - terms.kl).mean()
        means = {name: term.mean() for name, term in terms._asdict().items()}
        return value, {"elbo": terms.elbo.mean(), **means}

    return gradient_learner(lambda key, batch: first_params(model, key, batch[0]), loss, tx, key_of=step_key)


def bound(model: MMGPVAE, params: Params, keys: Key[Array, " trials"], trials: Trials) -> Terms:
    """The terms of the bound with a sample per trial."""
    shape = (model.basis.matrix.shape[0], model.partition.total)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    return cast(Terms, model.apply(params, trials, noise))


def _hide(
    keys: Key[Array, " trials"], present: Float[Array, "trials 2"], probability: float
) -> Float[Array, "trials 2"]:
    if not probability:
        return present
    kept = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), 1 - probability))(keys)
    return present.at[:, 1].multiply(kept)


def first_params(model: MMGPVAE, key: Any, trials: Trials) -> Params:
    """Initial parameters; the read-out's offsets are logarithms of mean counts, or the means of continuous channels."""
    noise = jnp.zeros((trials.present.shape[0], model.basis.matrix.shape[0], model.partition.total))
    params = model.init(key, trials, noise)
    if trials.counts is None:
        return params
    mean = trials.counts.mean(axis=(0, 1))
    bias = jnp.log(jnp.maximum(mean, 1e-2)) if model.observation == "poisson" else mean
    readout = {**params["params"]["readout"], "bias": bias}
    return {**params, "params": {**params["params"], "readout": readout}}


def weighted(
    sample: Callable[[Any, Any, Any], Trials], weight: Callable[[Int[Array, ""]], Any]
) -> Callable[[Trials, Any, Any], Batch]:
    """A sampler of batches with the weight of the behaviour term at each step."""
    return lambda data, key, step: (sample(data, key, step), jnp.asarray(weight(step), jnp.float32))


def rising(first: float, begin: int, end: int) -> optax.Schedule:
    """``first`` until step ``begin``, then linear to 1 at step ``end``."""
    return lambda step: first + (1 - first) * jnp.clip((step - begin) / max(1, end - begin), 0.0, 1.0)
