"""Bayesian dense and convolutional layers: a mean-field normal over every kernel, drawn by one of three estimators.

* ``reparam``: one kernel for the whole batch, mean + sd e.
* ``flipout``: x W + ((x r) (sd e)) s with signs r, s of every example (Wen et al., ICLR 2018): the same law for each
  example, independent between examples.
* ``local``: the output itself is drawn, N(x W, x^2 sd^2) (Kingma et al., NeurIPS 2015). Outputs of a convolution share
  their kernel, so that there it is flipout.
* ``point``: the mean, without noise.

Draws come from the stream ``weights``; noise of examples does not depend on how they lie on devices.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from core.checks import Count, Natural, checked
from core.learner import example_keys
from core.patches import patches

Estimator = Literal["reparam", "flipout", "local", "point"]
START = -9.0
"""softplus^-1 of the first posterior sd, about 1.2e-4: training starts almost deterministic."""


class Normal(NamedTuple):
    """Independent normals."""

    mean: Any
    sd: Any


def start_rho(key: Any, shape: Sequence[int], around: float = START) -> Array:
    """softplus^-1 of the first posterior sds."""
    return around + 1e-3 * jax.random.normal(key, shape)


def posteriors(params: PyTree) -> dict[tuple[str, ...], Normal]:
    """Every variational factor by its path: whatever has a ``mean`` and a ``rho``, sd = softplus(rho)."""
    flat: dict[Any, Any] = flax.traverse_util.flatten_dict(params)
    return {
        path[:-1]: Normal(flat[(*path[:-1], "mean")], jax.nn.softplus(leaf))
        for path, leaf in flat.items()
        if path[-1] == "rho"
    }


def normal_kl(q: Normal, p: Normal) -> Float[Array, "..."]:
    """KL(q || p) = log(s_p/s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2, element by element."""
    return jnp.log(p.sd / q.sd) + (q.sd**2 + (q.mean - p.mean) ** 2) / (2 * p.sd**2) - 0.5


def total_kl(params: PyTree, prior: dict[tuple[str, ...], Normal]) -> Float[Array, ""]:
    """Of all factors that have a prior."""
    found = posteriors(params)
    return sum((normal_kl(found[path], p).sum() for path, p in prior.items()), jnp.float32(0.0))


@checked
class BayesDense(nn.Module):
    """A variational kernel [inputs, outputs] and the products with it; the bias is a point estimate."""

    features: Count
    estimator: Estimator = "reparam"

    @nn.compact
    def __call__(self, x: Float[Array, "batch ... inputs"], signs: int | None = None) -> Float[Array, "batch ... out"]:
        """Products over the last axis.

        Args:
          x: the inputs; further axes between share the kernel.
          signs: of how many inputs flipout's signs repeat, those of a patch's channels; all differ if None.
        """
        inputs = x.shape[-1]
        mean = self.param("mean", nn.initializers.lecun_normal(), (inputs, self.features))
        rho = self.param("rho", start_rho, (inputs, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = self._products(x, mean, jax.nn.softplus(rho), signs or inputs)
        return y + bias

    def _products(self, x, mean, sd, signs: int):
        if self.estimator == "point" or not self.has_rng("weights"):
            return x @ mean
        key = self.make_rng("weights")
        if self.estimator == "reparam":
            return x @ (mean + sd * jax.random.normal(key, sd.shape))
        if self.estimator == "local" and x.ndim == 2:
            noise = self._of_examples(key, x, jax.random.normal, self.features)
            return x @ mean + jnp.sqrt(jnp.square(x) @ jnp.square(sd) + 1e-12) * noise
        kernel_key, in_key, out_key = jax.random.split(key, 3)
        r = self._of_examples(in_key, x, jax.random.rademacher, signs)
        s = self._of_examples(out_key, x, jax.random.rademacher, self.features)
        r = jnp.tile(r, x.shape[-1] // signs)
        return x @ mean + ((x * r) @ (sd * jax.random.normal(kernel_key, sd.shape))) * s

    @staticmethod
    def _of_examples(key, x, draw, width: int):
        drawn = jax.vmap(lambda k: draw(k, (width,), x.dtype))(example_keys(key, x.shape[0]))
        return drawn.reshape(x.shape[0], *[1] * (x.ndim - 2), width)


@checked
class BayesConv(nn.Module):
    """A "valid" convolution, of images or, as one matrix product, of their patches.

    On accelerators pass images [batch, h, w, channels]; on the CPU patches [batch, rows, columns,
    size * size * channels] made once by :func:`core.patches.patches`, with which a step takes about half as long as
    with a convolution. The parameters are those of the convolution.
    """

    features: Count
    size: Count
    stride: Count = 1
    estimator: Estimator = "reparam"
    channels: Natural = 3

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch rows columns out"]:
        """Images or patches to feature maps."""
        if x.shape[-1] != self.size**2 * self.channels:
            x = patches(x, self.size, self.stride)
        return BayesDense(self.features, self.estimator, name="kernel")(x, self.channels)
