r"""A decoder-only transformer: GPT-2, GPT-NeoX, Llama, Mistral, Qwen2 and Qwen3 by configuration.

  h = E[tokens] (+ P[positions]);  per layer  h += A(norm h), h += M(norm h);  logits = head(norm h)

Layers are stacked along a leading axis and scanned: one is compiled, however many there are. Tokens are [..., S], with
or without batch axes.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from core.checks import Count, checked
from core.errors import ConfigError
from core.kinds import is_traced
from core.lm.config import DecoderConfig, RopeScaling


class Decoder(nn.Module):
    """Logits of the next token."""

    config: DecoderConfig

    def setup(self):  # noqa: D102
        c = self.config
        self.embed = nn.Embed(c.vocab_size, c.width, dtype=c.dtype, embedding_init=nn.initializers.normal(0.02))
        if c.positions == "learned":
            self.positions = nn.Embed(c.max_length, c.width, dtype=c.dtype, embedding_init=nn.initializers.normal(0.02))
        layer = nn.remat(Layer, prevent_cse=False) if c.remat else Layer
        stack = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # type: ignore[arg-type]
            length=c.layers,
        )
        self.layers = stack(c)
        self.norm = _norm(c)
        if not c.tied:
            self.head = nn.Dense(c.vocab_size, use_bias=False, dtype=jnp.float32)

    def __call__(
        self,
        tokens: Int[Array, "*batch s"],
        mask: Bool[Array, "*batch s"] | None = None,
        positions: Int[Array, "*batch s"] | None = None,
    ) -> Float[Array, "*batch s vocab"]:
        """Logits after every token.

        Args:
          tokens: ids.
          mask: which tokens are real; padding may stand on either side. All are without it.
          positions: of the tokens; counted from the first real one without them.

        Raises:
          ConfigError: where there are more tokens than learned positions, or a position beyond them is given.
        """
        return self.logits(self.hidden(tokens, mask, positions))

    def hidden(self, tokens, mask=None, positions=None) -> Float[Array, "*batch s width"]:
        """Normed states of the last layer."""
        c = self.config
        real = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask, bool)
        if c.positions == "learned":
            _check_positions(c, tokens, real, positions)
        if positions is None:
            positions = jnp.maximum(jnp.cumsum(real, axis=-1) - 1, 0)
        h = self.embed(tokens)
        if c.positions == "learned":
            h = h + self.positions(positions)
        h, _ = self.layers(h, visible(real, c.window), layer_angles(c, positions))
        return self.norm(h)

    def logits(self, hidden: Float[Array, "*batch s width"]) -> Float[Array, "*batch s vocab"]:
        """The head, in float32."""
        hidden = hidden.astype(jnp.float32)
        return hidden @ self.embed.embedding.astype(jnp.float32).T if self.config.tied else self.head(hidden)


def _check_positions(c: DecoderConfig, tokens: Array, real: Array, positions: Array | None) -> None:
    """Refuses positions that the table does not have.

    Where their values are not known, in compiled code, there may be no more tokens than positions, whatever the mask.
    """
    if positions is None:
        last = tokens.shape[-1] if is_traced(real) else int(jnp.max(jnp.sum(real, axis=-1), initial=0))
    else:
        last = 0 if is_traced(positions) else 1 + int(jnp.max(positions, initial=-1))
    if last > c.max_length:
        raise ConfigError(f"{last} tokens, but the model has {c.max_length} positions (max_length)")


class Layer(nn.Module):
    """Attention and MLP around a residual stream; the shape of a scan's body."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, h, seen, angles):  # noqa: D102
        c = self.config
        attended = Attention(c, name="attention")(_norm(c, "attention_norm")(h), seen, angles)
        if c.parallel:
            return h + attended + Mlp(c, name="mlp")(_norm(c, "mlp_norm")(h)), None
        h = h + attended
        return h + Mlp(c, name="mlp")(_norm(c, "mlp_norm")(h)), None


