"""Networks of potential outcomes over any Flax trunk, and the two losses that all meta-learners are made of.

A trunk is a function that returns a module from inputs to features [batch, width]: ``functools.partial(Mlp, (100,))``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from core.checks import Count, Positive, checked
from core.learner import GradientLearner, Params, gradient_learner, mean_over_devices

Trunk = Callable[[], nn.Module]


@checked
class Mlp(nn.Module):
    """Dense layers with elu."""

    widths: Sequence[Count] = (100, 100)

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch width"]:
        """Features of each example."""
        for width in self.widths:
            x = nn.elu(nn.Dense(width)(x))
        return x


@checked
class Standardise(nn.Module):
    """Features less their mean, by their deviation; over the batch, or over a population once that was passed through.

    The moments are kept only where the collection ``population`` is mutable and used where it is given, so that
    training carries no running averages; see :func:`with_population`.
    """

    epsilon: Positive = 0.01

    @nn.compact
    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        """The same shape."""
        axes = tuple(range(x.ndim - 1))
        if self.has_variable("population", "mean") and not self.is_mutable_collection("population"):
            mean, variance = self.get_variable("population", "mean"), self.get_variable("population", "variance")
        else:
            mean = mean_over_devices(x.mean(axes))
            variance = mean_over_devices(jnp.square(x - mean).mean(axes))
            if self.is_mutable_collection("population"):
                self.put_variable("population", "mean", mean)
                self.put_variable("population", "variance", variance)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return (x - mean) * jax.lax.rsqrt(variance + self.epsilon) * scale + bias


def initialised(module: nn.Module, key: Any, *inputs: Any, **more: Any) -> Params:
    """A module's parameters alone."""
    return {"params": module.init({"params": key, "weights": key}, *inputs, **more)["params"]}


def with_population(module: nn.Module, params: Params, *inputs: Any, **more: Any) -> Params:
    """Variables of a module whose :class:`Standardise` layers use the moments of these inputs."""
    kept: Any = module.apply(params, *inputs, mutable=["population"], **more)
    return {**params, **kept[1]}


class TNet(nn.Module):
    """A network for each arm."""

    trunk: Trunk

    @nn.compact
    def __call__(self, x: Any) -> Float[Array, "batch 2"]:
        """Outcomes without and with treatment."""
        return jnp.concatenate([nn.Dense(1)(self.trunk()(x)) for _ in range(2)], axis=1)


class TarNet(nn.Module):
    """One trunk and a head for each arm (Shalit, Johansson, Sontag, ICML 2017)."""

    trunk: Trunk
    head: Trunk | None = None
    """What comes between trunk and output, one for each arm; nothing if None."""

    @nn.compact
    def __call__(self, x: Any) -> Float[Array, "batch 2"]:
        """Outcomes without and with treatment."""
        features = self.trunk()(x)
        if self.head is None:
            return nn.Dense(2)(features)
        return jnp.concatenate([nn.Dense(1)(self.head()(features)) for _ in range(2)], axis=1)


@checked
class SingleNet(nn.Module):
    """One network that takes the treatment as one more feature, before a hidden layer."""

    trunk: Trunk
    hidden: Count = 32

    @nn.compact
    def __call__(self, x: Any) -> Float[Array, "batch 2"]:
        """Outcomes without and with treatment."""
        features, hidden, out = self.trunk()(x), nn.Dense(self.hidden), nn.Dense(1)
        arms = [jnp.concatenate([features, jnp.full((len(features), 1), t)], axis=1) for t in (0.0, 1.0)]
        return jnp.concatenate([out(nn.elu(hidden(arm))) for arm in arms], axis=1)


class Scalar(nn.Module):
    """One output."""

    trunk: Trunk

    @nn.compact
    def __call__(self, x: Any) -> Float[Array, " batch"]:
        """The regression function."""
        return nn.Dense(1)(self.trunk()(x))[:, 0]


class Units(NamedTuple):
    """Inputs and their units: treatment, outcome and weight are [batch, units], or [batch] for one unit per input.

    Inputs with fewer units than others are padded by units of weight zero.
    """

    x: Any
    t: Any
    y: Any
    weight: Any


UNIT_AXES = Units(0, 0, 0, 0)


class Target(NamedTuple):
    """Inputs and what is to be regressed on them."""

    x: Any
    value: Any
    weight: Any


def per_input(weighted: Float[Array, " *units"]) -> Float[Array, ""]:
    """The sum over units, averaged over inputs."""
    return weighted.sum() / weighted.shape[0]


def outcome_learner(module: nn.Module, tx: optax.GradientTransformation) -> GradientLearner:
    """Fits both potential outcomes [batch, 2] to those seen: mean of w (y - m_t(x))^2. The batch is :class:`Units`."""

    def loss(params, key, batch: Units):
        m: Any = module.apply(params, batch.x)
        m0, m1 = (m[:, arm].reshape(-1, *[1] * (batch.y.ndim - 1)) for arm in (0, 1))
        return per_input(batch.weight * jnp.square(batch.y - m0 - batch.t * (m1 - m0))), {}

    return gradient_learner(lambda key, batch: initialised(module, key, batch.x), loss, tx, batch_axes=UNIT_AXES)


def regression_learner(module: nn.Module, tx: optax.GradientTransformation) -> GradientLearner:
    """Fits an output [batch] to a target: mean of w (value - f(x))^2. The batch is a :class:`Target`."""

    def loss(params, key, batch: Target):
        f: Any = module.apply(params, batch.x)
        return per_input(batch.weight * jnp.square(batch.value - f.reshape(-1, *[1] * (batch.value.ndim - 1)))), {}

    return gradient_learner(lambda key, batch: initialised(module, key, batch.x), loss, tx, batch_axes=0)
