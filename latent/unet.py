"""A U-Net over images [batch, height, width, channels], conditioned by a vector.

With its defaults it is the network of improved-diffusion (Nichol, Dhariwal 2021): residual blocks with GroupNorm and
SiLU, a skip connection per block, self-attention at chosen levels, the condition as scale and shift.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from core.checks import Count, Fraction, Positive, checked
from core.conv import Conv
from core.learner import example_keys


def sinusoids(time: Float[Array, " b"], width: int, longest: float = 10_000.0) -> Float[Array, "b width"]:
    """Cos and sin of the time at ``width / 2`` frequencies from 1 to 1 / longest."""
    rates = jnp.exp(-jnp.log(longest) * jnp.arange(width // 2) / (width // 2))
    angles = time[:, None] * rates
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


@checked
class ExampleDropout(nn.Module):
    """Dropout with a key per example, so that no layout over devices changes which entries are dropped.

    The key "dropout" is that of the step, the same on every replica, see :func:`core.learner.step_key`.
    """

    rate: Fraction

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, deterministic: bool) -> Float[Array, "b ..."]:
        """Each entry is zero with probability ``rate``, else divided by ``1 - rate``; ``x`` if deterministic."""
        if deterministic or not self.rate:
            return x
        keys = example_keys(self.make_rng("dropout"), len(x))
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(kept, x / (1 - self.rate), 0)


@checked
class ResidualBlock(nn.Module):
    """norm - act - conv - (condition) - norm - act - dropout - conv, beside a skip.

    With ``mode`` "scale_shift" the condition scales and shifts the second norm; with "add" it is added before it.
    """

    features: Count
    mode: Literal["scale_shift", "add"]
    act: Callable[[Array], Array]
    groups: Count
    epsilon: Positive
    dropout: Fraction
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, emb: Array, deterministic: bool = True) -> Array:
        """The image with ``features`` channels."""
        h = Conv(self.features, dtype=self.dtype, name="conv_in")(self.act(self._norm("norm_in")(x)))
        wide = self.features * (2 if self.mode == "scale_shift" else 1)
        emb = nn.Dense(wide, dtype=self.dtype, name="condition")(self.act(emb))[:, None, None, :]
        if self.mode == "add":
            h = self._norm("norm_out")(h + emb)
        else:
            scale, shift = jnp.split(emb, 2, axis=-1)
            h = self._norm("norm_out")(h) * (1 + scale) + shift
        h = ExampleDropout(self.dropout)(self.act(h), deterministic=deterministic)
        h = Conv(self.features, zero=True, dtype=self.dtype, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, kernel=1, dtype=self.dtype, name="skip")(x)
        return x + h

    def _norm(self, name: str) -> nn.GroupNorm:
        return nn.GroupNorm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name=name)


@checked
class Attention(nn.Module):
    """Residual self-attention over all positions, its output projection zero at first."""

    heads: Count
    groups: Count
    epsilon: Positive
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The image, every position informed of all others."""
        b, height, width, c = x.shape
        h = nn.GroupNorm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)
        qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(h.reshape(b, height * width, c))
        query, key, value = (part.reshape(b, -1, self.heads, c // self.heads) for part in jnp.split(qkv, 3, axis=-1))
        h = jax.nn.dot_product_attention(query, key, value).reshape(b, -1, c)
        h = nn.Dense(c, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(h)
        return x + h.reshape(x.shape)


@checked
class UNet(nn.Module):
    """The network ``(x, emb) -> image``; embed time and conditions with :class:`TimeEmbedding` or one's own module.

    Raises:
      ValueError: where the image cannot be halved often enough.
    """

    out_channels: Count
    channels: Sequence[Count] = (128, 256, 256)
    """Width of every level."""
    blocks: Count = 3
    """Residual blocks per level on the way down; one more on the way up."""
    attention: Sequence[int] = ()
    """Levels (0 is full resolution) with self-attention after every block; the middle always has it."""
    heads: Count = 4
    mode: Literal["scale_shift", "add"] = "scale_shift"
    middle_attention: bool = True
    act: Callable[[Array], Array] = nn.silu
    groups: Count = 32
    epsilon: Positive = 1e-5
    dropout: Fraction = 0.0
    remat: bool = False
    """Recompute blocks in the backward pass instead of storing them."""
    dtype: Any = None
    """Type of the computation, such as bfloat16; parameters and output stay in float32."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], emb: Float[Array, "b e"], *, deterministic: bool = True
    ) -> Float[Array, "b h w out"]:
        """The raw prediction."""
        halvings = len(self.channels) - 1
        if any(side % 2**halvings for side in x.shape[1:3]):
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} cannot be halved {halvings} times: pad them to a multiple of "
                f"{2**halvings}, or use fewer levels"
            )
        norm = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype}
        block = nn.remat(ResidualBlock, static_argnums=(3,)) if self.remat else ResidualBlock

        def residual(x, features, name):
            module = block(features, mode=self.mode, act=self.act, dropout=self.dropout, name=name, **norm)
            return module(x, emb, deterministic)

        def attend(x, name):
            return Attention(self.heads, name=name, **norm)(x)

        h = Conv(self.channels[0], dtype=self.dtype, name="conv_in")(x)
        skips = [h]
        for level, width in enumerate(self.channels):
            for i in range(self.blocks):
                h = residual(h, width, f"down_{level}_{i}")
                if level in self.attention:
                    h = attend(h, f"down_{level}_{i}_attention")
                skips.append(h)
            if level < halvings:
                h = Conv(width, stride=2, dtype=self.dtype, name=f"halve_{level}")(h)
                skips.append(h)
        h = residual(h, self.channels[-1], "middle_0")
        if self.middle_attention:
            h = attend(h, "middle_attention")
        h = residual(h, self.channels[-1], "middle_1")
        for level, width in reversed(list(enumerate(self.channels))):
            for i in range(self.blocks + 1):
                h = residual(jnp.concatenate([h, skips.pop()], axis=-1), width, f"up_{level}_{i}")
                if level in self.attention:
                    h = attend(h, f"up_{level}_{i}_attention")
            if level:
                h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
                h = Conv(width, dtype=self.dtype, name=f"double_{level}")(h)
        h = self.act(nn.GroupNorm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name="norm_out")(h))
        return Conv(self.out_channels, zero=True, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)


@checked
class TimeEmbedding(nn.Module):
    """Sinusoids of the time through two layers, plus a linear map of each condition."""

    width: Count = 512
    frequencies: Count = 128
    act: Callable[[Array], Array] = nn.silu
    dtype: Any = None

    @nn.compact
    def __call__(self, time: Float[Array, " b"], *conditions: Float[Array, "b d"] | None) -> Float[Array, "b width"]:
        """The sum; conditions that are None are left out."""
        dense = {"features": self.width, "dtype": self.dtype}
        h = nn.Dense(**dense, name="in")(sinusoids(time, self.frequencies))
        emb = nn.Dense(**dense, name="out")(self.act(h))
        for i, condition in enumerate(conditions):
            if condition is not None:
                emb += nn.Dense(**dense, name=f"condition_{i}")(condition)
        return emb


def parameter_count(params: Any) -> int:
    """Numbers in a tree of parameters, or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