class Attention(nn.Module):
    """Causal attention, with several query heads per key head where the config says so."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x, seen: Bool[Array, "*batch query key"], angles):  # noqa: D102
        c, d = self.config, self.config.head_width

        def heads(name: str, count: int):
            mapped = nn.Dense(count * d, use_bias=c.attention_bias != "none", dtype=c.dtype, name=name)(x)
            return mapped.reshape(*x.shape[:-1], count, d)

        q, k, v = heads("query", c.heads), heads("key", c.kv), heads("value", c.kv)
        if c.qk_norm:
            q, k = _norm(c, "query_norm")(q), _norm(c, "key_norm")(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        q = q.reshape(*q.shape[:-2], c.kv, c.heads // c.kv, d)
        weights = jnp.einsum("...skgd,...tkd->...kgst", q, k, preferred_element_type=jnp.float32) * d**-0.5
        weights = jnp.where(seen[..., None, None, :, :], weights, jnp.finfo(jnp.float32).min)
        mixed = jnp.einsum("...kgst,...tkd->...skgd", jax.nn.softmax(weights).astype(v.dtype), v)
        mixed = mixed.reshape(*x.shape[:-1], c.heads * d)
        return nn.Dense(c.width, use_bias=c.attention_bias == "all", dtype=c.dtype, name="output")(mixed)


class Mlp(nn.Module):
    """down(gelu(up x)), or down(silu(gate x) * up x)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x):  # noqa: D102
        c = self.config

        def linear(width: int, name: str):
            return nn.Dense(width, use_bias=c.mlp_bias, dtype=c.dtype, name=name)

        up = linear(c.hidden_width, "up")(x)
        if c.mlp == "swiglu":
            return linear(c.width, "down")(jax.nn.silu(linear(c.hidden_width, "gate")(x)) * up)
        return linear(c.width, "down")(jax.nn.gelu(up, approximate=c.mlp == "gelu_tanh"))


def visible(real: Bool[Array, "*batch s"], window: int | None = None) -> Bool[Array, "*batch s s"]:
    """Which keys each query sees: real ones, none later, none ``window`` or more places back; always itself."""
    place = jnp.arange(real.shape[-1])
    back = place[:, None] - place
    near = (back >= 0) & (back < window) if window else back >= 0
    return (near & real[..., None, :]) | (back == 0)


def rotate(x: Float[Array, "*batch s heads d"], angles: Float[Array, "*batch s r"]) -> Array:
    """Rotary positions on the first 2 r dimensions of every head, in the form with two halves."""
    half = angles.shape[-1]
    cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
    wide = x.astype(jnp.float32)
    first, second, rest = wide[..., :half], wide[..., half : 2 * half], wide[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def frequencies(dims: int, theta: float, scaling: RopeScaling | None) -> Float[Array, " r"]:
    """Angles per position of every pair of dimensions."""
    freq = theta ** (-jnp.arange(0, dims, 2, dtype=jnp.float32) / dims)
    if scaling is None:
        return freq
    if scaling.kind == "linear":
        return freq / scaling.factor
    turns = scaling.original_length * freq / (2 * jnp.pi)
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = jnp.clip(smooth, 0.0, 1.0)
    return (1 - smooth) * freq / scaling.factor + smooth * freq


@checked
def token_losses(
    model: Decoder,
    params: PyTree,
    tokens: Int[Array, "*batch s"],
    targets: Int[Array, "*batch s"],
    mask: Bool[Array, "*batch s"] | None = None,
    chunk: Count | None = None,
) -> Float[Array, "*batch s"]:
    """-log p of every target given the tokens up to its place.

    Args:
      model: the decoder.
      params: its parameters.
      tokens: ids.
      targets: the ids that follow.
      mask: which tokens are real.
      chunk: compute logits for so many positions at a time, so that [..., s, vocab] never exists, backwards neither.
    """
    bound = model.bind({"params": params})
    hidden = bound.hidden(tokens, mask)

    def losses(hidden, targets):
        logits = bound.logits(hidden)
        picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - picked

    return losses(hidden, targets) if chunk is None else _in_chunks(losses, hidden, targets, chunk)


def _in_chunks(losses: Callable, hidden: Array, targets: Array, chunk: int) -> Array:
    lead, s = targets.shape[:-1], targets.shape[-1]
    short = -s % chunk
    hidden = jnp.pad(hidden, [(0, 0)] * len(lead) + [(0, short), (0, 0)])
    targets = jnp.pad(targets, [(0, 0)] * len(lead) + [(0, short)])
    split = (
        jnp.moveaxis(hidden.reshape(*lead, -1, chunk, hidden.shape[-1]), -3, 0),
        jnp.moveaxis(targets.reshape(*lead, -1, chunk), -2, 0),
    )
    found = jax.lax.map(jax.checkpoint(lambda pair: losses(*pair)), split)
    return jnp.moveaxis(found, 0, -2).reshape(*lead, -1)[..., :s]


def _norm(c: DecoderConfig, name: str | None = None) -> nn.Module:
    if c.norm == "rms" or name in ("query_norm", "key_norm"):
        return nn.RMSNorm(epsilon=c.norm_eps, dtype=jnp.float32, name=name)
    # E[x^2] - E[x]^2 cancels where the mean of a residual stream is large
    return nn.LayerNorm(epsilon=c.norm_eps, dtype=jnp.float32, use_fast_variance=False, name=name)


def layer_angles(c: DecoderConfig, positions: Int[Array, "*batch s"]) -> Float[Array, "*batch s r"] | None:
    """Rotary angles of every position, where the model has them."""
    if c.positions != "rotary":
        return None
    return positions[..., None].astype(jnp.float32) * frequencies(c.rotary_width, c.rope_theta, c.rope_scaling)
