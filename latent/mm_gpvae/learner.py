"""Training: the bound with a weight on the behaviour term that rises, and modalities hidden at random."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from core.checks import Fraction, Natural, checked
from core.learner import GradientLearner, Params, example_keys, gradient_learner, step_key, stream
from latent.mm_gpvae.model import MMGPVAE, Terms, Trials

Batch = tuple[Trials, Float[Array, ""]]
"""Trials and the weight of the behaviour term, which all of them share."""
BATCH_AXES = (0, None)


@checked
def learner(model: MMGPVAE, tx: optax.GradientTransformation, *, hide_behaviour: Fraction = 0.0) -> GradientLearner:
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

    return gradient_learner(
        lambda key, batch: first_params(model, key, batch[0]), loss, tx, key_of=step_key, batch_axes=BATCH_AXES
    )


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
    kept = jax.vmap(lambda key: jax.random.bernoulli(stream(key, "hidden behaviour"), 1 - probability))(keys)
    return present.at[:, 1].multiply(kept)


def first_params(model: MMGPVAE, key: Any, trials: Trials) -> Params:
    """Initial parameters: kernels normal with variance 1 / inputs, offsets of the read-out from the data.

    Offsets are logarithms of mean counts, or the means of continuous channels. All kernels come from one draw, because
    compiling a draw per kernel takes longer than compiling the training step.
    """
    noise = jnp.zeros((trials.present.shape[0], model.basis.matrix.shape[0], model.partition.total))
    params = model.init(key, trials, noise)  # of which the kernels are replaced
    leaves, treedef = jax.tree.flatten(params)
    kernels = [leaf for leaf in leaves if leaf.ndim == 2]
    ends = np.cumsum([leaf.size for leaf in kernels])
    drawn = iter(jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1]))
    leaves = [next(drawn).reshape(leaf.shape) / leaf.shape[0] ** 0.5 if leaf.ndim == 2 else leaf for leaf in leaves]
    params = treedef.unflatten(leaves)
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


@checked
def rising(first: Fraction, begin: Natural, end: Natural) -> optax.Schedule:
    """``first`` until step ``begin``, then linear to 1 at step ``end``."""
    return lambda step: first + (1 - first) * jnp.clip((step - begin) / max(1, end - begin), 0.0, 1.0)


def reference_optimizer() -> optax.GradientTransformation:
    """Adam as in the released code: a learning rate and a gradient norm of at most 1 per network."""
    rates = {"behaviour": 1.6e-4, "recognition": 7.72e-4, "readout": 8.8e-3}
    clipped: dict[Any, optax.GradientTransformation] = {
        name: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)) for name, rate in rates.items()
    }
    homes = {"sees_counts": "recognition", "readout": "readout"}

    def label(path, _):
        return next((homes[key.key] for key in path if key.key in homes), "behaviour")

    return optax.multi_transform(clipped, lambda params: jax.tree_util.tree_map_with_path(label, params))
