"""Denoisers whose prompts can be steered: extrapolated in their embedding, or read with another model's embedding."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.film import FilmMlp
from latent.unet import UNet, sinusoids


class Prompt(NamedTuple):
    """A condition and, for latent interventions, the one from which its embedding is extrapolated.

    The network uses e(base) + strength (e(cond) - e(base)): strength 1 is the plain condition.
    """

    cond: Float[Array, "b c"]
    base: Float[Array, "b c"]
    strength: Float[Array, " b"]
    turned: Float[Array, "b width"] | None = None
    """Unit directions that take the place of e(cond) - e(base)'s, at its norm: the control of an intervention."""


def plain(cond: Float[Array, "b c"]) -> Prompt:
    """A prompt without an intervention."""
    return Prompt(cond, cond, jnp.ones(cond.shape[0]))


class PromptEmbedding(nn.Module):
    """Two layers (Linear, GELU, Linear), extrapolated as the prompt says."""

    width: int

    @nn.compact
    def __call__(self, prompt: Prompt) -> Float[Array, "b width"]:
        """The embedding."""
        inner, outer = nn.Dense(self.width, name="in"), nn.Dense(self.width, name="out")

        def embed(cond):
            return outer(nn.gelu(inner(cond)))

        base = embed(prompt.base)
        step = embed(prompt.cond) - base
        if prompt.turned is not None:
            step = jnp.linalg.norm(step, axis=-1, keepdims=True) * prompt.turned
        return base + prompt.strength[:, None] * step


class DiscDenoiser(nn.Module):
    """A U-Net with time and prompt added in every block."""

    channels: Sequence[int] = (16, 32)
    blocks: int = 1
    width: int = 64
    dropout: float = 0.0
    middle_attention: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], time: Float[Array, " b"], prompt: Prompt, *, deterministic: bool = True
    ) -> Array:
        """The raw prediction; the time is in [0, 1]. Without ``deterministic`` dropout needs a key "dropout"."""
        emb = nn.Dense(self.width, name="time_in")(sinusoids(1_000.0 * time, 64))
        emb = nn.Dense(self.width, name="time_out")(nn.gelu(emb)) + PromptEmbedding(self.width, name="prompt")(prompt)
        # As many channels per group as in the paper: with one, an image's brightness and colour would be normed away.
        unet = UNet(
            x.shape[-1], self.channels, self.blocks, mode="add", act=nn.gelu, epsilon=1e-6,
            groups=self.channels[0] // 8, dropout=self.dropout, middle_attention=self.middle_attention, name="unet",
        )  # fmt: skip
        return unet(x, emb, deterministic=deterministic)


class PointDenoiser(nn.Module):
    """A perceptron for the world of vectors."""

    width: int = 64
    blocks: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "b 2"], time: Float[Array, " b"], prompt: Prompt) -> Array:
        """The raw prediction; the time is in [0, 1]."""
        emb = PromptEmbedding(self.width, name="prompt")(prompt)
        return FilmMlp(self.width, self.blocks, time_scale=1_000.0, name="net")(x, time, emb)


def patched(params: Any, donor: Any) -> Any:
    """The parameters with the prompt embedding of another model, such as a later checkpoint."""
    return {**params, "params": {**params["params"], "prompt": donor["params"]["prompt"]}}
