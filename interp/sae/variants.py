"""The family: encoder x activation x loss x constraint, each a value; a variant is a choice of them.

x in R^d, target y (y = x for an autoencoder), m latents::

    pre = W_e (x - b_d) + b_e      (transcoders: W_e x + b_e)
    z = phi(pre)
    y_hat = W_d^T z + b_d          (skip-transcoders: + W_skip x)

Loss of a batch: (sum of the variant's errors) / (total of the targets) + mean of its penalties.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from core.checks import FINITE, Count, NonNegative, Positive, checked
from core.errors import ConfigError
from core.kinds import Range
from core.learner import axis_is_bound
from interp.sae import activations
from interp.sae.activations import Activation, Active, Encoded
from interp.sae.codes import (
    LATENT_AXIS,
    Code,
    Params,
    first_latents,
    norm_weighted,
    over_devices,
    require_latents,
    shared_by_latents,
    weighted_sum,
)

Weight = Annotated[float | Float[Array, ""], Range(0)]
"""Of a penalty; an array where one program serves many."""
Factor = Annotated[float | Float[Array, ""], Range(above=0)]
Normalised = tuple[Float[Array, "b d"], Float[Array, "#b #d"], Float[Array, "#b #d"]]
"""``((x - shift) / scale, shift, scale)``."""


class Constraint(NamedTuple):
    """What decoder rows must satisfy after every step."""

    tangent: Callable[[Params, Params], Params]
    """``(params, gradients) -> gradients`` without what the constraint would undo."""
    restore: Callable[[Params], Params]


def _unit(W: Float[Array, "m d"]) -> Float[Array, "m d"]:
    return W / jnp.maximum(jnp.linalg.norm(W, axis=1, keepdims=True), jnp.finfo(W.dtype).tiny)


def _without_parallel(params: Params, grads: Params) -> Params:
    W, g = params["W_d"], grads["W_d"]
    return {**grads, "W_d": g - jnp.sum(g * W, axis=1, keepdims=True) * W}


unit_rows = Constraint(_without_parallel, lambda params: {**params, "W_d": _unit(params["W_d"])})
"""Decoder rows of norm 1; gradients lose their component along the row."""
free = Constraint(lambda params, grads: grads, lambda params: params)
"""No constraint."""


class Forward(NamedTuple):
    """All that a loss may look at."""

    encoded: Encoded
    code: Code
    y: Float[Array, "b e"]
    y_hat: Float[Array, "b e"]


Term = Callable[["Variant", Params, Forward], Float[Array, " b"]]
"""One number per example."""


def plain_error(variant: "Variant", params: Params, forward: Forward) -> Float[Array, " b"]:
    """||y - y_hat||^2."""
    return jnp.sum((forward.y - forward.y_hat) ** 2, axis=-1)


@checked
def as_is(x: Float[Array, "b d"]) -> Normalised:
    """No normalisation."""
    return x, jnp.zeros((1, 1), x.dtype), jnp.ones((1, 1), x.dtype)


@checked
def layer_normalised(x: Float[Array, "b d"]) -> Normalised:
    """Every example to mean 0 and deviation 1 over its d dimensions; reconstructions are scaled back.

    The deviation is the population's, sqrt(sum (x - mean)^2 / d), and 1e-5 is added to it. ``x.std`` of PyTorch, by
    which OpenAI's and SAELens's dictionaries normalise, is the sample's, which divides by d - 1: their inputs are
    smaller by a factor of about sqrt(1 - 1 / d).
    """
    shift = jnp.mean(x, axis=-1, keepdims=True)
    scale = jnp.std(x, axis=-1, keepdims=True) + 1e-5
    return (x - shift) / scale, shift, scale


@checked
def scaled_by(factor: Factor) -> Callable[[Float[Array, "b d"]], Normalised]:
    """All examples times a number, such as sqrt(d) over their mean norm."""
    return lambda x: (x * factor, jnp.zeros((1, 1), x.dtype), jnp.full((1, 1), 1.0 / jnp.asarray(factor), x.dtype))


class Variant(NamedTuple):
    """One member of the family."""

    activation: Activation
    errors: tuple[Term, ...] = (plain_error,)
    """Squared errors, divided by the total of the targets."""
    penalties: tuple[Term, ...] = ()
    """Added as they are."""
    constraint: Constraint = unit_rows
    normalise: Callable[[Float[Array, "b d"]], Normalised] = as_is
    """Of inputs and targets alike."""
    centred: bool = True
    """Whether the encoder sees x - b_d; transcoders see x."""
    skip: bool = False
    """Whether a matrix leads past the latents."""


@checked
def relu_l1(l1: Weight) -> Variant:
    """ReLU with l1 sum_j z_j ||W_d[j]||: decoder norms stand in the penalty, rows are free (Bricken et al. 2023)."""

    def penalty(variant, params: Params, forward: Forward):
        return l1 * norm_weighted(forward.code, jnp.linalg.norm(params["W_d"], axis=1))

    return Variant(activations.relu(), penalties=(penalty,), constraint=free)


@checked
def topk(k: Active, k_max: Count | None = None) -> Variant:
    """The k largest latents; see :func:`interp.sae.activations.topk`."""
    return Variant(activations.topk(k, k_max))


@checked
def batch_topk(k: Active) -> Variant:
    """The B k largest latents of a batch; see :func:`interp.sae.activations.batch_topk`."""
    return Variant(activations.batch_topk(k))


@checked
def groupmax(k: Count) -> Variant:
    """The largest latent of each of k groups."""
    return Variant(activations.groupmax(k))


@checked
def jumprelu(sparsity: Weight, theta: Positive = 1e-3, bandwidth: Positive = 1e-3) -> Variant:
    """Learned thresholds with the penalty sparsity * L0, whose pseudo-derivative reaches the thresholds alone."""

    def penalty(variant, params: Params, forward: Forward):
        active = activations.step(forward.encoded.pre, jnp.exp(params["log_theta"]), bandwidth)
        return sparsity * norm_weighted(active, jnp.ones(active.shape[-1], active.dtype))

    return Variant(activations.jumprelu(theta, bandwidth), penalties=(penalty,))


@checked
def gated(l1: Weight) -> Variant:
    """Gates and magnitudes; L1 on relu(gate), which must reconstruct too through a frozen decoder (2404.16014)."""

    def gate_error(variant: Variant, params: Params, forward: Forward):
        frozen = jax.lax.stop_gradient(params)
        through_gates = decoded(variant, frozen, jax.nn.relu(forward.encoded.pre), forward.encoded.x)
        return jnp.sum((forward.y - through_gates) ** 2, axis=-1)

    def penalty(variant, params: Params, forward: Forward):
        gates = jax.nn.relu(forward.encoded.pre)
        return l1 * norm_weighted(gates, jnp.ones(gates.shape[-1], gates.dtype))

    return Variant(activations.gated(), (plain_error, gate_error), (penalty,))


@checked
def matryoshka(variant: Variant, prefixes: Sequence[Count]) -> Variant:
    """The mean of the errors of nested prefixes m_1 < m_2 < ... of the latents (Bussmann et al. 2025, 2503.17547).

    Raises:
      ConfigError: where prefixes do not ascend, and in use where one is longer than there are latents.
    """
    if not len(prefixes) or any(a >= b for a, b in itertools.pairwise(prefixes)):
        raise ConfigError(f"matryoshka: prefixes must ascend, such as (64, 256), not {tuple(prefixes)}")

    def nested_error(variant: Variant, params: Params, forward: Forward):
        holders = jax.lax.axis_size(LATENT_AXIS) if axis_is_bound(LATENT_AXIS) else 1
        latents = params["W_d"].shape[0] * holders
        if prefixes[-1] > latents:
            raise ConfigError(
                f"matryoshka: a prefix of {prefixes[-1]} latents of {latents}; the last may be all of them"
            )

        def error(count: int):
            part = first_latents(forward.code, count, params["W_d"].shape[0])
            return jnp.sum((forward.y - decoded(variant, params, part, forward.encoded.x)) ** 2, axis=-1)

        return sum(error(count) for count in prefixes) / len(prefixes)

    others = tuple(term for term in variant.errors if term is not plain_error)
    return variant._replace(errors=(nested_error, *others))


@checked
def multi_topk(k: Count, factor: Count = 4, weight: NonNegative = 1 / 8) -> Variant:
    """TopK whose error with ``factor`` times as many latents counts too, so that it holds for larger k (2406.04093)."""
    wide = activations.topk(factor * k)

    def wide_error(variant: Variant, params: Params, forward: Forward):
        code = wide.apply(params, forward.encoded)
        return weight * jnp.sum((forward.y - decoded(variant, params, code, forward.encoded.x)) ** 2, axis=-1)

    return Variant(activations.topk(k), (plain_error, wide_error))


@checked
def transcoder(variant: Variant) -> Variant:
    """The same for targets other than the input: no shift of the input, decoder rows start at 0 and are free."""
    return variant._replace(centred=False, constraint=free)


@checked
def skip_transcoder(variant: Variant) -> Variant:
    """A transcoder with an affine path past the latents (Paulo et al. 2025, 2501.18823)."""
    return transcoder(variant)._replace(skip=True)


def encoded_by(variant: Variant, params: Params, x: Float[Array, "b d"]) -> Encoded:
    """Pre-activations of normalised inputs."""
    x = shared_by_latents(x)
    shift = shared_by_latents(params["b_d"]) if variant.centred else jnp.zeros(x.shape[-1], x.dtype)
    pre = (x - shift) @ params["W_e"].T + params["b_e"]
    return Encoded(x, shift, pre)


def decoded(variant: Variant, params: Params, code: Code, x: Float[Array, "b d"]) -> Float[Array, "b e"]:
    """Normalised outputs; ``x`` serves the skip path."""
    out = weighted_sum(code, params["W_d"]) + params["b_d"]
    return out + x @ params["W_skip"].T if variant.skip else out


Examples = Annotated[Float[Array, "b d"], FINITE]
"""One example per row."""


def require_width(name: str, x: Float[Array, "b d"], width: int) -> None:
    """Refuses examples of another width than a dictionary's.

    Raises:
      ConfigError: names both.
    """
    if x.shape[-1] != width:
        raise ConfigError(f"{name} has {x.shape[-1]} dimensions, the dictionary {width}")


@checked
def encode(variant: Variant, params: Params, x: Examples) -> Code:
    """The code of every example: :class:`Sparse` for selections, else one number per latent (see :func:`dense`).

    Raises:
      ConfigError: for examples of another width than the dictionary's, and for NaN and infinities on the host.
    """
    require_width("encode: x", x, params["W_e"].shape[1])
    x, _, _ = variant.normalise(x)
    return variant.activation.apply(params, encoded_by(variant, params, x))


@checked
def decode(variant: Variant, params: Params, code: Code, x: Examples | None = None) -> Float[Array, "b e"]:
    """Outputs for codes.

    Args:
      variant: a member of the family.
      params: its parameters.
      code: as :func:`encode` gives it.
      x: the inputs, which a skip path and a normalisation by example need; zeros if None.

    Raises:
      ConfigError: for a code of another dictionary and for inputs of another shape. Indices that are being traced are
        not known; where one names no latent, outputs are NaN.
    """
    require_latents("decode", code, params["W_d"].shape[0])
    rows = jax.tree.leaves(code)[0].shape[0]
    if x is not None:
        require_width("decode: x", x, params["W_e"].shape[1])
        if x.shape[0] != rows:
            raise ConfigError(f"decode: {x.shape[0]} inputs for {rows} codes")
    if x is None:
        x = jnp.zeros((rows, params["W_e"].shape[1]), params["W_e"].dtype)
        return decoded(variant, params, code, x)
    x, shift, scale = variant.normalise(x)
    return decoded(variant, params, code, x) * scale + shift


@checked
def reconstruct(variant: Variant, params: Params, x: Examples) -> Float[Array, "b e"]:
    """decode(encode(x))."""
    return decode(variant, params, encode(variant, params, x), x)


@checked
def forward(variant: Variant, params: Params, x: Float[Array, "b d"], y: Float[Array, "b e"]) -> Forward:
    """One pass in training, in normalised units."""
    (x, _, _), (y, _, _) = variant.normalise(x), variant.normalise(y)
    encoded = encoded_by(variant, params, x)
    code = variant.activation.train(params, encoded)
    return Forward(encoded, code, y, decoded(variant, params, code, x))


@checked
def total_variance(y: Float[Array, "b e"]) -> Float[Array, ""]:
    """Sum ||y - mean y||^2 over the whole batch: with it a loss is the fraction of variance unexplained (FVU)."""
    mean = over_devices(jax.lax.pmean, jnp.mean(y, axis=0), "data")
    return over_devices(jax.lax.psum, jnp.sum((y - mean) ** 2), "data")


@checked
def second_moment(y: Float[Array, "b e"]) -> Float[Array, ""]:
    """Sum ||y||^2: with it a loss is the normalised mean squared error (NMSE)."""
    return over_devices(jax.lax.psum, jnp.sum(y**2), "data")


@checked
def examples(y: Float[Array, "b e"]) -> Float[Array, ""]:
    """The number of examples: with it a loss is the mean over examples of ||y - y_hat||^2."""
    return over_devices(jax.lax.psum, jnp.asarray(y.shape[0], y.dtype), "data")
