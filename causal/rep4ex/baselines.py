"""What a representation has to beat: regressions on actions or on X alone, and codes without the restriction."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from causal.rep4ex.moments import regress
from causal.rep4ex.networks import Mlp
from core.checks import Count, checked
from core.learner import GradientLearner, Params, example_keys, gradient_learner, step_key


class Rows(NamedTuple):
    """A batch for a regression."""

    inputs: Float[Array, "n p"]
    y: Float[Array, " n"]


def linear(rows: Rows, inputs: Float[Array, "j p"]) -> Float[Array, " j"]:
    """Ordinary least squares of y on the inputs, at others."""
    found = regress(rows.y[:, None], rows.inputs)
    return inputs @ found.M[0] + found.q[0]


@checked
def regression_learner(tx: optax.GradientTransformation, hidden: tuple[Count, ...] = (64, 64)) -> GradientLearner:
    """A network which regresses y on the inputs by least squares."""
    net = Mlp(1, hidden)

    def loss(params: Params, key, batch: Rows):
        return jnp.mean((batch.y - network(params, batch.inputs, hidden)) ** 2), {}

    return gradient_learner(lambda key, batch: net.init(key, batch.inputs[:1]), loss, tx, batch_axes=0)


@checked
def network(params: Params, inputs: Float[Array, "n p"], hidden: tuple[Count, ...] = (64, 64)) -> Float[Array, " n"]:
    """What the trained network says."""
    out: Any = Mlp(1, hidden).apply(params, inputs)
    return out[:, 0]


NOISES = 4
"""Dimensions of the noise that engression adds to the inputs."""


@checked
def engression_learner(tx: optax.GradientTransformation, hidden: tuple[Count, ...] = (64, 64)) -> GradientLearner:
    """Engression: Y ~ g(inputs, noise), noise before the nonlinearity, by the energy score (Shen, Meinshausen 2024).

    E|Y - g(x, e)| - E|g(x, e) - g(x, e')| / 2, with one pair of draws per row and step.
    """
    net = Mlp(1, hidden)

    def loss(params: Params, key, batch: Rows):
        keys = example_keys(key, len(batch.y))
        noise = jax.vmap(lambda k: jax.random.normal(k, (2, NOISES)))(keys)
        first, second = (network(params, _with(batch.inputs, noise[:, i]), hidden) for i in range(2))
        near = (jnp.abs(batch.y - first) + jnp.abs(batch.y - second)) / 2
        return jnp.mean(near - jnp.abs(first - second) / 2), {}

    def init(key, batch: Rows):
        return net.init(key, jnp.zeros((1, batch.inputs.shape[1] + NOISES)))

    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=0)


@checked
def engression_mean(
    params: Params, key: Any, inputs: Float[Array, "n p"], draws: Count = 512, hidden: tuple[Count, ...] = (64, 64)
) -> Float[Array, " n"]:
    """The mean of Y at inputs, over draws of the noise."""
    noise = jax.random.normal(key, (draws, NOISES))

    def at(x):
        return network(params, _with(jnp.broadcast_to(x, (draws, len(x))), noise), hidden).mean()

    return jax.lax.map(at, inputs)


def _with(inputs: Float[Array, "n p"], noise: Float[Array, "n q"]) -> Float[Array, "n pq"]:
    return jnp.concatenate([inputs, noise], axis=1)


@checked
def principal_components(x: Float[Array, "n m"], d: Count) -> Float[Array, "m d"]:
    """Directions of most variance; codes are centred x times these."""
    return jnp.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:d].T


class Recovered(NamedTuple):
    """How much of the true latents is an affine function of a code."""

    r2: Float[Array, ""]
    """Mean over latents of R^2 on the second half of the rows, after a regression on the first half."""
    mcc: Float[Array, ""]
    """Mean over latents of the largest absolute correlation with one coordinate; not the target, which is affine."""


def recovered(w: Float[Array, "n d"], z: Float[Array, "n k"]) -> Recovered:
    """On rows that training has not seen."""
    half = len(w) // 2
    design = jnp.concatenate([jnp.ones((len(w), 1), w.dtype), w], axis=1)
    coef = jnp.linalg.lstsq(design[:half], z[:half])[0]
    rest = z[half:]
    error = ((rest - design[half:] @ coef) ** 2).sum(axis=0)
    r2 = 1 - error / ((rest - rest.mean(axis=0)) ** 2).sum(axis=0)
    correlation = jnp.abs(jnp.corrcoef(w.T, z.T)[: w.shape[1], w.shape[1] :])
    return Recovered(r2.mean(), correlation.max(axis=0).mean())
