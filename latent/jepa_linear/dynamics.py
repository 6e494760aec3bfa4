r"""Deep linear encoders trained to predict one view from the other, in latent space (JEPA) or in input space (MAE).

With encoder W = W_L ... W_1 and predictor or decoder V, in terms of moments and up to constants::

    L_JEPA = 1/2 tr(V W S_xx W^T V^T) - tr(V W S_xy SG(W)^T)
    L_MAE  = 1/2 tr(V W S_xx W^T V^T) - tr(V W S_xy)

SG stops the gradient; without it JEPA collapses to W = 0.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from core.checks import Count, Fraction, NonNegative, OpenFraction, Positive, checked
from core.errors import ConfigError
from core.learner import (
    GradientLearner,
    Learner,
    LearnerLike,
    Params,
    State,
    Stream,
    gradient_learner,
    mean_over_devices,
    seed_keys,
    stream,
)
from latent.jepa_linear.moments import Features, Moments, random_basis, sample_moments
from latent.jepa_linear.theory import Objective, fixed_point, learned_at


class DeepLinear(nn.Module):
    """An encoder of ``depth`` layers, all square but the last, and a linear map on top of it."""

    d: int
    depth: int
    width: int | None = None
    """Dimension of the representation; ``d`` if None."""
    reconstructs: bool = False
    """Whether the map on top goes back to the input (MAE) or stays in the representation (JEPA)."""
    kernel_init: nn.initializers.Initializer = nn.initializers.orthogonal(0.5)

    @classmethod
    def of(cls, objective: Objective, depth: int, d: int, width: int | None = None) -> "DeepLinear":
        """The encoder with the map on top that the objective needs."""
        return cls(d, depth, width, reconstructs=objective == "MAE")

    def setup(self):
        """Declares the matrices."""
        if min(self.d, self.depth) < 1 or not 1 <= (self.width or self.d) <= self.d:
            raise ConfigError(
                f"DeepLinear takes d, depth and width of at least 1 and width of at most d, not d = {self.d}, "
                f"depth = {self.depth}, width = {self.width}"
            )
        k = self.width or self.d
        shapes = [(self.d, self.d)] * (self.depth - 1) + [(k, self.d)]
        self.layers = [self.param(f"w{i + 1}", self.kernel_init, shape) for i, shape in enumerate(shapes)]
        self.top = self.param("v", self.kernel_init, (self.d if self.reconstructs else k, k))

    def __call__(self) -> tuple[Float[Array, "k d"], Float[Array, "out k"]]:
        """(W, V), with W = W_L ... W_1."""
        return reduce(lambda product, layer: layer @ product, self.layers), self.top


def self_distillation(w, v, target, moments: Moments) -> Float[Array, ""]:
    """L_JEPA with the given target encoder."""
    vw = v @ w
    energy = jnp.sum((vw @ moments.xx) * vw) / 2
    return energy - jnp.sum((vw @ moments.xy) * jax.lax.stop_gradient(target))


def reconstruction(w, v, moments: Moments) -> Float[Array, ""]:
    """L_MAE."""
    vw = v @ w
    return jnp.sum((vw @ moments.xx) * vw) / 2 - jnp.sum(vw * moments.xy.T)


InitParams = Callable[[Any, Moments], Params]


@checked
def learner(
    objective: Objective, model: DeepLinear, tx: optax.GradientTransformation, init_params: InitParams | None = None
) -> GradientLearner:
    """Descends an objective; its batch is a :class:`Moments`, of the population or of a sample.

    Args:
      objective: "JEPA" or "MAE".
      model: the networks; ``reconstructs`` must fit the objective.
      tx: ``optax.sgd(dt)`` follows the gradient flow in steps of dt.
      init_params: ``(key, moments) -> params``; the model's own if None.

    Raises:
      ConfigError: where the model does not fit the objective.
    """
    if model.reconstructs != (objective == "MAE"):
        raise ConfigError(
            f"learner: {objective} needs a model with reconstructs={objective == 'MAE'}, not {model.reconstructs}"
        )

    def loss(params, key, moments: Moments):
        w, v = _matrices(model, params)
        return (self_distillation(w, v, w, moments) if objective == "JEPA" else reconstruction(w, v, moments)), {}

    return gradient_learner(init_params or (lambda key, moments: model.init(key)), loss, tx)


def _matrices(model: DeepLinear, params: Params) -> tuple[Float[Array, "k d"], Float[Array, "out k"]]:
    w, v = cast(tuple[Array, Array], model.apply(params))
    return w, v


@checked
def ema_target_learner(
    model: DeepLinear, tx: optax.GradientTransformation, decay: Fraction, init_params: InitParams | None = None
) -> Learner:
    """JEPA whose target encoder is the product of averaged layers: bar W_l <- decay bar W_l + (1 - decay) W_l.

    The average, in ``state.extra``, is taken before the gradient, so that decay = 0 is the stop-gradient.
    """
    base = learner("JEPA", model, tx, init_params)

    def init(key, moments) -> State:
        state = base.init(key, moments)
        return state._replace(extra=jax.tree.map(jnp.array, state.params))

    def update(state: State, moments: Moments):
        target = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.extra, state.params)

        def loss(params):
            w, v = _matrices(model, params)
            return self_distillation(w, v, _matrices(model, target)[0], moments)

        value, grads = jax.value_and_grad(loss)(state.params)
        return base.apply(state, grads)._replace(extra=target), {"loss": mean_over_devices(value)}

    return Learner(init, update)


@checked
def minibatch_sampler(size: Count) -> Callable[[Moments, Any, Any], Moments]:
    """A ``sample(data, key, step)`` for :func:`core.learner.with_sampler`: moments of ``size`` fresh pairs."""
    return lambda moments, key, step: sample_moments(moments, stream(key, Stream.EXAMPLES, step), size)


@checked
def aligned(model: DeepLinear, eps: Positive) -> InitParams:
    """Every matrix eps^(1/L) I: balanced, aligned with any basis; the encoder starts at eps I."""
    return lambda key, moments: {
        "params": jax.tree.map(lambda leaf: eps ** (1 / model.depth) * jnp.eye(*leaf.shape), _shapes(model))
    }


@checked
def orthogonal(model: DeepLinear, eps: Positive, spread: NonNegative = 0.0) -> InitParams:
    """Every matrix eps^(1/L) exp(spread n) times a random orthogonal one, n standard normal per matrix.

    No spread is balanced, V^T V = W_L W_L^T and so on down, but aligned with no basis.
    """

    def draw(key, shape):
        basis_key, scale_key = jax.random.split(key)
        scale = eps ** (1 / model.depth) * jnp.exp(spread * jax.random.normal(scale_key))
        return scale * random_basis(basis_key, model.d)[: shape[0], : shape[1]]

    return _independent(model, draw)


@checked
def gaussian(model: DeepLinear, scale: Positive) -> InitParams:
    """Every entry normal with standard deviation scale / sqrt(d)."""
    return _independent(model, lambda key, shape: scale / model.d**0.5 * jax.random.normal(key, shape))


def _independent(model: DeepLinear, draw: Callable[[Any, tuple[int, ...]], Array]) -> InitParams:
    def init(key, moments):
        leaves, treedef = jax.tree.flatten(_shapes(model))
        keys = jax.random.split(key, len(leaves))
        return {"params": treedef.unflatten([draw(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])}

    return init


def _shapes(model: DeepLinear):
    return jax.eval_shape(model.init, jax.random.key(0))["params"]


@checked
def record(
    learner: LearnerLike, observe: Callable[[Any], Array], steps: Count, every: Count
) -> Callable[[Any, Any], tuple[Any, Array]]:
    """``(state, batch) -> (state, observations)``: runs ``steps`` updates and observes before each ``every``-th.

    Memory does not depend on ``every``.

    Raises:
      ConfigError: where there are fewer steps than ``every``, so that nothing would be observed.
    """
    if steps < every:
        raise ConfigError(f"record: steps is {steps}, fewer than every = {every}: nothing would be observed")

    def run(state, batch):
        def leg(state, _):
            seen = observe(state)
            return jax.lax.fori_loop(0, every, lambda _, s: learner.update(s, batch)[0], state), seen

        return jax.lax.scan(leg, state, None, length=steps // every)

    return run


@checked
def encoder_norms(model: DeepLinear, basis: Float[Array, "d d"] | None = None) -> Callable[[State], Float[Array, " d"]]:
    """|W q_i| for every column q_i of the basis: how strongly each feature is encoded; |w_i| where W is diagonal."""

    def observe(state):
        w, _ = _matrices(model, state.params)
        return jnp.sqrt(jnp.sum(jnp.square(w if basis is None else w @ basis), axis=0))

    return observe


@checked
def norms_over_time(
    learner: LearnerLike,
    model: DeepLinear,
    moments: Moments,
    seeds: Sequence[int],
    looks: Count,
    every: Count,
    basis: Float[Array, "seeds d d"] | None = None,
) -> Float[np.ndarray, "seeds looks d"]:
    """:func:`encoder_norms` of independent runs before every ``every``-th of their steps, as one program.

    Args:
      learner: of the model.
      model: the networks.
      moments: of all runs; where a basis is given, of each run, along a first axis.
      seeds: one per run.
      looks: how often the norms are looked at.
      every: steps between two looks.
      basis: of each run; the coordinates' own if None.
    """

    def single(key, moments, basis):
        return record(learner, encoder_norms(model, basis), looks * every, every)(learner.init(key, moments), moments)[
            1
        ]

    axes = (0, None, None) if basis is None else (0, 0, 0)
    return np.asarray(jax.jit(jax.vmap(single, axes))(seed_keys(seeds), moments, basis))


@checked
def descended_times(
    objective: Objective, depth: Count, features: Features, eps: Positive, p: OpenFraction, until: Positive
) -> Float[np.ndarray, " d"]:
    """Critical times as :func:`latent.jepa_linear.theory.critical_time` has them, by gradient descent instead.

    Aligned features do not interact, so that each is a problem of its own with 1 x 1 matrices; all run at once, in
    single precision, and are looked at 500 times.

    Args:
      objective: "JEPA" or "MAE".
      depth: layers of the encoder.
      features: lambda and rho of each.
      eps: where w starts.
      p: the share of the fixed point at which a feature counts as learned.
      until: for how long; infinite times are of features that are not learned by then.
    """
    lam, rho = (np.asarray(column, float) for column in features)
    dt, looks = min(0.2 / (depth * (lam / rho).max()), until / 500), 500
    model = DeepLinear.of(objective, depth, 1)
    descent = learner(objective, model, optax.sgd(dt), aligned(model, eps))
    every = -(-round(until / dt) // looks)

    def single(lam, rho):
        moments = Features(lam[None], rho[None]).moments()
        state = descent.init(jax.random.key(0), moments)
        return record(descent, encoder_norms(model), every * looks, every)(state, moments)[1][:, 0]

    seen = jax.jit(jax.vmap(single))(*(jnp.asarray(column, jnp.float32) for column in (lam, rho)))
    return learned_at(np.asarray(seen).T, np.arange(looks) * every * dt, fixed_point(objective, depth, rho), p)
