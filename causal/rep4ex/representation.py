"""Step 1: an autoencoder whose codes are linear in actions up to noise; many of them as one program.

    L(phi, eta) = mean over rows and coordinates of (x - eta(phi(x)))^2 + lambda Q(phi)

lambda = 0 is the plain autoencoder. For a VAE, L gains the mean divergence per coordinate times 2 sigma^2, sigma^2 the
variance of the decoder.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from causal.rep4ex.moments import Moments, Scale, median_bandwidth, restriction, v_statistic, whitened
from causal.rep4ex.networks import Coder
from core import pools
from core.checks import Count, NonNegative, Positive, checked
from core.errors import ConfigError
from core.learner import (
    GradientLearner,
    Learner,
    Params,
    example_keys,
    gradient_learner,
    step_key,
)
from core.pools import Pool


class Batch(NamedTuple):
    """Rows and how strictly they are judged."""

    x: Float[Array, "n m"]
    a: Float[Array, "n k"]
    lam: Float[Array, ""]
    bandwidth: Float[Array, ""]


BATCH_AXES: Any = Batch(0, 0, None, None)  # pyright: ignore[reportArgumentType]
DECODER_VARIANCE = 0.01
"""sigma^2 of VAEs, in units of the standardised X."""


def objective(
    coder: Coder, params: Params, key: Any, batch: Batch, moments: Moments = v_statistic, scale: Scale = whitened
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """L of a batch and its parts."""
    noise = jax.vmap(lambda k: jax.random.normal(k, (coder.d,)))(example_keys(key, len(batch.x)))
    coded: Any = coder.apply(params, batch.x, batch.a, noise)
    reconstruction = jnp.mean((batch.x - coded.decoded) ** 2)
    Q = restriction(coded.code, batch.a, batch.bandwidth, moments, scale)
    prior = 2 * DECODER_VARIANCE * coded.divergence / batch.x.shape[1]
    return reconstruction + prior + batch.lam * Q, {"reconstruction": reconstruction, "restriction": Q}


def representation_learner(
    coder: Coder, tx: optax.GradientTransformation, moments: Moments = v_statistic, scale: Scale = whitened
) -> GradientLearner:
    """Descends L on :class:`Batch`."""

    def init(key, batch: Batch):
        return coder.init(key, batch.x[:1], batch.a[:1], jnp.zeros((1, coder.d)))

    def loss(params: Params, key, batch: Batch):
        return objective(coder, params, key, batch, moments, scale)

    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=BATCH_AXES)


class DualState(NamedTuple):
    """A learner's state and the multiplier of its constraint."""

    inner: Any
    log_multiplier: Float[Array, ""]

    @property
    def step(self) -> Int[Array, ""]:
        """Updates done so far."""
        return self.inner.step

    @property
    def key(self) -> Any:
        """The run's key."""
        return self.inner.key

    @property
    def params(self) -> Params:
        """The parameters being trained."""
        return self.inner.params


@checked
def constrained(learner: GradientLearner, rate: Positive = 0.05, bound: Positive = 10.0) -> Learner:
    """Least Q subject to reconstruction <= c, by dual ascent; a batch's ``lam`` holds c.

    The Lagrangian Q + mu (reconstruction - c) has the minima of L at lambda = 1 / mu; after every step
    log mu += rate (reconstruction - c) / c, the increment at most ``rate`` and |log mu| at most ``bound``.
    """

    def init(key, batch: Batch) -> DualState:
        return DualState(learner.init(key, batch), jnp.zeros(()))

    def update(state: DualState, batch: Batch) -> tuple[DualState, dict[str, Any]]:
        lam = jnp.exp(-state.log_multiplier)
        inner, metrics = learner.update(state.inner, batch._replace(lam=lam))
        excess = jnp.clip((metrics["reconstruction"] - batch.lam) / batch.lam, -1.0, 1.0)
        multiplier = jnp.clip(state.log_multiplier + rate * excess, -bound, bound)
        return DualState(inner, multiplier), {**metrics, "lambda": lam}

    return Learner(init, update, learner.layout)


def pool(worlds: Sequence["Standardised"], world: Int[np.ndarray, " runs"], lam: Any) -> Pool:
    """Runs on standardised rows of some worlds; which world and lambda each has."""
    x, a = (jnp.stack([getattr(rows, name) for rows in worlds]) for name in ("x", "a"))
    bandwidth = jnp.asarray([rows.bandwidth for rows in worlds], jnp.float32)
    return Pool((x, a), jnp.asarray(world), (jnp.asarray(lam, jnp.float32), bandwidth[world]))


