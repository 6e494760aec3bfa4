"""Where training starts: tied directions, a robust centre."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from core.checks import Count, Positive, checked
from interp.sae.codes import Params
from interp.sae.variants import Variant, reconstruct

Centre = Callable[[Float[Array, "n d"]], Float[Array, " d"]]


@checked
def initial_params(
    variant: Variant, latents: Count, key: Any, x: Float[Array, "n d"], y: Float[Array, "n e"], centre: Centre
) -> Params:
    """Encoder rows uniform in +-1/sqrt(d); decoder rows the same directions at norm 1 (0 in a transcoder).

    Args:
      variant: a member of the family.
      latents: their number m.
      key: of the encoder's rows.
      x: a sample of inputs.
      y: the targets of the sample, whose centre becomes b_d.
      centre: such as :func:`geometric_median` or :func:`mean`.
    """
    (x, _, _), (y, _, _) = variant.normalise(x), variant.normalise(y)
    d, e = x.shape[-1], y.shape[-1]
    W_e = jax.random.uniform(key, (latents, d), x.dtype, -(d**-0.5), d**-0.5)
    tied = W_e / jnp.linalg.norm(W_e, axis=1, keepdims=True)
    params = {
        "W_e": W_e,
        "b_e": jnp.zeros(latents, x.dtype),
        "W_d": tied if variant.centred else jnp.zeros((latents, e), x.dtype),
        "b_d": centre(y).astype(x.dtype),
    }
    if variant.skip:
        params["W_skip"] = jnp.zeros((e, d), x.dtype)
    leaves = {name: leaf.astype(x.dtype) for name, leaf in variant.activation.leaves(latents).items()}
    return params | leaves


@checked
def mean(y: Float[Array, "n d"]) -> Float[Array, " d"]:
    """The mean of a sample."""
    return jnp.mean(y, axis=0)


@checked
def zero(y: Float[Array, "n d"]) -> Float[Array, " d"]:
    """The origin."""
    return jnp.zeros(y.shape[-1], y.dtype)


@checked
def geometric_median(y: Float[Array, "n d"], iterations: Count = 200, tolerance: Positive = 1e-7) -> Float[Array, " d"]:
    """The point of least mean distance, by Weiszfeld's iteration from the mean: c = sum_i w_i y_i, w_i ~ 1/||y_i - c||.

    Distances below 1e-6 of their mean are raised to it, so that a point of the sample can be approached.
    """

    def distances(c):
        r = jnp.linalg.norm(y - c, axis=1)
        return jnp.maximum(r, 1e-6 * jnp.mean(r) + jnp.finfo(y.dtype).tiny)

    def moving(carry):
        i, c, shift = carry
        return (i < iterations) & (shift > tolerance * (1.0 + jnp.linalg.norm(c)))

    def closer(carry):
        i, c, _ = carry
        w = 1.0 / distances(c)
        new = w @ y / jnp.sum(w)
        return i + 1, new, jnp.linalg.norm(new - c)

    return jax.lax.while_loop(moving, closer, (0, mean(y), jnp.asarray(jnp.inf, y.dtype)))[1]


@checked
def scale_encoder(variant: Variant, params: Params, x: Float[Array, "n d"]) -> Params:
    """The encoder scaled so that reconstructions have the norm of what they reconstruct, on average over a sample.

    Of reconstructions and inputs less b_d; exact for biases of 0 and selections, which scale with the encoder.
    """
    out = reconstruct(variant, params, x) - params["b_d"]
    scale = jnp.linalg.norm(x - params["b_d"], axis=1).mean() / jnp.linalg.norm(out, axis=1).mean()
    return {**params, "W_e": params["W_e"] * scale}
