"""A conditioned perceptron for denoising vectors and small images."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from core.checks import Count, Positive, checked
from latent.unet import sinusoids


@checked
class FilmMlp(nn.Module):
    """Residual blocks whose hidden layer is scaled and shifted by time and condition (FiLM, Perez et al. 2018).

    The output layer is zero at first.
    """

    width: Count = 128
    blocks: Count = 2
    frequencies: Count = 32
    time_scale: Positive = 1.0
    """Multiplies the time before the sinusoids, which resolve differences of about 1 / time_scale."""
    act: Callable[[Array], Array] = nn.silu

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ..."], time: Float[Array, " b"], cond: Float[Array, "b c"] | None = None
    ) -> Float[Array, "b ..."]:
        """The raw prediction, shaped like ``x``."""
        flat = x.reshape(x.shape[0], -1)
        emb = nn.Dense(self.width, name="time_in")(sinusoids(self.time_scale * time, self.frequencies))
        emb = nn.Dense(self.width, name="time_out")(self.act(emb))
        if cond is not None:
            emb += nn.Dense(self.width, name="condition")(cond)
        emb = self.act(emb)
        h = nn.Dense(self.width, name="in")(flat)
        for i in range(self.blocks):
            scale, shift = jnp.split(nn.Dense(2 * self.width, name=f"film_{i}")(emb), 2, axis=-1)
            inner = nn.LayerNorm(use_scale=False, use_bias=False, name=f"norm_{i}")(h) * (1 + scale) + shift
            inner = nn.Dense(self.width, name=f"inner_{i}")(self.act(inner))
            h += nn.Dense(self.width, name=f"outer_{i}")(self.act(inner))
        out = nn.Dense(flat.shape[1], kernel_init=nn.initializers.zeros, name="out")(self.act(h))
        return out.reshape(x.shape)