@checked
def pool_learner(single: Any, runs: Count, batch_size: Count, at_once: Count | None = None) -> Learner:
    """Trains the runs of a :func:`pool`, each on shuffled epochs of its own world, as one program.

    Args:
      single: a learner on :class:`Batch`.
      runs: how many.
      batch_size: rows per step.
      at_once: how many are vmapped, see :func:`core.learner.replicate_seeds`.
    """
    learner = pools.pool_learner(
        single, lambda rows, own: Batch(*rows, *own), runs=runs, batch_size=batch_size, batch_axes=BATCH_AXES,
        at_once=at_once,
    )  # fmt: skip
    return learner._replace(init=jax.jit(learner.init))


def validated(
    coder: Coder, params: Params, held: Batch, world: Int[Array, " runs"], moments: Moments, scale: Scale
) -> tuple[Float[Array, " runs"], Float[Array, " runs"]]:
    """Reconstruction error and restriction of every run on rows that were held out.

    Args:
      coder: the networks.
      params: of all runs, stacked.
      held: rows by world, stacked; ``lam`` is not looked at.
      world: of every run.
      moments: as trained with.
      scale: as trained with.
    """

    def judge(each):
        params, index = each
        batch = Batch(held.x[index], held.a[index], jnp.float32(0), held.bandwidth[index])
        metrics = objective(coder, params, jax.random.key(0), batch, moments, scale)[1]
        return metrics["reconstruction"], metrics["restriction"]

    return jax.lax.map(jax.jit(judge), (params, world))


def best(params: Params, loss: Float[np.ndarray, "runs restarts"]) -> tuple[Params, Int[np.ndarray, " runs"]]:
    """The restart of least loss of every run, and which one it is; restarts of a run are neighbours in ``params``.

    Raises:
      ConfigError: where a loss is not finite.
    """
    if not np.isfinite(loss).all():
        raise ConfigError("an encoder's validation loss is not finite; lower the learning rate or lambda")
    chosen = loss.argmin(axis=1)
    at = np.arange(len(loss)) * loss.shape[1] + chosen
    return jax.tree.map(lambda leaf: leaf[at], params), chosen


class Standardised(NamedTuple):
    """Rows less their means, X over one common scale, and how fresh rows are treated alike."""

    x: Float[np.ndarray, "n m"]
    a: Float[np.ndarray, "n k"]
    bandwidth: float
    x_mean: Float[np.ndarray, " m"]
    x_scale: float
    a_mean: Float[np.ndarray, " k"]

    def like(self, x: Float[np.ndarray, "j m"]) -> Float[np.ndarray, "j m"]:
        """Other rows of X in the same units."""
        return ((x - self.x_mean) / self.x_scale).astype(np.float32)


def standardise(x: Float[np.ndarray, "n m"], a: Float[np.ndarray, "n k"]) -> Standardised:
    """Rows as the learners want them.

    Raises:
      ConfigError: where rows disagree, are too few, are not finite or do not vary.
    """
    x, a = np.asarray(x, float), np.asarray(a, float)
    if x.ndim != 2 or a.ndim != 2 or len(x) != len(a):
        raise ConfigError(f"x {x.shape} and a {a.shape} must be matrices with the same number of rows")
    if len(a) <= a.shape[1] + 1:
        raise ConfigError(f"{len(a)} rows do not suffice for a regression on {a.shape[1]} actions and an intercept")
    if not (np.isfinite(x).all() and np.isfinite(a).all()):
        raise ConfigError("x and a must be finite; remove or impute rows that are not")
    x_mean, a_mean, x_scale = x.mean(axis=0), a.mean(axis=0), float(x.std(axis=0).mean())
    if x_scale == 0:
        raise ConfigError("x does not vary: there is nothing to represent")
    if np.linalg.matrix_rank(a - a_mean) < a.shape[1]:
        raise ConfigError(f"the {a.shape[1]} actions are linearly dependent; leave out those that others tell")
    centred = (a - a_mean).astype(np.float32)
    scaled = ((x - x_mean) / x_scale).astype(np.float32)
    return Standardised(scaled, centred, median_bandwidth(a), x_mean, x_scale, a_mean)


@checked
def cutoff(vanilla: float, variance: NonNegative) -> float:
    """What the restriction may cost: 1.2 x the plain autoencoder's reconstruction error + 1e-3 Var X."""
    return 1.2 * vanilla + 1e-3 * variance


@checked
def largest_lambda(lambdas: Sequence[float], reconstructions: Sequence[float], most: float) -> float:
    """The largest lambda whose reconstruction error on validation rows is at most ``most`` (:func:`cutoff`), or 0."""
    return max((lam for lam, error in zip(lambdas, reconstructions, strict=True) if error <= most), default=0.0)
